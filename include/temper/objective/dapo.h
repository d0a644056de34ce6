#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// DAPO (Yu et al. 2025, eq. 8), the default: the clipped surrogate averaged over all tokens of the
/// optimizer step. The paper adds `clip_high` 0.28, overlong reward shaping and the resampling of
/// groups with equal rewards.
///
/// `loss = 1/N sum_i sum_t -min(w A, clip(w) A)`, N active tokens of the step.
class Dapo {
 public:
  using Config = ClippedLossConfig;
  using Batch = RolloutBatch;

  explicit Dapo(const Config& config) : terms_(config), range_(clip_range(config)) {}
  Dapo() : Dapo(Config{}) {}

  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const {
    return clipped_policy_loss(batch, terms_, range_, &token_mean);
  }

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<Dapo>);

}  // namespace temper
