#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/data/packing.h"
#include "temper/nn/finite.h"
#include "temper/trainer/online.h"

namespace temper {

/// What a rollout's optimizer steps add up to.
struct OnlineTrainer::StepSums {
  MetricSums metrics;
  MetricSums step_metrics;  // Of the optimizer step under way.
  double loss = 0;
  double grad_norm = 0;
  double value_grad_norm = 0;
  double value_seconds = 0;
  double kl_coef = 0;    // That of this rollout.
  double rate = 0;       // That of the optimizer step under way.
  bool stopped = false;  // The policy moved too far for another optimizer step.
  int64_t optimizer_steps = 0;
  int64_t compared = 0;
  int64_t mismatched = 0;
  bool as_recorded = true;  // Until a first update's scores are not those of sampling.
  double reference_seconds = 0;
  int64_t trained_tokens = 0;
};

/// The objective of a micro-batch at some scores.
struct OnlineTrainer::Evaluation {
  double loss = 0;
  MetricSums metrics;
  ScoreGradients gradients;
};

namespace {

int64_t different_bits(const at::Tensor& a, const at::Tensor& b) {
  const float* x = a.data_ptr<float>();
  const float* y = b.data_ptr<float>();
  int64_t count = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    count += std::bit_cast<uint32_t>(x[i]) != std::bit_cast<uint32_t>(y[i]);
  }
  return count;
}

at::Tensor as_tensor(std::vector<float> values) {
  return at::from_blob(values.data(), {std::ssize(values)}, at::kFloat).clone();
}

/// Hidden rows [N, width] of a training forward.
at::Tensor trunk_rows(ForwardTape& tape, int64_t width) {
  return at::from_blob(tape.hidden.data(), {tape.batch.rows(), width}, at::kFloat);
}

}  // namespace

/// The objective at some scores, and its gradients by them.
OnlineTrainer::Evaluation OnlineTrainer::evaluate(const Rollout& r, const MicroBatch& batch,
                                                  RolloutBatch b, const TokenScores& scores) const {
  b.logprobs = scores.logprobs.clone().requires_grad_(true);
  b.entropy = scores.entropy.clone().requires_grad_(true);
  LossOutput out = parts_.algorithm.objective(b);
  const double loss = out.loss.item<double>();
  TEMPER_CHECK(std::isfinite(loss), "[update] the loss of step ", r.step + 1, " is ", loss,
               " in the micro-batch that begins with prompt ", batch.front().prompt,
               " of the rollout; its optimizer step was not made");
  TEMPER_CHECK(out.loss.requires_grad(),
               "[update] the objective's loss has no gradient: it must be "
               "computed from the batch's logprobs");
  torch::autograd::backward({out.loss}, {});
  return {loss, std::move(out.metrics), {b.logprobs.grad(), b.entropy.grad()}};
}

/// Names the layer and the completion where a forward left the finite numbers.
void OnlineTrainer::check_finite(const Rollout& r, const MicroBatch& batch,
                                 const TokenScores& scores) const {
  const float* logprobs = scores.logprobs.data_ptr<float>();
  if (std::all_of(logprobs, logprobs + scores.logprobs.numel(),
                  [](float v) { return std::isfinite(v); })) {
    return;
  }
  const auto found = find_non_finite(tape_.forward, policy_.lm().config().hidden_size);
  TEMPER_CHECK(found, "[update] step ", r.step + 1, ": the LM head gives log-probs that are not ",
               "finite; its optimizer step was not made");
  int64_t row = found->row;
  std::string text = "the rollout";
  for (const Part& part : batch) {
    if (row >= 0) text = concat("prompt ", part.prompt);
    row -= std::ssize(r.request.prompts[part.prompt]);
    for (const size_t s : part.samples) {
      if (row >= 0) text = concat("completion ", s, " (prompt ", part.prompt, ")");
      row -= std::ssize(r.samples[s].ids) - 1;
    }
    if (row < 0) break;
  }
  const std::string layer = found->layer < 0 ? "the embedding" : concat("layer ", found->layer);
  fail("[update] step ", r.step + 1, ": ", layer, " gives numbers that are not finite, first for ",
       text,
       " of the rollout; its optimizer step was not made. Lower schedule.learning_rate, or go "
       "back to a checkpoint");
}

void OnlineTrainer::run_micro_batch(const Rollout& r, const MicroBatch& batch,
                                    const StepTotals& totals, bool first, StepSums& sums) {
  CompletionBatch packed = pack(r, batch, Tail::kLeftOut);
  const ScoreRequest request{std::move(packed.rows), std::move(packed.targets)};
  const double temperature = parts_.rollout.temperature;
  RolloutBatch b = make_batch(r, batch, packed.sequence);
  b.totals = totals;
  if (!r.ref_logprobs.empty()) {
    b.ref_logprobs = as_tensor(gather(r, batch, r.ref_logprobs));
  } else if (reference_) {
    const Stopwatch watch;
    b.ref_logprobs = temper::score(reference_->lm(), packed.tokens, request, temperature).logprobs;
    sums.reference_seconds += watch.seconds();
  }
  // On the first update the new scores are the recorded ones, so the loss is evaluated at those and
  // its gradients go through the head with the forward; the forward then confirms the scores.
  // An adapter's dropout makes others of them.
  Evaluation e;
  TokenScores scores;
  if (first && sums.as_recorded && !policy_.lm().drops_out()) {
    const TokenScores recorded = recorded_scores(r, batch, b.old_logprobs);
    e = evaluate(r, batch, b, recorded);
    scores = score_train(policy_.lm(), packed.tokens, request, temperature, {recorded, e.gradients},
                         tape_);
    sums.as_recorded = tape_.as_expected;
  } else {
    scores = score_train(policy_.lm(), packed.tokens, request, temperature, tape_);
  }
  check_finite(r, batch, scores);
  sums.trained_tokens += packed.tokens.rows();
  if (first && parts_.config.check_exact && !policy_.lm().drops_out()) {
    sums.mismatched += different_bits(scores.logprobs, b.old_logprobs);
    sums.compared += scores.logprobs.numel();
  }
  if (!tape_.as_expected) e = evaluate(r, batch, b, scores);
  sums.loss += e.loss;
  at::Tensor dhidden;
  if (parts_.critic && parts_.critic->on_trunk()) {
    const at::Tensor hidden = trunk_rows(tape_.forward, policy_.lm().config().hidden_size);
    if (parts_.critic->joint()) dhidden = at::zeros_like(hidden);
    sums.metrics.merge(parts_.critic->train_head(hidden, tape_.request.rows,
                                                 value_batch(r, batch, totals),
                                                 dhidden.defined() ? &dhidden : nullptr).metrics);
  }
  score_backward(policy_.lm(), tape_, e.gradients.logprobs, e.gradients.entropy, dhidden);
  sums.step_metrics.merge(e.metrics);
}

ValueBatch OnlineTrainer::value_batch(const Rollout& r, const MicroBatch& batch,
                                      const StepTotals& totals) const {
  ValueBatch v;
  v.old_values = as_tensor(gather(r, batch, r.values));
  v.returns = as_tensor(gather(r, batch, r.advantages.returns));
  v.mask = at::ones_like(v.returns);
  v.totals = totals;
  return v;
}

/// The critic's share of a micro-batch, where the policy has none or has yet to begin.
void OnlineTrainer::train_critic(const Rollout& r, const MicroBatch& batch, const StepTotals& totals,
                                 StepSums& sums) {
  const Stopwatch watch;
  const CompletionBatch packed = pack(r, batch, Tail::kLeftOut);
  ValueBatch targets = value_batch(r, batch, totals);
  Critic& critic = *parts_.critic;
  const LossOutput out =
      critic.on_trunk()
          ? critic.train_head(policy_.lm().forward(packed.tokens), packed.rows, std::move(targets), nullptr)
          : critic.train(packed.tokens, packed.rows, std::move(targets), tape_.forward);
  sums.metrics.merge(out.metrics);
  sums.value_seconds += watch.seconds();
}

/// The critic's whole optimizer step: checked before it is made.
void OnlineTrainer::step_critic(const Rollout& r, const std::vector<MicroBatch>& batches,
                                const StepTotals& totals, StepSums& sums) {
  for (const MicroBatch& batch : batches) train_critic(r, batch, totals, sums);
  parts_.critic->check_gradients();
  sums.value_grad_norm += parts_.critic->step(sums.rate, parts_.schedule.learning_rate);
}

/// The policy's, with that of a head on its trunk: both are checked before either moves.
void OnlineTrainer::step_policy(const Rollout& r, const std::vector<MicroBatch>& batches,
                                const StepTotals& totals, bool first, StepSums& sums) {
  const bool trunk = parts_.critic && parts_.critic->on_trunk();
  policy_.lm().set_dropout_step(parts_.seed, optimizer_.steps());
  for (const MicroBatch& batch : batches) run_micro_batch(r, batch, totals, first, sums);
  policy_.lm().finish_gradients();
  if (trunk) {
    parts_.critic->check_gradients();
    (void)optimizer_.gradient_norm();
  }
  sums.grad_norm += optimizer_.step(sums.rate).grad_norm;
  if (trunk) sums.value_grad_norm += parts_.critic->step(sums.rate, parts_.schedule.learning_rate);
}

/// Half a gradient must not end up in the caller's next step.
void OnlineTrainer::give_up(bool critic_ahead) {
  policy_.lm().zero_gradients();
  if (parts_.critic) parts_.critic->zero_gradients();
  torn_ = critic_ahead;
}

void OnlineTrainer::check_whole() const {
  TEMPER_CHECK(!torn_, "[update] the value model has made an optimizer step that the policy could not: "
               "begin anew from a checkpoint");
}

/// What the policy's loss reads of a rollout, before a critic of its own moves for it.
void OnlineTrainer::check_inputs(const Rollout& r) const {
  const auto check = [&](const auto& values, const char* what) {
    for (size_t i = 0; i < values.size(); ++i) {
      TEMPER_CHECK(std::isfinite(values[i]), "[update] step ", r.step + 1, ": ", what, " ", i,
                   " of the rollout is ", values[i], "; its optimizer step was not made");
    }
  };
  check(r.advantages.values, "the advantage of completion");
  check(r.advantages.tokens, "the advantage of token");
  check(r.ref_logprobs, "the reference's log-prob of token");
}

void OnlineTrainer::optimizer_step(const Rollout& r, Prompts prompts, bool first, StepSums& sums) {
  check_whole();
  StepTotals t = totals(r, prompts);
  const double initial_kl = parts_.algorithm.initial_kl_coef();
  t.kl_scale = initial_kl > 0 ? sums.kl_coef / initial_kl : 1.0;
  const auto batches = micro_batches(r, prompts, false);
  if (batches.empty()) return;  // Nothing to learn from: weights and moments stay as they are.
  sums.rate = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  const bool warming = parts_.critic && r.step < parts_.critic->config().warmup_steps;
  const bool apart = parts_.critic && (warming || !parts_.critic->on_trunk());
  bool ahead = false;
  sums.step_metrics = {};
  try {
    // The critic first: it has the policy's gradient memory to itself, and values explode before
    // log-probs do. Their results do not depend on the order.
    if (apart) {
      if (!warming) check_inputs(r);
      step_critic(r, batches, t, sums);
      ahead = !warming;
    }
    if (!warming) step_policy(r, batches, t, first, sums);
  } catch (const Error& e) {
    give_up(ahead);
    if (!ahead) throw;
    fail(e.what(), " The value model had made its own step by then: begin anew from a checkpoint.");
  } catch (...) {
    give_up(ahead);
    throw;
  }
  sums.metrics.merge(sums.step_metrics);
  sums.optimizer_steps++;
  Metrics now;
  sums.step_metrics.write_to(now);
  const auto moved = now.find("policy/kl_old_new");
  const double limit = 1.5 * parts_.algorithm.target_kl;
  sums.stopped = limit > 0 && moved != now.end() && moved->second > limit;
  const auto every = parts_.config.ref_sync_every;
  if (reference_ && every > 0 && optimizer_.steps() % every == 0) {
    reference_->sync(policy_, parts_.config.ref_sync_mix);
  }
}

void OnlineTrainer::update(Rollout& r) {
  const Stopwatch watch;
  StepSums sums;
  sums.kl_coef = kl_.coef();
  steer_kl(r);
  int64_t planned = 0;
  for (int64_t pass = 0; pass < parts_.config.iterations && !sums.stopped; ++pass) {
    for (const std::vector<size_t>& prompts : minibatches(r, pass)) {
      optimizer_step(r, prompts, planned++ == 0, sums);
      if (sums.stopped) break;
    }
  }
  update_metrics(r, sums, planned);
  state_.step++;
  for (const auto& prompt : r.request.prompts) {
    state_.num_tokens += static_cast<double>(std::ssize(prompt) * r.request.group_size);
  }
  for (const Sample& s : r.samples) state_.num_tokens += static_cast<double>(s.ids.size());
  Metrics& m = r.metrics;
  m["num_tokens"] = state_.num_tokens;
  m["epoch"] = epoch();
  const double seconds = std::max(1e-9, watch.seconds() - sums.reference_seconds - sums.value_seconds);
  m["time/update"] = seconds;
  if (sums.reference_seconds > 0) m["time/reference"] = sums.reference_seconds;
  if (parts_.critic) m["time/update_values"] = sums.value_seconds;
  m["update/tokens_per_second"] = static_cast<double>(sums.trained_tokens) / seconds;
}

/// What a rollout's optimizer steps left to say. @param planned  steps that were gone through.
void OnlineTrainer::update_metrics(Rollout& r, const StepSums& sums, int64_t planned) const {
  Metrics& m = r.metrics;
  const double rollout_entropy = m["entropy"];
  sums.metrics.write_to(m);
  m["entropy"] = rollout_entropy;  // Over every token, where the loss saw only those it trains on.
  const double steps = static_cast<double>(std::max<int64_t>(1, sums.optimizer_steps));
  m["loss"] = sums.loss / static_cast<double>(planned);
  m["grad_norm"] = sums.grad_norm / steps;
  m["learning_rate"] = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  if (parts_.config.check_exact && !policy_.lm().drops_out()) {
    m["sampling/compared_tokens"] = static_cast<double>(sums.compared);
    m["sampling/mismatched_tokens"] = static_cast<double>(sums.mismatched);
  }
  if (parts_.critic) m["value_grad_norm"] = sums.value_grad_norm / steps;
  if (parts_.algorithm.target_kl > 0) m["policy/stopped_early"] = sums.stopped ? 1.0 : 0.0;
}

}  // namespace temper
