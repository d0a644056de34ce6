#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// GSPO (Zheng et al. 2025, eq. 5): GRPO with one ratio a completion, the geometric mean of its
/// tokens' ratios. Such ratios stay near 1, so the clip range is a thousand times narrower.
///
/// `loss = 1/B sum_i -min(s_i A_i, clip(s_i) A_i)`, `s_i = exp(1/n_i sum_t (lp - old))`.
class Gspo {
 public:
  struct Config : ClippedLossConfig {
    Config() {
      importance_level = "sequence";
      clip_low = 3e-4;
      clip_high = 4e-4;
    }
  };
  using Batch = RolloutBatch;

  explicit Gspo(const Config& config) : terms_(config), range_(clip_range(config)) {}
  Gspo() : Gspo(Config{}) {}

  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const {
    return clipped_policy_loss(batch, terms_, range_, &sequence_mean_of_token_means);
  }

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<Gspo>);

}  // namespace temper
