#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/data/packing.h"
#include "temper/nn/finite.h"
#include "temper/objective/entropy.h"
#include "temper/trainer/online.h"

namespace temper {

/// What a rollout's optimizer steps add up to.
struct OnlineTrainer::StepSums {
  MetricSums metrics;
  double loss = 0;
  double grad_norm = 0;
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

}  // namespace

bool OnlineTrainer::trained_on(const Rollout& r, size_t sample) const {
  if (parts_.config.mask_truncated && r.samples[sample].finish == Finish::kLength) return false;
  const bool zero = r.advantages.values[sample] == 0.0;
  return !(zero && parts_.config.skip_dead_groups && !parts_.algorithm.trains_on_zero);
}

std::vector<OnlineTrainer::MicroBatch> OnlineTrainer::micro_batches(const Rollout& r, size_t begin,
                                                                    size_t end) const {
  const size_t group = static_cast<size_t>(parts_.config.group_size);
  const int64_t limit = parts_.config.micro_batch_tokens;
  std::vector<MicroBatch> out;
  int64_t tokens = 0;
  const auto length = [&](size_t s) { return std::ssize(r.samples[s].ids); };
  for (size_t p = begin; p < end; ++p) {
    Part part{p, {}};
    const int64_t prompt = std::ssize(r.request.prompts[p]);
    int64_t whole = prompt;
    for (size_t s = p * group; s < (p + 1) * group; ++s) {
      if (!trained_on(r, s)) continue;
      part.samples.push_back(s);
      whole += length(s);
    }
    if (part.samples.empty()) continue;
    if (out.empty() || tokens + whole > limit) {
      out.emplace_back();
      tokens = 0;
    }
    if (tokens + whole <= limit) {
      out.back().push_back(std::move(part));
      tokens += whole;
      continue;
    }
    // Only a group that no micro-batch can hold is cut, its prompt computed once for each piece.
    for (const size_t s : part.samples) {
      if (!out.back().empty() && tokens + length(s) > limit) {
        out.emplace_back();
        tokens = 0;
      }
      if (out.back().empty()) {
        out.back().push_back({p, {}});
        tokens = prompt;
      }
      out.back().back().samples.push_back(s);
      tokens += length(s);
    }
  }
  return out;
}

StepTotals OnlineTrainer::totals(const Rollout& r, size_t begin, size_t end) const {
  const size_t group = static_cast<size_t>(parts_.config.group_size);
  StepTotals t;
  t.max_completion_tokens = parts_.rollout.max_new_tokens;
  std::vector<float> entropy;
  for (size_t s = begin * group; s < end * group; ++s) {
    t.sequences += 1;
    if (parts_.config.mask_truncated && r.samples[s].finish == Finish::kLength) continue;
    t.tokens += static_cast<double>(r.samples[s].ids.size());
    entropy.insert(entropy.end(), r.samples[s].entropy.begin(), r.samples[s].entropy.end());
  }
  if (parts_.config.top_entropy_quantile < 1.0 && !entropy.empty()) {
    const std::vector<float> ones(entropy.size(), 1.0f);
    const EntropyCut cut =
        entropy_threshold(entropy, ones, 1.0 - parts_.config.top_entropy_quantile);
    t.entropy_threshold = cut.threshold;
    t.entropy_tokens = static_cast<double>(cut.tokens);
  }
  return t;
}

RolloutBatch OnlineTrainer::make_batch(const Rollout& r, const MicroBatch& batch,
                                       const std::vector<int32_t>& sequence) const {
  const int64_t n = std::ssize(sequence);
  RolloutBatch b;
  b.old_logprobs = at::empty({n}, at::kFloat);
  b.mask = at::empty({n}, at::kFloat).fill_(1.0);
  b.sequence = at::empty({n}, at::kLong);
  std::vector<float> advantages;
  int64_t at_token = 0;
  for (const Part& part : batch) {
    for (const size_t s : part.samples) {
      const auto& old = r.samples[s].logprobs;
      std::copy(old.begin(), old.end(), b.old_logprobs.data_ptr<float>() + at_token);
      at_token += std::ssize(old);
      advantages.push_back(static_cast<float>(r.advantages.values[s]));
    }
  }
  std::copy(sequence.begin(), sequence.end(), b.sequence.data_ptr<int64_t>());
  b.sequences = std::ssize(advantages);
  b.advantages = at::from_blob(advantages.data(), {b.sequences}, at::kFloat).clone();
  return b;
}

/// The scores that sampling recorded: by the exactness contract those of the first update.
TokenScores OnlineTrainer::recorded_scores(const Rollout& r, const MicroBatch& batch,
                                           const at::Tensor& logprobs) const {
  TokenScores recorded{logprobs, at::empty_like(logprobs)};
  float* to = recorded.entropy.data_ptr<float>();
  for (const Part& part : batch) {
    for (const size_t s : part.samples) {
      const Sample& sample = r.samples[s];
      TEMPER_CHECK(sample.entropy.size() == sample.ids.size(), "[update] completion ", s, " has ",
                   sample.entropy.size(), " entropies for ", sample.ids.size(), " tokens");
      to = std::copy(sample.entropy.begin(), sample.entropy.end(), to);
    }
  }
  return recorded;
}

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
  std::vector<PackedGroup> groups;
  for (const Part& part : batch) {
    groups.push_back({r.request.prompts[part.prompt], {}});
    for (const size_t s : part.samples) groups.back().completions.emplace_back(r.samples[s].ids);
  }
  CompletionBatch packed = pack_completions(groups);
  const ScoreRequest request{std::move(packed.rows), std::move(packed.targets)};
  const double temperature = parts_.rollout.temperature;
  RolloutBatch b = make_batch(r, batch, packed.sequence);
  b.totals = totals;
  if (reference_) {
    const Stopwatch watch;
    b.ref_logprobs = temper::score(reference_->lm(), packed.tokens, request, temperature).logprobs;
    sums.reference_seconds += watch.seconds();
  }
  // On the first update the new scores are the recorded ones, so the loss is evaluated at those and
  // its gradients go through the head with the forward; the forward then confirms the scores.
  Evaluation e;
  TokenScores scores;
  if (first && sums.as_recorded) {
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
  if (first && parts_.config.check_exact) {
    sums.mismatched += different_bits(scores.logprobs, b.old_logprobs);
    sums.compared += scores.logprobs.numel();
  }
  if (!tape_.as_expected) e = evaluate(r, batch, b, scores);
  sums.loss += e.loss;
  score_backward(policy_.lm(), tape_, e.gradients.logprobs, e.gradients.entropy);
  sums.metrics.merge(e.metrics);
}

void OnlineTrainer::optimizer_step(const Rollout& r, size_t begin, size_t end, bool first,
                                   StepSums& sums) {
  const StepTotals t = totals(r, begin, end);
  const auto batches = micro_batches(r, begin, end);
  if (batches.empty()) return;  // Nothing to learn from: weights and moments stay as they are.
  const double rate = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  try {
    for (const MicroBatch& batch : batches) run_micro_batch(r, batch, t, first, sums);
    policy_.lm().finish_gradients();
    sums.grad_norm += optimizer_.step(rate).grad_norm;
  } catch (...) {
    policy_.lm().zero_gradients();  // Half a gradient must not end up in the caller's next step.
    throw;
  }
  sums.optimizer_steps++;
  const auto every = parts_.config.ref_sync_every;
  if (reference_ && every > 0 && optimizer_.steps() % every == 0) {
    reference_->sync(policy_, parts_.config.ref_sync_mix);
  }
}

void OnlineTrainer::update(Rollout& r) {
  const Stopwatch watch;
  StepSums sums;
  const size_t prompts = r.rows.size();
  const size_t parts = static_cast<size_t>(parts_.config.minibatches);
  for (int64_t pass = 0; pass < parts_.config.iterations; ++pass) {
    for (size_t i = 0; i < parts; ++i) {
      optimizer_step(r, prompts * i / parts, prompts * (i + 1) / parts, pass == 0 && i == 0, sums);
    }
  }
  Metrics& m = r.metrics;
  const double rollout_entropy = m["entropy"];
  sums.metrics.write_to(m);
  m["entropy"] = rollout_entropy;  // Over every token, where the loss saw only those it trains on.
  const double steps = static_cast<double>(std::max<int64_t>(1, sums.optimizer_steps));
  m["loss"] = sums.loss / static_cast<double>(parts_.config.iterations * parts_.config.minibatches);
  m["grad_norm"] = sums.grad_norm / steps;
  m["learning_rate"] = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  if (parts_.config.check_exact) {
    m["sampling/compared_tokens"] = static_cast<double>(sums.compared);
    m["sampling/mismatched_tokens"] = static_cast<double>(sums.mismatched);
  }
  state_.step++;
  for (const auto& prompt : r.request.prompts) {
    state_.num_tokens += static_cast<double>(std::ssize(prompt) * r.request.group_size);
  }
  for (const Sample& s : r.samples) state_.num_tokens += static_cast<double>(s.ids.size());
  m["num_tokens"] = state_.num_tokens;
  m["epoch"] = epoch();
  m["time/update"] = watch.seconds() - sums.reference_seconds;
  if (reference_) m["time/reference"] = sums.reference_seconds;
  m["update/tokens_per_second"] = static_cast<double>(sums.trained_tokens) /
                                  std::max(1e-9, watch.seconds() - sums.reference_seconds);
}

}  // namespace temper
