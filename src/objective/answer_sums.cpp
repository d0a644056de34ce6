#include "temper/objective/answer_sums.h"

#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "temper/core/error.h"

namespace temper {
namespace {

void check_tokens(const at::Tensor& t, const char* name, int64_t n) {
  TEMPER_CHECK(t.dim() == 1 && t.size(0) == n, "[objective] ", name, " must have shape [", n,
               "] like the log-probabilities, got ", t.dim(), " dimensions and ", t.numel(),
               " values");
}

void check_batch(const AnswerBatch& b) {
  TEMPER_CHECK(b.logprobs.defined() && b.logprobs.dim() == 1 && b.logprobs.is_floating_point(),
               "[objective] logprobs must be a floating tensor of shape [tokens]");
  TEMPER_CHECK(b.mask.defined() && b.sequence.defined(),
               "[objective] mask and sequence must be set");
  const int64_t n = b.logprobs.size(0);
  check_tokens(b.mask, "mask", n);
  check_tokens(b.sequence, "sequence", n);
  TEMPER_CHECK(b.sequence.scalar_type() == at::kLong, "[objective] sequence must be int64");
  if (b.ref_logprobs.defined()) check_tokens(b.ref_logprobs, "ref_logprobs", n);
  if (b.sharp_logprobs.defined()) check_tokens(b.sharp_logprobs, "sharp_logprobs", n);
  TEMPER_CHECK(!b.labels.defined() || (b.labels.dim() == 1 && b.labels.size(0) == b.answers),
               "[objective] labels must have shape [", b.answers, "], one an answer");
  TEMPER_CHECK(b.answers >= 1 && b.totals.answers >= static_cast<double>(b.answers),
               "[objective] totals.answers must count the whole optimizer step: it is ",
               b.totals.answers, ", and this micro-batch alone has ", b.answers);
}

}  // namespace

at::Tensor AnswerTerms::sum(const at::Tensor& values) const {
  return at::zeros({answers}, values.options()).index_add(0, sequence, values * mask);
}

at::Tensor AnswerTerms::mean(const at::Tensor& values) const {
  return sum(values) / lengths.clamp_min(1);
}

at::Tensor AnswerTerms::spread(const at::Tensor& rows) const {
  return rows.index_select(0, sequence);
}

AnswerTerms answer_terms(const AnswerBatch& b) {
  check_batch(b);
  const at::Tensor active = b.mask.ne(0);
  const auto read = [&](const at::Tensor& x) {
    return at::where(active, x.to(at::kDouble), at::zeros({}, x.options().dtype(at::kDouble)));
  };
  AnswerTerms t;
  t.answers = b.answers;
  t.totals = b.totals;
  t.sequence = b.sequence;
  t.mask = active.to(at::kDouble);
  t.lengths = at::zeros({b.answers}, t.mask.options()).index_add(0, b.sequence, t.mask);
  t.logprobs = read(b.logprobs);
  if (b.ref_logprobs.defined()) t.ref_logprobs = read(b.ref_logprobs.detach());
  return t;
}

Sides sides(const at::Tensor& answers) {
  TEMPER_CHECK(answers.size(0) % 2 == 0,
               "[objective] this loss compares the answers of pairs, and the batch has ",
               answers.size(0), " of them, an odd number");
  const at::Tensor pairs = answers.view({-1, 2});
  return {pairs.select(1, 0), pairs.select(1, 1)};
}

at::Tensor shared_length_weights(const AnswerTerms& t, double alpha) {
  const auto [chosen, rejected] = sides(t.lengths);
  const at::Tensor shorter = at::minimum(chosen, rejected);
  const at::Tensor limit = at::stack({shorter, shorter}, 1).view({-1});
  const at::Tensor before = t.lengths.cumsum(0) - t.lengths;
  const at::Tensor place = t.mask.cumsum(0) - t.spread(before);  // From 1, among active tokens.
  const at::Tensor one = at::ones_like(t.mask);
  return at::where(place.le(t.spread(limit)), one, alpha * one);
}

void AnswerMetrics::add_mean(const std::string& name, const at::Tensor& values) {
  const auto count = static_cast<double>(values.numel());
  add_sum(name, values.sum(), at::scalar_tensor(count, values.options()));
}

void AnswerMetrics::add_mean_where(const std::string& name, const at::Tensor& values,
                                   const at::Tensor& which) {
  add_sum(name, (values.detach() * which).sum(), which.sum());
}

void AnswerMetrics::add_sum(const std::string& name, const at::Tensor& sum,
                            const at::Tensor& weight) {
  names_.push_back(name);
  values_.push_back(sum.detach());
  values_.push_back(weight.detach());
}

MetricSums AnswerMetrics::read() const {
  MetricSums sums;
  if (names_.empty()) return sums;
  std::vector<at::Tensor> doubles;
  doubles.reserve(values_.size());
  for (const at::Tensor& v : values_) doubles.push_back(v.to(at::kDouble));
  const at::Tensor host = at::stack(doubles).cpu();
  const double* value = host.const_data_ptr<double>();
  for (size_t i = 0; i < names_.size(); ++i) {
    sums.add_mean(names_[i], value[2 * i], value[2 * i + 1]);
  }
  return sums;
}

void add_pair_rewards(AnswerMetrics& metrics, const Sides& rewards) {
  const at::Tensor margin = rewards.chosen.detach() - rewards.rejected.detach();
  metrics.add_mean("rewards/chosen", rewards.chosen);
  metrics.add_mean("rewards/rejected", rewards.rejected);
  metrics.add_mean("rewards/margins", margin);
  metrics.add_mean("rewards/accuracies", margin.gt(0).to(at::kDouble));
}

void add_pair_logps(AnswerMetrics& metrics, const Sides& logps) {
  metrics.add_mean("logps/chosen", logps.chosen);
  metrics.add_mean("logps/rejected", logps.rejected);
}

LabelledAnswers labelled_answers(const AnswerTerms& t, const at::Tensor& labels, const char* loss) {
  TEMPER_CHECK(labels.defined() && t.ref_logprobs.defined(), "[", loss,
               "] needs the batch's labels and ref_logprobs");
  LabelledAnswers a;
  a.logps = t.sum(t.logprobs);
  a.log_ratios = a.logps - t.sum(t.ref_logprobs);
  a.desirable = labels.ne(0).to(at::kDouble);
  a.undesirable = 1.0 - a.desirable;
  return a;
}

void add_labelled_metrics(AnswerMetrics& metrics, const LabelledAnswers& a, double beta) {
  metrics.add_mean_where("rewards/chosen", beta * a.log_ratios, a.desirable);
  metrics.add_mean_where("rewards/rejected", beta * a.log_ratios, a.undesirable);
  metrics.add_mean_where("logps/chosen", a.logps, a.desirable);
  metrics.add_mean_where("logps/rejected", a.logps, a.undesirable);
}

void add_unpaired_margin(Metrics& metrics) {
  const auto chosen = metrics.find("rewards/chosen");
  const auto rejected = metrics.find("rewards/rejected");
  if (chosen == metrics.end() || rejected == metrics.end()) return;
  metrics["rewards/margins"] = chosen->second - rejected->second;
}

}  // namespace temper
