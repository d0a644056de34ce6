// What an algorithm wants to know of a rollout before rewards become advantages: log-probs of the
// reference, values, greedy completions.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/data/packing.h"
#include "temper/trainer/online.h"

namespace temper {

/// One pass over the whole rollout serves the reward, a controller and every later pass of the loss;
/// with a single pass the loss may as well ask for the groups that it trains on.
bool OnlineTrainer::measures_reference() const {
  const OnlineAlgorithm& a = parts_.algorithm;
  return reference_ && (a.kl.reward_coef != 0 || a.kl.controller.kind != "fixed" ||
                        (parts_.config.iterations > 1 && parts_.config.ref_sync_every == 0));
}

CompletionBatch OnlineTrainer::pack(const Rollout& r, const MicroBatch& batch, Tail tail) const {
  std::vector<PackedGroup> groups;
  for (const Part& part : batch) {
    groups.push_back({r.request.prompts[part.prompt], {}});
    for (const size_t s : part.samples) groups.back().completions.emplace_back(r.samples[s].ids);
  }
  return pack_completions(groups, tail);
}

void OnlineTrainer::measure(Rollout& r) {
  r.offsets.assign(1, 0);
  for (const Sample& s : r.samples) r.offsets.push_back(r.offsets.back() + std::ssize(s.ids));
  const bool reference = measures_reference();
  if (!reference && !parts_.critic) return;
  const size_t tokens = static_cast<size_t>(r.offsets.back());
  if (reference) r.ref_logprobs.resize(tokens);
  if (parts_.critic) {
    r.values.resize(tokens);
    r.bootstrap_values.resize(r.samples.size());
  }
  std::vector<size_t> prompts(r.rows.size());
  std::iota(prompts.begin(), prompts.end(), size_t{0});
  double reference_seconds = 0, value_seconds = 0;
  for (const MicroBatch& batch : micro_batches(r, prompts, true)) {
    CompletionBatch packed = pack(r, batch, parts_.critic ? Tail::kKept : Tail::kLeftOut);
    if (reference) {
      const Stopwatch watch;
      const ScoreRequest request{packed.rows, packed.targets};
      const at::Tensor logprobs =
          temper::score(reference_->lm(), packed.tokens, request, parts_.rollout.temperature).logprobs;
      scatter(r, batch, {logprobs.data_ptr<float>(), static_cast<size_t>(logprobs.numel())},
              r.ref_logprobs);
      reference_seconds += watch.seconds();
    }
    if (!parts_.critic) continue;
    const Stopwatch watch;
    std::vector<int32_t> rows = packed.rows;
    rows.insert(rows.end(), packed.ends.begin(), packed.ends.end());
    const std::vector<float> values = parts_.critic->values(policy_.lm(), packed.tokens, rows);
    scatter(r, batch, std::span(values).first(packed.rows.size()), r.values);
    size_t end = packed.rows.size();
    for (const Part& part : batch) {
      for (const size_t s : part.samples) r.bootstrap_values[s] = values[end++];
    }
    value_seconds += watch.seconds();
  }
  if (reference) r.metrics["time/reference"] = reference_seconds;
  if (parts_.critic) r.metrics["time/values"] = value_seconds;
}

/// One greedy completion a prompt, and its weighted reward.
void OnlineTrainer::greedy(Rollout& r) {
  RolloutConfig config = parts_.rollout;
  config.temperature = 0;
  RolloutEngine engine(policy_.lm(), policy_.text(), config);
  RolloutRequest request = r.request;
  request.group_size = 1;
  const std::vector<Sample> samples = engine.generate(request);
  const RewardScores scores = score_in_time(r, samples);
  std::vector<double> weights;
  for (const NamedReward& reward : parts_.rewards) weights.push_back(reward.weight);
  for (const float v : total_rewards(scores, weights)) r.greedy_rewards.push_back(double{v});
}

RewardTable OnlineTrainer::reward_table(const Rollout& r) const {
  RewardTable table;
  table.functions = static_cast<int64_t>(parts_.rewards.size());
  table.group_size = parts_.config.group_size;
  for (const auto& reward : parts_.rewards) table.weights.push_back(reward.weight);
  table.values.assign(r.scores.values.begin(), r.scores.values.end());
  return table;
}

TokenTable OnlineTrainer::token_table(const Rollout& r, const RewardTable& rewards) {
  TokenTable t;
  t.offsets = r.offsets;
  for (const Sample& s : r.samples) {
    t.old_logprobs.insert(t.old_logprobs.end(), s.logprobs.begin(), s.logprobs.end());
    t.truncated.push_back(s.finish == Finish::kLength ? 1 : 0);
  }
  t.ref_logprobs = r.ref_logprobs;
  t.values = r.values;
  t.bootstrap_values = r.bootstrap_values;
  t.greedy_scores = r.greedy_rewards;
  t.kl_coef = parts_.algorithm.kl.reward_coef != 0 ? kl_.coef() : 0;
  if (parts_.algorithm.scale_rewards) {
    std::vector<double> totals;
    for (const float v : total_rewards(r.scores, rewards.weights)) totals.push_back(double{v});
    state_.reward_scale.update(totals);
    t.reward_scale = state_.reward_scale.factor();
  }
  return t;
}

/// Moves the KL coefficient by what this rollout's KL was before its updates.
void OnlineTrainer::steer_kl(Rollout& r) {
  if (r.ref_logprobs.empty()) return;
  r.metrics["kl_coef"] = kl_.coef();
  double sum = 0;
  int64_t token = 0;
  for (const Sample& s : r.samples) {
    for (const float old : s.logprobs) sum += double{old} - double{r.ref_logprobs[static_cast<size_t>(token++)]};
  }
  const auto sequences = std::ssize(r.samples);
  kl_.update(sum / static_cast<double>(sequences), sequences);
}

}  // namespace temper
