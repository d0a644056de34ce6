#pragma once

#include "temper/objective/policy_tokens.h"
#include "temper/objective/ratio.h"

namespace temper {

/// Per-token estimators of KL(policy || reference) from the policy's own samples, d = lp - ref
/// (Schulman 2020). As a loss k1 has expected gradient 0 and is useless without the ratio; k2
/// follows the reverse KL; k3 follows the forward KL unless it is multiplied by the ratio.
enum class KlEstimator {
  kK1,  ///< d
  kK2,  ///< d^2 / 2
  kK3,  ///< exp(-d) - 1 + d, never negative.
};

/// The estimator of each token, [N] in nats, differentiable in the log-probabilities. The exponent
/// of k3 is clamped to +-`kMaxLogRatio`; beyond it value and slope keep those of the bound.
/// @throws Error if the batch has no reference.
[[nodiscard]] at::Tensor kl_tokens(const PolicyTokens& t, KlEstimator estimator);

/// `ratio * estimator`: corrects for samples that an older policy made. With k3 and token-level
/// ratios its gradient is exactly `ratio * (lp - ref)`, that of the reverse KL, which is what is
/// passed on (the two terms of the product's own gradient nearly cancel for large d).
[[nodiscard]] at::Tensor corrected_kl_tokens(const PolicyTokens& t, KlEstimator estimator,
                                             const ImportanceRatio& ratio);

}  // namespace temper
