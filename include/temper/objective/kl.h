#pragma once

#include "temper/kernels/kl_penalty.h"
#include "temper/objective/policy_tokens.h"
#include "temper/objective/ratio.h"

namespace temper {

using kernels::KlEstimator;

/// The estimator of each token, [N] in nats, differentiable in the log-probabilities. The exponent
/// of k3 is clamped to +-`kMaxLogRatio`; beyond it value and slope keep those of the bound. The
/// values are those of `kernels::kl_penalty`, written as tensor expressions here because a loss
/// needs them in float64, on any device, and with autograd behind them; rewards use the kernel.
/// @throws Error if the batch has no reference, or for kExact, which the sampled tokens'
///         log-probabilities do not determine.
[[nodiscard]] at::Tensor kl_tokens(const PolicyTokens& t, KlEstimator estimator);

/// `ratio * estimator`: corrects for samples that an older policy made. With k3 and token-level
/// ratios its gradient is exactly `ratio * (lp - ref)`, that of the reverse KL, which is what is
/// passed on (the two terms of the product's own gradient nearly cancel for large d).
[[nodiscard]] at::Tensor corrected_kl_tokens(const PolicyTokens& t, KlEstimator estimator,
                                             const ImportanceRatio& ratio);

}  // namespace temper
