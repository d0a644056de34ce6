#include "temper/trainer/offline.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "offline_rows.h"
#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

/// Names the row whose scores left the finite numbers.
void check_finite(const ReferencedRows& rows, const std::vector<size_t>& list,
                  const TokenScores& scores, const std::string& source) {
  const float* p = scores.logprobs.const_data_ptr<float>();
  int64_t at = 0;
  for (const size_t i : list) {
    const AnswerGroup& group = rows.groups[i];
    for (size_t a = 0; a < group.answers.size(); ++a) {
      for (int64_t t = 0; t < group.predicted(a); ++t, ++at) {
        TEMPER_CHECK(std::isfinite(p[at]), "[offline] token ", t, " of answer ", a, " in line ",
                     group.line, " of ", source, " has log-prob ", p[at],
                     "; no step was made with it. Lower schedule.learning_rate, or go back to a "
                     "checkpoint");
      }
    }
  }
}

ReferencedRows with_mismatched(std::vector<AnswerGroup> groups, bool wanted, int64_t block) {
  ReferencedRows rows;
  rows.groups = std::move(groups);
  if (wanted) rows.mismatched = mismatched_rows(rows.groups, block);
  return rows;
}

void check_rows(const std::vector<AnswerGroup>& groups, const OfflineNeeds& needs,
                const std::string& source) {
  const size_t wanted = needs.pairs ? 2 : 1;
  for (const AnswerGroup& g : groups) {
    TEMPER_CHECK(g.answers.size() == wanted, "[offline] line ", g.line, " of ", source, " has ",
                 g.answers.size(), " answers, and this loss reads ", wanted);
  }
}

}  // namespace

void OfflineConfig::validate() const {
  TEMPER_CHECK(rows_per_step >= 1, "offline.rows_per_step must be at least 1, got ",
               rows_per_step);
  TEMPER_CHECK(micro_batch_tokens >= 1, "offline.micro_batch_tokens must be at least 1, got ",
               micro_batch_tokens);
  TEMPER_CHECK(ref_sync_every >= 0, "offline.ref_sync_every must be at least 0, got ",
               ref_sync_every);
  TEMPER_CHECK(ref_sync_mix > 0 && ref_sync_mix <= 1, "offline.ref_sync_mix must be in (0, 1], got ",
               ref_sync_mix);
  TEMPER_CHECK(ref_sync_every == 0 || reference == "live",
               "offline.ref_sync_every moves the reference, which a cache cannot follow: set "
               "offline.reference=live");
}

OfflineTrainer::OfflineTrainer(PolicyModel& policy, Parts parts)
    : policy_(policy),
      parts_(std::move(parts)),
      optimizer_(policy.lm().parameter_list(), parts_.optimizer, parts_.seed),
      sampler_(parts_.data.groups.size(), parts_.seed, parts_.config.shuffle) {
  parts_.config.validate();
  check_rows(parts_.data.groups, parts_.needs, parts_.data.source);
  check_rows(parts_.held_out, parts_.needs, parts_.data.source + " (held out)");
  const bool kto = parts_.needs.baseline == OfflineNeeds::Baseline::kKto;
  TEMPER_CHECK(!kto || parts_.config.rows_per_step >= 2,
               "offline.rows_per_step must be at least 2: KTO's baseline is measured on the answers "
               "of other rows");
  rows_ = with_mismatched(std::move(parts_.data.groups), kto, parts_.config.rows_per_step);
  held_out_ = with_mismatched(std::move(parts_.held_out), kto, parts_.config.rows_per_step);
  tape_.forward.checkpoint = parts_.config.gradient_checkpointing;
}

double OfflineTrainer::epoch() const {
  return static_cast<double>(state_.step) * static_cast<double>(parts_.config.rows_per_step) /
         static_cast<double>(rows_.groups.size());
}

bool OfflineTrainer::wants_reference() const {
  return parts_.needs.reference && !reference_ && rows_.logprobs.empty();
}

void OfflineTrainer::set_reference(ReferenceModel reference) {
  TEMPER_CHECK(parts_.config.reference == "live",
               "[offline] a live reference was given, but offline.reference is ",
               parts_.config.reference);
  reference_ = std::move(reference);
}

/// The loss at some scores. @param leaf  gets the gradient.
LossOutput OfflineTrainer::evaluate_loss(const AnswerBatch& batch, const at::Tensor& scores,
                                         at::Tensor& leaf) const {
  AnswerBatch b = batch;
  const int64_t n = b.mask.numel();
  leaf = scores.clone().requires_grad_(true);
  b.logprobs = leaf.slice(0, 0, n);
  if (parts_.needs.prompt_logprobs) b.prompt_logprobs = leaf.slice(0, n);
  return parts_.objective(b);
}

void OfflineTrainer::run_micro_batch(const RowList& list, const AnswerTotals& totals, Sums& sums) {
  const AnswerTokens packed = pack_rows_of(rows_.groups, list, parts_.needs.prompt_logprobs);
  const AnswerBatch batch = make_batch(rows_, list, packed, totals);
  const TokenScores scores =
      score_train(policy_.lm(), packed.tokens, {packed.rows, packed.targets}, 1.0, tape_);
  check_finite(rows_, list, scores, parts_.data.source);
  at::Tensor leaf;
  LossOutput out = evaluate_loss(batch, scores.logprobs, leaf);
  const double loss = out.loss.item<double>();
  TEMPER_CHECK(std::isfinite(loss), "[offline] the loss of step ", state_.step + 1, " is ", loss,
               " in the micro-batch that begins with line ", rows_.groups[list.front()].line,
               " of ", parts_.data.source, "; its optimizer step was not made");
  torch::autograd::backward({out.loss}, {});
  const at::Tensor gradient = leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
  score_backward(policy_.lm(), tape_, gradient, {});
  sums.loss += loss;
  sums.metrics.merge(out.metrics);
  const at::Tensor entropy = scores.entropy.slice(0, 0, batch.mask.numel()) * batch.mask;
  sums.metrics.add_mean("entropy", entropy.sum(at::kDouble).item<double>(),
                        batch.mask.sum(at::kDouble).item<double>());
}

Metrics OfflineTrainer::step() {
  TEMPER_CHECK(!wants_reference(),
               "[offline] this loss compares with a reference: call set_reference or "
               "cache_reference before the first step");
  const Stopwatch watch;
  const PromptSampler::State before = sampler_.state();
  const RowList list = sampler_.next(static_cast<size_t>(parts_.config.rows_per_step));
  const double rate = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  State next = state_;
  Sums sums;
  double grad_norm = 0;
  try {
    AnswerTotals step_totals = totals(rows_, list);
    AnswerSums step_sums;
    prepare(rows_, list, step_totals, step_sums, next);
    for (const RowList& part : cut(rows_, list)) {
      run_micro_batch(part, step_totals, sums);
      step_totals.first_answer +=
          std::ssize(part) * std::ssize(rows_.groups[part.front()].answers);
    }
    policy_.lm().finish_gradients();
    grad_norm = optimizer_.step(rate).grad_norm;
  } catch (...) {
    policy_.lm().zero_gradients();  // Half a gradient must not end up in the caller's next step.
    sampler_.restore(before);
    throw;
  }
  state_ = next;
  state_.step++;
  double tokens = 0;
  for (const size_t i : list) tokens += static_cast<double>(rows_.groups[i].tokens());
  state_.num_tokens += tokens;
  const auto every = parts_.config.ref_sync_every;
  if (reference_ && every > 0 && state_.step % every == 0) {
    reference_->sync(policy_, parts_.config.ref_sync_mix);
  }
  Metrics m;
  sums.metrics.write_to(m);
  if (parts_.needs.labels) add_unpaired_margin(m);
  m["loss"] = sums.loss;
  m["grad_norm"] = grad_norm;
  m["learning_rate"] = rate;
  m["num_tokens"] = state_.num_tokens;
  m["epoch"] = epoch();
  m["step_time"] = watch.seconds();
  m["update/tokens_per_second"] = tokens / std::max(1e-9, watch.seconds());
  return m;
}

Metrics OfflineTrainer::evaluate() const {
  Metrics out;
  if (held_out_.groups.empty()) return out;
  RowList all(held_out_.groups.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  AnswerTotals t = totals(held_out_, all);
  AnswerSums step_sums;
  State state = state_;
  prepare(held_out_, all, t, step_sums, state);
  MetricSums sums;
  double loss = 0;
  for (const RowList& part : cut(held_out_, all)) {
    const AnswerTokens packed = pack_rows_of(held_out_.groups, part, parts_.needs.prompt_logprobs);
    const AnswerBatch batch = make_batch(held_out_, part, packed, t);
    const TokenScores scores =
        score(policy_.lm(), packed.tokens, {packed.rows, packed.targets}, 1.0);
    at::Tensor leaf;
    const LossOutput o = evaluate_loss(batch, scores.logprobs, leaf);
    loss += o.loss.item<double>();
    sums.merge(o.metrics);
    t.first_answer += std::ssize(part) * std::ssize(held_out_.groups[part.front()].answers);
  }
  Metrics plain;
  sums.write_to(plain);
  if (parts_.needs.labels) add_unpaired_margin(plain);
  plain["loss"] = loss;
  for (const auto& [name, value] : plain) out["eval/" + name] = value;
  return out;
}

}  // namespace temper
