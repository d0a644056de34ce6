#include "temper/objective/sapo.h"

#include <ATen/ops/exp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/where.h>

#include "temper/core/error.h"

namespace temper {

Sapo::Sapo(const Config& config)
    : terms_(config),
      temperature_pos_(config.temperature_pos),
      temperature_neg_(config.temperature_neg) {
  TEMPER_CHECK(temperature_pos_ > 0 && temperature_neg_ > 0,
               "[sapo] temperatures must be positive, got ", temperature_pos_, " and ",
               temperature_neg_);
}

LossOutput Sapo::operator()(const RolloutBatch& batch) const {
  const PolicyTokens t = policy_tokens(batch);
  const ImportanceRatio ratio = importance_ratio(t, terms_.level);
  const at::Tensor tau = at::where(t.advantages > 0, at::full_like(t.advantages, temperature_pos_),
                                   at::full_like(t.advantages, temperature_neg_));
  // Not at::sigmoid: its bits depend on where a value stands in the tensor, exp's do not.
  const at::Tensor gate = at::reciprocal(1 + at::exp(-tau * (ratio.tokens - 1)));
  return policy_loss(t, terms_, ratio, -gate * (4 / tau) * t.advantages,
                     &sequence_mean_of_token_means);
}

}  // namespace temper
