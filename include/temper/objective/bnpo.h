#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// The clipped surrogate averaged over the tokens of the batch. TRL divides by the tokens of a
/// micro-batch, so that its result depends on how a batch is split; here the batch is always the
/// whole optimizer step, which makes this loss equal to DAPO's.
///
/// `loss = 1/N sum_i sum_t -min(w A, clip(w) A)`, N active tokens of the step.
class Bnpo {
 public:
  using Config = ClippedLossConfig;
  using Batch = RolloutBatch;

  explicit Bnpo(const Config& config) : terms_(config), range_(clip_range(config)) {}
  Bnpo() : Bnpo(Config{}) {}

  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const {
    return clipped_policy_loss(batch, terms_, range_, &token_mean);
  }

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<Bnpo>);

}  // namespace temper
