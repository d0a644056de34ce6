#pragma once

#include <optional>

#include "temper/objective/policy_tokens.h"

namespace temper {

/// What one importance ratio belongs to.
enum class ImportanceLevel {
  kToken,     ///< exp(lp - old) of each token.
  kSequence,  ///< exp of the completion's mean log-ratio (GSPO, Zheng et al. 2025, eq. 7).
};

/// Ratios between the current policy and the one that sampled; differentiable.
struct ImportanceRatio {
  at::Tensor tokens;  ///< [N] one a token; at sequence level all of a completion's are equal.
  at::Tensor rows;    ///< [B] at sequence level, otherwise undefined.
};

/// Log-ratios are clamped to +-`kMaxLogRatio` before exp; beyond it the ratio is constant.
[[nodiscard]] ImportanceRatio importance_ratio(const PolicyTokens& t, ImportanceLevel level);

/// Where a ratio stops being followed.
struct ClipRange {
  double low = 0.2;             ///< Lower bound is 1 - low.
  double high = 0.2;            ///< Upper bound is 1 + high.
  std::optional<double> delta;  ///< Upper bound of the unclipped branch (two-sided clipping).
};

/// Clipped surrogate (Schulman et al. 2017, eq. 7), to be minimised:
/// `-min( min(w, delta) A, clip(w, 1 - low, 1 + high) A )`, [N].
/// At a bound itself the gradient still flows; where both branches are equal each passes half.
[[nodiscard]] at::Tensor clipped_surrogate(const at::Tensor& ratio, const at::Tensor& advantages,
                                           const ClipRange& range);

/// Which values were clipped, as 0 or 1, without gradient.
struct ClipFlags {
  at::Tensor low;   ///< Ratio below 1 - low and A < 0.
  at::Tensor high;  ///< Ratio (after delta) above 1 + high and A > 0.
};
[[nodiscard]] ClipFlags clip_flags(const at::Tensor& ratio, const at::Tensor& advantages,
                                   const ClipRange& range);

/// 1 for tokens to keep, 0 for those of completions that have drifted: A < 0 and a mean of
/// (old - lp) above `threshold` nats a token (off-policy sequence mask, DeepSeek-V3.2). [N].
[[nodiscard]] at::Tensor off_policy_mask(const PolicyTokens& t, double threshold);

/// 1 for tokens whose entropy reaches the step's threshold, else 0 (the "80/20" rule, Wang et al.
/// 2025). [N]. @throws Error if the batch has no entropy.
[[nodiscard]] at::Tensor entropy_mask(const PolicyTokens& t);

}  // namespace temper
