#include "temper/objective/xpo.h"

#include <ATen/ops/log_sigmoid.h>

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {

Xpo::Xpo(const Config& config) : config_(config), ipo_(config.loss_type == "ipo") {
  TEMPER_CHECK(ipo_ || config.loss_type == "sigmoid",
               "[xpo] loss_type must be \"sigmoid\" or \"ipo\", got \"", config.loss_type, "\"");
  TEMPER_CHECK(std::isfinite(config.beta) && config.beta > 0,
               "[xpo] beta must be finite and above 0, got ", config.beta);
  TEMPER_CHECK(std::isfinite(config.alpha) && config.alpha >= 0,
               "[xpo] alpha must be finite and at least 0, got ", config.alpha);
}

OfflineNeeds Xpo::needs() const {
  OfflineNeeds needs;
  needs.pairs = needs.labels = needs.reference = true;
  return needs;
}

LossOutput Xpo::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  const LabelledAnswers a = labelled_answers(t, b.labels, "xpo");
  const Sides own = sides(a.desirable);
  TEMPER_CHECK((own.chosen + own.rejected).eq(1).all().item<bool>(),
               "[xpo] labels must mark one answer of every pair as the policy's and the other as "
               "the reference's");
  const Sides ratios = sides(a.log_ratios);
  const at::Tensor delta = ratios.chosen - ratios.rejected;
  const at::Tensor pair =
      ipo_ ? (delta - 0.5 / config_.beta).square() : -at::log_sigmoid(config_.beta * delta);
  const Sides foreign = sides(a.logps * a.undesirable);
  const at::Tensor exploration = config_.alpha * (foreign.chosen + foreign.rejected);
  AnswerMetrics metrics;
  add_pair_rewards(metrics, {config_.beta * ratios.chosen, config_.beta * ratios.rejected});
  add_pair_logps(metrics, sides(a.logps));
  metrics.add_mean("loss/dpo", pair);
  metrics.add_mean("loss/xpo", exploration);
  return {(pair + exploration).sum() / std::max(b.totals.pairs, 1.0), metrics.read()};
}

}  // namespace temper
