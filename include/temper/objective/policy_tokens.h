#pragma once

#include <cstdint>

#include "temper/data/batch.h"
#include "temper/kernels/kl_penalty.h"

namespace temper {

using kernels::kMaxLogRatio;

/// The tokens of a `RolloutBatch` made ready for arithmetic: everything is float64 whatever the
/// batch's dtype (gradients come back in the batch's), and masked tokens hold 0, so that a NaN or
/// an infinity there reaches neither the loss nor a gradient.
///
/// [N] are tokens, [B] are completions.
struct PolicyTokens {
  at::Tensor logprobs;        ///< [N] nats, differentiable.
  at::Tensor log_ratio;       ///< [N] logprobs - old_logprobs, differentiable; 0 without an old.
  at::Tensor ref_logprobs;    ///< [N] or undefined.
  at::Tensor entropy;         ///< [N] nats, differentiable, or undefined.
  at::Tensor advantages;      ///< [N]
  at::Tensor row_advantages;  ///< [B], or undefined when advantages came per token.
  at::Tensor mask;            ///< [N] 1 or 0.
  at::Tensor sequence;        ///< [N] int64.
  at::Tensor lengths;         ///< [B] active tokens of each completion.
  int64_t sequences = 0;      ///< B.
  double active = 0;          ///< Sum of the mask.
  StepTotals totals;

  /// [N] -> [B]: the sum over each completion's active tokens. On the CPU in token order, so a
  /// completion's sum has the same bits in every micro-batch.
  [[nodiscard]] at::Tensor sum_rows(const at::Tensor& values) const;
  /// [B] -> [N]: every token gets its completion's value.
  [[nodiscard]] at::Tensor spread(const at::Tensor& rows) const;
  /// [N] -> [B]: the mean over each completion's active tokens; 0 for a fully masked one.
  [[nodiscard]] at::Tensor mean_rows(const at::Tensor& values) const;
};

/// Reads and checks a micro-batch. Advantages of length B belong to completions, others to tokens.
/// An undefined `old_logprobs` means that the current policy sampled: the ratio is exactly 1.
/// Waits for the device once. @throws Error if shapes, devices or the step's totals disagree.
[[nodiscard]] PolicyTokens policy_tokens(const RolloutBatch& batch);

}  // namespace temper
