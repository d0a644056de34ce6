#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// LUSPO: GSPO's ratio with each completion weighted by its length, which removes the length bias
/// of a mean over tokens. Belongs with sequence-level ratios, its default here.
///
/// `loss = 1/B sum_i sum_t -min(w A, clip(w) A) = 1/B sum_i n_i l_i`.
class Luspo {
 public:
  struct Config : ClippedLossConfig {
    Config() { importance_level = "sequence"; }
  };
  using Batch = RolloutBatch;

  explicit Luspo(const Config& config) : terms_(config), range_(clip_range(config)) {}
  Luspo() : Luspo(Config{}) {}

  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const {
    return clipped_policy_loss(batch, terms_, range_, &sequence_mean_of_sums);
  }

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<Luspo>);

}  // namespace temper
