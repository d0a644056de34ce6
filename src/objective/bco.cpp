#include "temper/objective/bco.h"

#include <ATen/ops/log_sigmoid.h>

#include <cmath>

#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {

Bco::Bco(const Config& config) : config_(config) {
  TEMPER_CHECK(std::isfinite(config.beta) && config.beta > 0,
               "[bco] beta must be finite and above 0, got ", config.beta);
}

OfflineNeeds Bco::needs() const {
  OfflineNeeds needs;
  needs.labels = needs.reference = true;
  needs.baseline = OfflineNeeds::Baseline::kBco;
  return needs;
}

LossOutput Bco::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  const LabelledAnswers a = labelled_answers(t, b.labels, "bco");
  const at::Tensor x = config_.beta * a.log_ratios - b.totals.baseline;
  const at::Tensor loss = -(a.desirable * at::log_sigmoid(x) + a.undesirable * at::log_sigmoid(-x));
  AnswerMetrics metrics;
  add_labelled_metrics(metrics, a, config_.beta);
  LossOutput out{loss.sum() / b.totals.answers, metrics.read()};
  const auto answers = static_cast<double>(b.answers);
  out.metrics.add_mean("delta", b.totals.baseline * answers, answers);
  return out;
}

}  // namespace temper
