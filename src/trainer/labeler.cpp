#include "temper/trainer/labeler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/log.h"

namespace temper {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::vector<double> marks_by_scores(const Labeler& labeler, std::span<const Completion> answers) {
  const std::vector<float> scores = labeler.scores(answers);
  TEMPER_CHECK(scores.size() == answers.size(), "[labeler] ", labeler.name, " gave ", scores.size(),
               " marks for ", answers.size(), " answers");
  std::vector<double> out(scores.begin(), scores.end());
  for (double& mark : out) {
    if (!std::isfinite(mark)) mark = kNone;  // An infinite margin would say nothing.
  }
  return out;
}

/// All pairs of one group's answers.
std::vector<AnswerPair> pairs_of(std::span<const Completion> group) {
  std::vector<AnswerPair> out;
  for (size_t i = 0; i < group.size(); ++i) {
    for (size_t j = i + 1; j < group.size(); ++j) out.push_back({group[i], group[j]});
  }
  return out;
}

/// Mean P(preferred) of each answer over the others of its group.
std::vector<double> win_shares(std::span<const double> preferred, size_t group_size) {
  std::vector<double> sum(group_size), count(group_size);
  size_t at = 0;
  for (size_t i = 0; i < group_size; ++i) {
    for (size_t j = i + 1; j < group_size; ++j, ++at) {
      if (std::isnan(preferred[at])) continue;
      sum[i] += preferred[at];
      sum[j] += 1 - preferred[at];
      count[i] += 1;
      count[j] += 1;
    }
  }
  for (size_t i = 0; i < group_size; ++i) sum[i] = count[i] > 0 ? sum[i] / count[i] : kNone;
  return sum;
}

}  // namespace

Labeler reward_labeler(std::vector<NamedReward> rewards) {
  TEMPER_CHECK(!rewards.empty(), "[labeler] no reward function was given");
  Labeler out;
  std::vector<double> weights;
  for (const NamedReward& r : rewards) {
    out.name += (out.name.empty() ? "" : "+") + r.name;
    weights.push_back(r.weight);
  }
  out.scores = [rewards = std::move(rewards), weights](std::span<const Completion> answers) {
    const RewardScores scored = score(rewards, answers);
    for (const std::string& problem : scored.problems) log_warn(problem);
    return total_rewards(scored, weights);
  };
  return out;
}

double bradley_terry(double first, double second) {
  return 1 / (1 + std::exp(second - first));
}

double preference_by_marks(const Labeler& labeler, double first, double second) {
  if (std::isnan(first) || std::isnan(second)) return kNone;
  if (labeler.link) return labeler.link(first, second);
  if (first == second) return 0.5;
  return first > second ? 1 : 0;
}

Labeler penalize_cut_answers(Labeler labeler, double penalty) {
  if (penalty == 0) return labeler;
  TEMPER_CHECK(labeler.scores, "[labeler] ", labeler.name,
               " gives no marks that a penalty could be taken off");
  labeler.scores = [scores = std::move(labeler.scores),
                    penalty](std::span<const Completion> answers) {
    std::vector<float> marks = scores(answers);
    for (size_t i = 0; i < std::min(marks.size(), answers.size()); ++i) {
      if (answers[i].truncated) marks[i] -= static_cast<float>(penalty);
    }
    return marks;
  };
  return labeler;
}

std::vector<double> preferences(const Labeler& labeler, std::span<const AnswerPair> pairs) {
  TEMPER_CHECK(labeler.prefer || labeler.scores, "[labeler] \"", labeler.name,
               "\" can neither mark an answer nor compare two");
  std::vector<double> out;
  if (!labeler.prefer) {
    std::vector<Completion> answers;
    for (const AnswerPair& pair : pairs) answers.insert(answers.end(), {pair.first, pair.second});
    const std::vector<double> marks = marks_by_scores(labeler, answers);
    for (size_t i = 0; i < pairs.size(); ++i) {
      out.push_back(preference_by_marks(labeler, marks[2 * i], marks[2 * i + 1]));
    }
    return out;
  }
  out = labeler.prefer(pairs);
  TEMPER_CHECK(out.size() == pairs.size(), "[labeler] ", labeler.name, " gave ", out.size(),
               " labels for ", pairs.size(), " pairs");
  for (const double p : out) {
    TEMPER_CHECK(std::isnan(p) || (p >= 0 && p <= 1), "[labeler] ", labeler.name,
                 " gave the probability ", p, ", which is not in [0, 1]");
  }
  return out;
}

std::vector<double> marks(const Labeler& labeler, std::span<const Completion> completions,
                          size_t group_size) {
  TEMPER_CHECK(group_size >= 1 && completions.size() % group_size == 0, "[labeler] ",
               completions.size(), " answers are no groups of ", group_size);
  if (labeler.scores) return marks_by_scores(labeler, completions);
  std::vector<AnswerPair> pairs;
  for (size_t at = 0; at < completions.size(); at += group_size) {
    for (AnswerPair& pair : pairs_of(completions.subspan(at, group_size))) {
      pairs.push_back(std::move(pair));
    }
  }
  const std::vector<double> preferred = preferences(labeler, pairs);
  const size_t per_group = group_size * (group_size - 1) / 2;
  std::vector<double> out;
  for (size_t g = 0; g < completions.size() / group_size; ++g) {
    const std::vector<double> group =
        win_shares(std::span(preferred).subspan(g * per_group, per_group), group_size);
    out.insert(out.end(), group.begin(), group.end());
  }
  return out;
}

std::optional<PairChoice> best_against_worst(std::span<const double> marks, double min_margin) {
  std::optional<size_t> best, worst;
  for (size_t i = 0; i < marks.size(); ++i) {
    if (std::isnan(marks[i])) continue;
    if (!best || marks[i] > marks[*best]) best = i;
    if (!worst || marks[i] < marks[*worst]) worst = i;
  }
  if (!best || marks[*best] == marks[*worst]) return std::nullopt;
  const double margin = marks[*best] - marks[*worst];
  if (margin < min_margin) return std::nullopt;
  return PairChoice{*best, *worst, margin};
}

}  // namespace temper
