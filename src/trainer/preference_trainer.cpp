#include "temper/trainer/preference_trainer.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "temper/core/rng.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

/// Rounds without a row after which a step gives up.
constexpr int64_t kMostEmptyRounds = 10;
/// Passes over a round have random streams of their own.
constexpr int64_t kMostPasses = 1 << 16;

double sum_of(const at::Tensor& values) { return values.sum().item<double>(); }

/// The objective, with what TRL says of the answers of online methods besides.
OfflineObjective with_divergence(OfflineObjective objective, double beta) {
  return [objective = std::move(objective), beta](const AnswerBatch& b) {
    LossOutput out = objective(b);
    const AnswerTerms t = answer_terms(b);
    const auto answers = static_cast<double>(t.answers);
    out.metrics.add_mean("objective/entropy", -sum_of(t.sum(t.logprobs.detach())), answers);
    if (!t.ref_logprobs.defined()) return out;
    const double kl = sum_of(t.sum(t.logprobs.detach() - t.ref_logprobs));
    out.metrics.add_mean("objective/kl", kl, answers);
    out.metrics.add_mean("objective/non_score_reward", -beta * kl, answers);
    return out;
  };
}

LearnerSettings learner_settings(const PreferenceTrainer::Parts& p) {
  return {with_divergence(p.objective, p.beta),
          p.needs,
          p.optimizer,
          p.config.micro_batch_tokens,
          p.config.gradient_checkpointing,
          p.beta,
          "the round's rows (lines are prompts)",
          p.seed};
}

AnswerLearner::RowList all_rows(size_t count) {
  AnswerLearner::RowList out(count);
  for (size_t i = 0; i < count; ++i) out[i] = i;
  return out;
}

/// Why a round had no row, from its metrics.
std::string why_empty(const Metrics& m) {
  std::string out;
  for (const auto& [key, words] : {std::pair("pairs/tied", "tied"),
                                   std::pair("pairs/unlabelled", "got no label"),
                                   std::pair("pairs/close", "differed by less than "
                                                            "preference.min_margin"),
                                   std::pair("pairs/equal", "were the same tokens")}) {
    const auto it = m.find(key);
    if (it == m.end() || it->second == 0) continue;
    out += concat(out.empty() ? "" : ", ", it->second, " ", words);
  }
  return out.empty() ? "the source gave none" : "of the last one's groups " + out;
}

}  // namespace

void PreferenceConfig::validate() const {
  sampling.validate();
  const auto at_least_one = [](const char* key, int64_t value) {
    TEMPER_CHECK(value >= 1, "preference.", key, " must be at least 1, got ", value);
  };
  at_least_one("passes", passes);
  TEMPER_CHECK(passes < kMostPasses, "preference.passes must be below ", kMostPasses, ", got ",
               passes);
  at_least_one("rows_per_step", rows_per_step);
  at_least_one("micro_batch_tokens", micro_batch_tokens);
  at_least_one("replay_steps", replay_steps);
  TEMPER_CHECK(replay_rows >= 0, "preference.replay_rows must be at least 0, got ", replay_rows);
  TEMPER_CHECK(file_share >= 0 && file_share <= 1, "preference.file_share must be in [0, 1], got ",
               file_share);
}

PreferenceTrainer::PreferenceTrainer(PolicyModel& policy, Parts parts)
    : policy_(policy), parts_(std::move(parts)), learner_(policy, learner_settings(parts_)) {
  parts_.config.validate();
  TEMPER_CHECK(parts_.source != nullptr, "[preference] no source of pairs was given");
  TEMPER_CHECK(parts_.total_steps >= 1, "[preference] total_steps must be at least 1, got ",
               parts_.total_steps);
  (void)learning_rate(parts_.schedule, 0, parts_.total_steps);  // Refuses a bad schedule now.
  TEMPER_CHECK(!parts_.needs.reference || moves() || parts_.reference.has_value(),
               "[preference] this loss compares with a reference, and none was given");
}

/// The rows of the next round that has some. @param rounds  begun so far, counted on.
PairRows PreferenceTrainer::fresh_rows(int64_t& rounds) const {
  PairRows out;
  for (int64_t empty = 0; empty < kMostEmptyRounds; ++empty) {
    out = parts_.source->next({rounds, state_.step});
    ++rounds;
    if (out.groups.empty()) {
      log_warn("round ", rounds, " gave nothing to learn: ", why_empty(out.metrics));
      continue;
    }
    out.metrics["pairs/empty_rounds"] = static_cast<double>(empty);
    return out;
  }
  throw NothingToLearn(concat(
      "[preference] ", kMostEmptyRounds, " rounds in a row gave nothing to learn: ",
      why_empty(out.metrics), ". Where the policy is not yet what it should be: more answers "
      "(preference.completions), more variety (rollout.temperature), or a labeler that tells them "
      "apart"));
}

/// Rows of each optimizer step: every pass in an order of its own, cut into about equal parts.
std::vector<PreferenceTrainer::RowList> PreferenceTrainer::plan(size_t rows, int64_t round) const {
  const auto per_step = static_cast<size_t>(parts_.config.rows_per_step);
  const size_t steps = (rows + per_step - 1) / per_step;
  std::vector<RowList> out;
  for (int64_t pass = 0; pass < parts_.config.passes; ++pass) {
    RowList order = all_rows(rows);
    RngStream random(parts_.seed, RngPurpose::kShuffle,
                     ~static_cast<uint64_t>(round * kMostPasses + pass));
    for (size_t i = rows; i > 1; --i) std::swap(order[i - 1], order[random.next_below(i)]);
    for (size_t s = 0; s < steps; ++s) {
      const auto at = [&](size_t k) {
        return order.begin() + static_cast<std::ptrdiff_t>(rows * k / steps);
      };
      out.emplace_back(at(s), at(s + 1));
    }
  }
  return out;
}

void PreferenceTrainer::fill_reference(ReferencedRows& rows) {
  if (!parts_.needs.reference) return;
  CausalLM& model = moves() ? policy_.lm() : parts_.reference->lm();
  learner_.fill_reference(rows, all_rows(rows.groups.size()), model);
}

void PreferenceTrainer::begin_round() {
  const nlohmann::ordered_json before = parts_.source->state();
  try {
    int64_t rounds = state_.rounds;
    PairRows made = fresh_rows(rounds);
    Round next;
    next.lists = plan(made.groups.size(), rounds - 1);
    next.rows.groups = std::move(made.groups);
    next.metrics = std::move(made.metrics);
    next.samples = std::move(made.samples);
    fill_reference(next.rows);
    round_ = std::move(next);
    state_.rounds = rounds;
  } catch (...) {
    parts_.source->restore(before);
    throw;
  }
}

Metrics PreferenceTrainer::step() {
  const Stopwatch watch;
  if (round_.next == round_.lists.size()) begin_round();
  const Stopwatch update;
  const RowList& list = round_.lists[round_.next];
  const double rate = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  Metrics m = learner_.step(round_.rows, list, rate);
  double tokens = 0;
  for (const size_t i : list) tokens += static_cast<double>(round_.rows.groups[i].tokens());
  state_.step++;
  state_.num_tokens += tokens;
  m.insert(round_.metrics.begin(), round_.metrics.end());
  m.insert(parts_.constants.begin(), parts_.constants.end());
  round_.metrics.clear();
  samples_ = std::move(round_.samples);
  round_.samples.clear();
  for (SampleCompletion& s : samples_) s.step = state_.step;
  round_.next++;
  const auto scores = m.find("objective/scores"), other = m.find("objective/non_score_reward");
  if (scores != m.end() && other != m.end()) {
    m["objective/rlhf_reward"] = scores->second + other->second;
  }
  m["learning_rate"] = rate;
  m["num_tokens"] = state_.num_tokens;
  m["epoch"] = epoch();
  m["round"] = static_cast<double>(state_.rounds);
  m["time/update"] = update.seconds();
  m["step_time"] = watch.seconds();
  m["update/tokens_per_second"] = tokens / std::max(1e-9, update.seconds());
  return m;
}

}  // namespace temper
