#include "temper/objective/vespo.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "temper/core/error.h"

namespace temper {

Vespo::Vespo(const Config& config) : terms_(config), config_(config) {
  TEMPER_CHECK(config.k_pos >= 0 && config.k_neg >= 0, "[vespo] k_pos and k_neg must be at least ",
               "0, got ", config.k_pos, " and ", config.k_neg);
  TEMPER_CHECK(config.lambda_pos > 0 && config.lambda_neg > 0,
               "[vespo] lambda_pos and lambda_neg must be positive, got ", config.lambda_pos,
               " and ", config.lambda_neg);
}

at::Tensor Vespo::weight(const at::Tensor& log_ratio, const at::Tensor& advantages) const {
  const at::Tensor gain = advantages >= 0;
  const auto by_sign = [&](double pos, double neg) {
    return at::where(gain, at::full_like(advantages, pos), at::full_like(advantages, neg));
  };
  const at::Tensor k = by_sign(config_.k_pos, config_.k_neg);
  const at::Tensor lambda = by_sign(config_.lambda_pos, config_.lambda_neg);
  const at::Tensor log_w = at::clamp(log_ratio, std::log(1e-8), kMaxLogRatio);
  return at::exp(lambda + k * log_w - lambda * at::exp(log_w));
}

LossOutput Vespo::operator()(const RolloutBatch& batch) const {
  const PolicyTokens t = policy_tokens(batch);
  const at::Tensor log_w =
      t.sum_rows(at::clamp(t.log_ratio.detach(), -kMaxLogRatio, kMaxLogRatio));
  const at::Tensor phi = weight(t.spread(log_w), t.advantages);

  MetricTensors metrics;
  if (t.row_advantages.defined()) {
    metrics.add_row_mean("vespo/phi_seq_mean", t, weight(log_w, t.row_advantages));
  } else {
    metrics.add_token_mean("vespo/phi_seq_mean", t, phi);
  }
  return policy_loss(t, terms_, importance_ratio(t, terms_.level),
                     -phi * t.advantages * t.logprobs, &token_mean, std::move(metrics));
}

}  // namespace temper
