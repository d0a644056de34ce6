#pragma once

#include <cstdint>
#include <limits>

#include "temper/core/metrics.h"
#include "temper/core/torch.h"

namespace temper {

/// Counts of the whole optimizer step, over every micro-batch and rank, taken before the first
/// backward. A loss divides by these, so 1 x 8 micro-batches equal 8 x 1.
struct StepTotals {
  double tokens = 0;                  ///< Active completion tokens (mask = 1).
  double sequences = 0;               ///< Completions, fully masked ones included.
  int64_t max_completion_tokens = 0;  ///< The configured limit (Dr. GRPO's divisor).
  /// Tokens whose entropy (nats) is below this are left out of the policy term; -inf: none.
  double entropy_threshold = -std::numeric_limits<double>::infinity();
  /// Active tokens at or above that threshold (the divisor of the entropy bonus); negative: all.
  double entropy_tokens = -1;
  /// Factor of the loss's `kl_coef`, by which a controller steers it (`KlController`).
  double kl_scale = 1;
};

/// Completion tokens of one micro-batch, flat: token t of completion i stands where `sequence` is i,
/// in order. Tensors share one floating dtype and device; log-probs and entropy are in nats.
struct RolloutBatch {
  at::Tensor logprobs;      ///< [N] current policy, differentiable.
  at::Tensor entropy;       ///< [N] of the current policy, differentiable, or undefined.
  at::Tensor old_logprobs;  ///< [N] of the policy that sampled, no gradient.
  at::Tensor ref_logprobs;  ///< [N] of the reference, no gradient, or undefined.
  at::Tensor advantages;    ///< [B], or [N] when given per token.
  at::Tensor mask;          ///< [N] 1 = trained on, 0 = not.
  at::Tensor sequence;      ///< [N] int64 in [0, B).
  int64_t sequences = 0;    ///< B.
  StepTotals totals;
};

/// What an objective returns for one micro-batch: its share of the step's loss (already divided by
/// the step's totals; shares are summed) and metric sums.
struct LossOutput {
  at::Tensor loss;  ///< Scalar, differentiable.
  MetricSums metrics;
};

}  // namespace temper
