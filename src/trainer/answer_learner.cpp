#include "temper/trainer/answer_learner.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <utility>

#include "offline_rows.h"
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
        TEMPER_CHECK(std::isfinite(p[at]), "[learner] token ", t, " of answer ", a, " in line ",
                     group.line, " of ", source, " has log-prob ", p[at],
                     "; no step was made with it. Lower schedule.learning_rate, or go back to a "
                     "checkpoint");
      }
    }
  }
}

/// Shares of the active tokens, of the preferred answers where there are pairs, that the policy
/// holds for the likeliest.
void add_accuracy(const AnswerBatch& batch, const TokenScores& scores, bool pairs,
                  MetricSums& metrics) {
  const int64_t n = batch.mask.numel();
  at::Tensor counts = batch.mask.ne(0);
  if (pairs) counts = counts.logical_and(batch.sequence.remainder(2).eq(0));
  const at::Tensor right = scores.logprobs.slice(0, 0, n).ge(scores.best.slice(0, 0, n));
  metrics.add_mean("mean_token_accuracy", right.logical_and(counts).sum().item<double>(),
                   counts.sum().item<double>());
}

}  // namespace

AnswerLearner::AnswerLearner(PolicyModel& policy, LearnerSettings settings)
    : policy_(policy),
      settings_(std::move(settings)),
      optimizer_(policy.lm().parameter_list(), settings_.optimizer, settings_.seed) {
  tape_.forward.checkpoint = settings_.gradient_checkpointing;
}

/// The loss at some scores. @param leaf  gets the gradient.
LossOutput AnswerLearner::evaluate_loss(const AnswerBatch& batch, const at::Tensor& scores,
                                        at::Tensor& leaf) const {
  AnswerBatch b = batch;
  const int64_t n = b.mask.numel();
  leaf = scores.clone().requires_grad_(true);
  b.logprobs = leaf.slice(0, 0, n);
  if (settings_.needs.prompt_logprobs) b.prompt_logprobs = leaf.slice(0, n);
  return settings_.objective(b);
}

void AnswerLearner::run_micro_batch(const ReferencedRows& rows, const RowList& list,
                                    const AnswerTotals& totals, Sums& sums) {
  const AnswerTokens packed = pack_rows_of(rows.groups, list, settings_.needs.prompt_logprobs);
  const AnswerBatch batch = make_batch(rows, list, packed, totals);
  const TokenScores scores =
      score_train(policy_.lm(), packed.tokens, {packed.rows, packed.targets}, 1.0, tape_);
  check_finite(rows, list, scores, settings_.source);
  at::Tensor leaf;
  LossOutput out = evaluate_loss(batch, scores.logprobs, leaf);
  const double loss = out.loss.item<double>();
  TEMPER_CHECK(std::isfinite(loss), "[learner] the loss of step ", optimizer_.steps() + 1, " is ",
               loss, " in the micro-batch that begins with line ", rows.groups[list.front()].line,
               " of ", settings_.source, "; its optimizer step was not made");
  torch::autograd::backward({out.loss}, {});
  const at::Tensor gradient = leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
  score_backward(policy_.lm(), tape_, gradient, {});
  sums.loss += loss;
  sums.metrics.merge(out.metrics);
  const at::Tensor entropy = scores.entropy.slice(0, 0, batch.mask.numel()) * batch.mask;
  sums.metrics.add_mean("entropy", entropy.sum(at::kDouble).item<double>(),
                        batch.mask.sum(at::kDouble).item<double>());
  add_accuracy(batch, scores, settings_.needs.pairs, sums.metrics);
}

Metrics AnswerLearner::step(const ReferencedRows& rows, const RowList& list,
                            double learning_rate) {
  RunningRatio ratio = ratio_;
  Sums sums;
  double grad_norm = 0;
  try {
    AnswerTotals step_totals = totals(rows, list);
    AnswerSums step_sums;
    prepare(rows, list, step_totals, step_sums, ratio);
    policy_.lm().set_dropout_step(settings_.seed, optimizer_.steps());
    for (const RowList& part : cut(rows, list)) {
      run_micro_batch(rows, part, step_totals, sums);
      step_totals.first_answer += std::ssize(part) * std::ssize(rows.groups[part.front()].answers);
    }
    policy_.lm().finish_gradients();
    grad_norm = optimizer_.step(learning_rate).grad_norm;
  } catch (...) {
    policy_.lm().zero_gradients();  // Half a gradient must not end up in the caller's next step.
    throw;
  }
  ratio_ = ratio;
  Metrics m;
  sums.metrics.write_to(m);
  if (settings_.needs.labels) add_unpaired_margin(m);
  m["loss"] = sums.loss;
  m["grad_norm"] = grad_norm;
  return m;
}

Metrics AnswerLearner::measure(const ReferencedRows& rows, const RowList& list) const {
  AnswerTotals t = totals(rows, list);
  AnswerSums step_sums;
  RunningRatio ratio = ratio_;
  prepare(rows, list, t, step_sums, ratio);
  Sums sums;
  for (const RowList& part : cut(rows, list)) {
    const AnswerTokens packed = pack_rows_of(rows.groups, part, settings_.needs.prompt_logprobs);
    const AnswerBatch batch = make_batch(rows, part, packed, t);
    const TokenScores scores = score(policy_.lm(), packed.tokens, {packed.rows, packed.targets}, 1.0);
    at::Tensor leaf;
    const LossOutput o = evaluate_loss(batch, scores.logprobs, leaf);
    sums.loss += o.loss.item<double>();
    sums.metrics.merge(o.metrics);
    add_accuracy(batch, scores, settings_.needs.pairs, sums.metrics);
    t.first_answer += std::ssize(part) * std::ssize(rows.groups[part.front()].answers);
  }
  Metrics m;
  sums.metrics.write_to(m);
  if (settings_.needs.labels) add_unpaired_margin(m);
  m["loss"] = sums.loss;
  return m;
}

}  // namespace temper
