#include "temper/trainer/judge_reward.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::string question_of(const Completion& c) {
  if (c.example == nullptr) return c.prompt;
  const auto& turns = c.example->messages;
  if (turns.empty()) return c.example->prompt;
  if (turns.size() == 1) return turns.front().content;
  std::string out;
  for (const ChatMessage& m : turns) out += (out.empty() ? "" : "\n") + m.role + ": " + m.content;
  return out;
}

std::vector<float> marks_of(ModelJudge& judge, std::span<const Completion> completions) {
  std::vector<JudgeCase> cases;
  for (const Completion& c : completions) cases.push_back({judge_texts(c), c.truncated});
  std::vector<float> out;
  for (const Mark& m : judge.mark(cases)) out.push_back(static_cast<float>(m.value));
  return out;
}

JudgePair pair_of(const Completion& first, const Completion& second) {
  JudgePair pair{judge_texts(first), first.truncated, second.truncated};
  pair.texts.other = second.text;
  return pair;
}

/// Whether two neighbours answer the same prompt.
bool same_prompt(const Completion& a, const Completion& b) {
  return a.example == b.example && a.prompt == b.prompt;
}

std::vector<float> win_rates(ModelJudge& judge, std::span<const Completion> completions) {
  std::vector<JudgePair> pairs;
  std::vector<std::pair<size_t, size_t>> of;
  for (size_t i = 0; i < completions.size(); ++i) {
    for (size_t j = i + 1; j < completions.size() && same_prompt(completions[i], completions[j]); ++j) {
      pairs.push_back(pair_of(completions[i], completions[j]));
      of.emplace_back(i, j);
    }
  }
  const auto verdicts = judge.compare(pairs);
  std::vector<double> sum(completions.size(), 0);
  std::vector<int> count(completions.size(), 0);
  for (size_t k = 0; k < of.size(); ++k) {
    if (std::isnan(verdicts[k].p_first)) continue;
    const auto [i, j] = of[k];
    sum[i] += verdicts[k].p_first;
    sum[j] += 1 - verdicts[k].p_first;
    ++count[i];
    ++count[j];
  }
  std::vector<float> out;
  for (size_t i = 0; i < sum.size(); ++i) {
    out.push_back(static_cast<float>(count[i] > 0 ? sum[i] / count[i] : kNone));
  }
  return out;
}

bool compares(const ModelJudge& judge) { return judge.config().mode == "pairwise"; }

std::vector<double> preferences_by_marks(ModelJudge& judge, std::span<const AnswerPair> pairs) {
  std::vector<JudgeCase> cases;
  for (const AnswerPair& p : pairs) {
    cases.push_back({judge_texts(p.first), p.first.truncated});
    cases.push_back({judge_texts(p.second), p.second.truncated});
  }
  const auto marks = judge.mark(cases);
  std::vector<double> out;
  for (size_t i = 0; i < marks.size(); i += 2) {
    out.push_back(preference_by_shares(marks[i], marks[i + 1], judge.config().length_penalty));
  }
  return out;
}

}  // namespace

std::shared_ptr<ModelJudge> make_judge(const JudgeConfig& config, const PolicyModel& policy) {
  TEMPER_CHECK(!config.model.empty(), "judge.model is empty: say policy, or name a model");
  if (config.model == "policy") {
    // Not owned: the policy is the run's.
    return std::make_shared<ModelJudge>(std::shared_ptr<CausalLM>(std::shared_ptr<void>(), &policy.lm()),
                                        policy.text(), config);
  }
  const ModelSource source = open_model(config.model);
  auto lm = std::make_shared<CausalLM>(source, parse_weight_dtype(config.weights), Trainable::kNo);
  return std::make_shared<ModelJudge>(std::move(lm), ModelText(source), config);
}

JudgeTexts judge_texts(const Completion& c) {
  return {question_of(c), c.text, "", c.example == nullptr ? "" : c.example->answer};
}

double preference_by_shares(const Mark& first, const Mark& second, double length_penalty) {
  if (std::isnan(first.value) || std::isnan(second.value)) return kNone;
  // An answer that was cut off and not asked about has the least mark for certain.
  const std::vector<double> least = {1};
  const auto& a = first.share.empty() ? least : first.share;
  const auto& b = second.share.empty() ? least : second.share;
  const double off = length_penalty * static_cast<double>(first.length - second.length) / 100;
  double p = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      const double lead = static_cast<double>(i) - static_cast<double>(j) - off;
      p += a[i] * b[j] * (lead > 0 ? 1.0 : lead == 0 ? 0.5 : 0.0);
    }
  }
  return std::min(1.0, p);
}

RewardFn judge_reward(std::shared_ptr<ModelJudge> judge) {
  TEMPER_CHECK(judge != nullptr, "[judge_reward] needs a judge");
  return [judge = std::move(judge)](std::span<const Completion> completions) {
    return compares(*judge) ? win_rates(*judge, completions) : marks_of(*judge, completions);
  };
}

Labeler judge_labeler(std::shared_ptr<ModelJudge> judge) {
  TEMPER_CHECK(judge != nullptr, "[judge_labeler] needs a judge");
  Labeler out{"judge", nullptr, nullptr};
  if (!compares(*judge)) {
    out.scores = [judge](std::span<const Completion> c) { return marks_of(*judge, c); };
    out.prefer = [judge](std::span<const AnswerPair> p) { return preferences_by_marks(*judge, p); };
    return out;
  }
  out.prefer = [judge](std::span<const AnswerPair> pairs) {
    std::vector<JudgePair> asked;
    for (const AnswerPair& p : pairs) asked.push_back(pair_of(p.first, p.second));
    std::vector<double> p_first;
    for (const Comparison& c : judge->compare(asked)) p_first.push_back(c.p_first);
    return p_first;
  };
  return out;
}

}  // namespace temper
