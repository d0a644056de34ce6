#include "temper/objective/kto.h"

#include <cmath>

#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {

Kto::Kto(const Config& config)
    : config_(config), from_zero_(config.loss_type == "apo_zero_unpaired") {
  TEMPER_CHECK(from_zero_ || config.loss_type == "kto",
               "[kto] loss_type must be \"kto\" or \"apo_zero_unpaired\", got \"", config.loss_type,
               "\"");
  TEMPER_CHECK(std::isfinite(config.beta) && config.beta > 0,
               "[kto] beta must be finite and above 0, got ", config.beta);
  const double good = config.desirable_weight, bad = config.undesirable_weight;
  TEMPER_CHECK(std::isfinite(good) && std::isfinite(bad) && good >= 0 && bad >= 0,
               "[kto] desirable_weight and undesirable_weight must be finite and at least 0, got ",
               good, " and ", bad);
}

OfflineNeeds Kto::needs() const {
  OfflineNeeds needs;
  needs.labels = needs.reference = true;
  if (!from_zero_) needs.baseline = OfflineNeeds::Baseline::kKto;
  return needs;
}

LossOutput Kto::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  const LabelledAnswers a = labelled_answers(t, b.labels, "kto");
  const double z0 = from_zero_ ? 0 : b.totals.baseline;
  // 1 - sg(x) = sg(-x), without the cancellation.
  const at::Tensor x = config_.beta * (a.log_ratios - z0);
  const at::Tensor loss = config_.desirable_weight * a.desirable * (-x).sigmoid() +
                          config_.undesirable_weight * a.undesirable * x.sigmoid();
  AnswerMetrics metrics;
  add_labelled_metrics(metrics, a, config_.beta);
  LossOutput out{loss.sum() / b.totals.answers, metrics.read()};
  const auto answers = static_cast<double>(b.answers);
  out.metrics.add_mean("kl", z0 * answers, answers);
  return out;
}

}  // namespace temper
