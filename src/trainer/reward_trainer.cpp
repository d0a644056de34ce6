#include "temper/trainer/reward_trainer.h"

#include <ATen/ops/from_blob.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

using PairList = std::vector<const TokenPair*>;

/// Neighbouring pairs in as few micro-batches as their tokens allow.
std::vector<PairList> cut(const PairList& pairs, int64_t limit) {
  std::vector<PairList> out;
  int64_t rows = 0;
  for (const TokenPair* pair : pairs) {
    if (out.empty() || rows + pair->rows() > limit) {
      out.emplace_back();
      rows = 0;
    }
    out.back().push_back(pair);
    rows += pair->rows();
  }
  return out;
}

/// The rewards [2 P] of pairs as their loss reads them; gradients flow to `rewards`.
ScoredPairs scored(const at::Tensor& rewards, const PairList& pairs, double total) {
  std::vector<double> margins;
  for (const TokenPair* pair : pairs) margins.push_back(pair->margin);
  ScoredPairs out;
  out.chosen = rewards.slice(0, 0, std::nullopt, 2);
  out.rejected = rewards.slice(0, 1, std::nullopt, 2);
  out.margin = at::from_blob(margins.data(), {std::ssize(margins)}, at::kDouble).clone();
  out.total = total;
  return out;
}

at::Tensor as_tensor(const std::vector<float>& values) {
  return at::from_blob(const_cast<float*>(values.data()), {std::ssize(values)}, at::kFloat).clone();
}

void check_finite(const PairList& pairs, const float* rewards, const std::string& source) {
  for (size_t i = 0; i < 2 * pairs.size(); ++i) {
    TEMPER_CHECK(std::isfinite(rewards[i]), "[reward] the ", i % 2 == 0 ? "chosen" : "rejected",
                 " side of the pair in line ", pairs[i / 2]->line, " of ", source, " scores ",
                 rewards[i],
                 "; no step was made with it. Lower schedule.learning_rate, or go back "
                 "to a checkpoint");
  }
}

void append(std::vector<float>& to, const at::Tensor& rewards) {
  to.insert(to.end(), rewards.const_data_ptr<float>(),
            rewards.const_data_ptr<float>() + rewards.numel());
}

}  // namespace

void RewardTrainingConfig::validate() const {
  TEMPER_CHECK(pairs_per_step >= 1, "reward.pairs_per_step must be at least 1, got ",
               pairs_per_step);
  TEMPER_CHECK(micro_batch_tokens >= 1, "reward.micro_batch_tokens must be at least 1, got ",
               micro_batch_tokens);
  TEMPER_CHECK(std::isfinite(head_init_std) && head_init_std >= 0,
               "reward.head_init_std must be at least 0, got ", head_init_std);
  TEMPER_CHECK(std::isfinite(loss.center_coef) && loss.center_coef >= 0,
               "reward.loss.center_coef must be at least 0, got ", loss.center_coef);
  TEMPER_CHECK(loss.label_smoothing >= 0 && loss.label_smoothing < 0.5,
               "reward.loss.label_smoothing must be in [0, 0.5), got ", loss.label_smoothing);
}

void init_head(ScalarHead& head, double std, uint64_t seed) {
  std::vector<float> weight;
  for (uint64_t i = 0; std::cmp_less(i, head.width()); ++i) {
    const auto r = keyed_random(seed, RngPurpose::kInit, 0, i, 0);
    // Box and Muller; 1 - u is above 0.
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform_from_bits(r[0], r[1])));
    const double angle = 2.0 * std::numbers::pi * uniform_from_bits(r[2], r[3]);
    weight.push_back(static_cast<float>(std * radius * std::cos(angle)));
  }
  head.set(weight);
}

PairEvaluation evaluate_pairs(RewardModel& model, std::span<const TokenPair> pairs,
                              const BradleyTerry& loss, int64_t micro_batch_tokens) {
  PairEvaluation out;
  PairList all;
  for (const TokenPair& pair : pairs) all.push_back(&pair);
  for (const PairList& part : cut(all, micro_batch_tokens)) {
    const PairBatch batch = pack_pairs(part);
    append(out.rewards, model.values(batch.tokens, batch.rows));
  }
  out.count = std::ssize(pairs);
  if (pairs.empty()) return out;
  const double total = static_cast<double>(pairs.size());
  const LossOutput whole = loss(scored(as_tensor(out.rewards), all, total));
  Metrics metrics;
  whole.metrics.write_to(metrics);
  metrics["loss"] = whole.loss.item<double>();
  std::vector<double> differences;
  bool known = true;
  for (size_t i = 0; i < out.rewards.size(); i += 2) {
    differences.push_back(double{out.rewards[i]} - double{out.rewards[i + 1]});
    out.correct += differences.back() > 0 ? 1 : 0;
    known = known && !std::isnan(differences.back());
  }
  if (known) metrics["calibration_error"] = calibration_error(differences);
  for (const auto& [name, value] : metrics) out.metrics["eval/" + name] = value;
  return out;
}

RewardTrainer::RewardTrainer(RewardModel& model, Parts parts)
    : model_(model),
      parts_(std::move(parts)),
      loss_{parts_.config.loss},
      optimizer_(model.parameters(), parts_.optimizer, parts_.seed),
      sampler_(parts_.data.pairs.size(), parts_.seed, parts_.config.shuffle) {
  parts_.config.validate();
  TEMPER_CHECK(parts_.total_steps >= 1, "[reward] total_steps must be at least 1, got ",
               parts_.total_steps);
  (void)learning_rate(parts_.schedule, 0, parts_.total_steps);  // Refuses a bad schedule now.
  TEMPER_CHECK(model.backbone().trainable() != parts_.config.freeze_backbone,
               "[reward] reward.freeze_backbone is ", parts_.config.freeze_backbone ? "on" : "off",
               " but the model was loaded otherwise");
  tape_.forward.checkpoint = parts_.config.gradient_checkpointing;
}

double RewardTrainer::epoch() const {
  return static_cast<double>(state_.step * parts_.config.pairs_per_step) /
         static_cast<double>(parts_.data.pairs.size());
}

RewardTrainer::PairList RewardTrainer::next_pairs() {
  PairList out;
  for (const size_t i : sampler_.next(static_cast<size_t>(parts_.config.pairs_per_step))) {
    out.push_back(&parts_.data.pairs[i]);
  }
  return out;
}

void RewardTrainer::run_micro_batch(const PairList& pairs, double total,
                                    std::vector<float>& rewards) {
  const PairBatch batch = pack_pairs(pairs);
  const at::Tensor values = model_.values_train(batch.tokens, batch.rows, tape_);
  check_finite(pairs, values.const_data_ptr<float>(), parts_.data.source);
  append(rewards, values);
  const at::Tensor leaf = values.clone().requires_grad_(true);
  torch::autograd::backward({loss_(scored(leaf, pairs, total)).loss}, {});
  model_.values_backward(tape_, leaf.grad());
}

/// Over the whole step at once: micro-batches would leave their rounding in the sums.
Metrics RewardTrainer::step_metrics(const PairList& pairs,
                                    const std::vector<float>& rewards) const {
  const LossOutput whole =
      loss_(scored(as_tensor(rewards), pairs, static_cast<double>(pairs.size())));
  Metrics metrics;
  whole.metrics.write_to(metrics);
  metrics["loss"] = whole.loss.item<double>();
  return metrics;
}

Metrics RewardTrainer::step() {
  const Stopwatch watch;
  const PromptSampler::State before = sampler_.state();
  const PairList pairs = next_pairs();
  const double rate = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  std::vector<float> rewards;
  double grad_norm = 0;
  try {
    model_.backbone().set_dropout_step(parts_.seed, optimizer_.steps());
    for (const PairList& part : cut(pairs, parts_.config.micro_batch_tokens)) {
      run_micro_batch(part, static_cast<double>(pairs.size()), rewards);
    }
    model_.finish_gradients();
    grad_norm = optimizer_.step(rate).grad_norm;
  } catch (...) {
    model_.zero_gradients();  // Half a gradient must not end up in the caller's next step.
    sampler_.restore(before);
    throw;
  }
  Metrics m = step_metrics(pairs, rewards);
  double tokens = 0;
  for (const TokenPair* pair : pairs) tokens += static_cast<double>(pair->tokens());
  state_.step++;
  state_.num_tokens += tokens;
  m["grad_norm"] = grad_norm;
  m["learning_rate"] = rate;
  m["num_tokens"] = state_.num_tokens;
  m["epoch"] = epoch();
  m["step_time"] = watch.seconds();
  m["update/tokens_per_second"] = tokens / std::max(1e-9, watch.seconds());
  return m;
}

PairEvaluation RewardTrainer::evaluate(std::span<const TokenPair> pairs) const {
  return evaluate_pairs(model_, pairs, loss_, parts_.config.micro_batch_tokens);
}

}  // namespace temper
