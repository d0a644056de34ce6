#include "temper/objective/nash_md.h"

#include <cmath>

#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {

NashMd::NashMd(const Config& config) : config_(config) {
  TEMPER_CHECK(std::isfinite(config.beta) && config.beta >= 0,
               "[nash_md] beta must be finite and at least 0, got ", config.beta);
}

OfflineNeeds NashMd::needs() const {
  OfflineNeeds needs;
  needs.labels = needs.reference = true;
  return needs;
}

LossOutput NashMd::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  TEMPER_CHECK(b.labels.defined() && t.ref_logprobs.defined(),
               "[nash_md] needs the batch's labels (probabilities) and ref_logprobs");
  const at::Tensor p = b.labels.detach().to(at::kDouble);
  TEMPER_CHECK(p.ge(0).logical_and(p.le(1)).all().item<bool>(),
               "[nash_md] labels must hold probabilities in [0, 1]");
  const at::Tensor ratio = (t.logprobs - t.ref_logprobs).detach();
  const at::Tensor logps = t.sum(t.logprobs);
  const at::Tensor score = (p - 0.5) * logps;
  const at::Tensor loss = config_.beta * t.sum(ratio * t.logprobs) - score;
  AnswerMetrics metrics;
  metrics.add_mean("rewards/probabilities", p);
  metrics.add_mean("loss/score", score);
  metrics.add_mean("loss/kl", t.sum(ratio));
  metrics.add_mean("logps/chosen", logps);
  return {loss.sum() / b.totals.answers, metrics.read()};
}

}  // namespace temper
