#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// Dr. GRPO (Liu et al. 2025): the clipped surrogate divided by a constant, so that neither a
/// completion's own length nor the others' scales its gradient. Use it with advantages that are not
/// divided by a standard deviation (`none`). The loss is small where completions are short.
///
/// `loss = 1/(B L_max) sum_i sum_t -min(w A, clip(w) A)`, L_max the longest allowed completion.
class DrGrpo {
 public:
  using Config = ClippedLossConfig;
  using Batch = RolloutBatch;

  explicit DrGrpo(const Config& config) : terms_(config), range_(clip_range(config)) {}
  DrGrpo() : DrGrpo(Config{}) {}

  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const {
    return clipped_policy_loss(batch, terms_, range_, &fixed_length_mean);
  }

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<DrGrpo>);

}  // namespace temper
