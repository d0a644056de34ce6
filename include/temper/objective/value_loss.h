#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "temper/core/torch.h"
#include "temper/data/batch.h"

namespace temper {

/// What a critic's loss reads: flat tokens of one micro-batch, of one floating dtype and device.
/// A value belongs to the state before its token.
struct ValueBatch {
  at::Tensor values;      ///< [N] of the critic as it is now, differentiable.
  at::Tensor old_values;  ///< [N] of the critic that estimated the advantages; read by the clip.
  at::Tensor returns;     ///< [N] targets: `Advantages::returns`.
  at::Tensor mask;        ///< [N] 1 = trained on, 0 = not: the policy loss's.
  StepTotals totals;      ///< Of the whole optimizer step.
};

/// Settings of `value_loss`.
struct ValueLossConfig {
  double clip = 0.2;
  double coef = 0.1;

  template <class V>
  void visit(V&& v) {
    v(clip, "clip",
      "A value is not followed further than this from the old one, in units of the reward; "
      "negative: off.");
    v(coef, "coef", "Weight of the value loss beside the policy's, at least 0.");
  }
};

/// The critic's clipped squared error, summed over the micro-batch's active tokens and divided by
/// the step's:
///
///     coef / totals.tokens sum_t 0.5 max( (v - ret)^2, (clip(v, v_old +- clip) - ret)^2 )
///
/// Arithmetic is float64; what stands at masked places, NaN included, reaches nothing. Metrics,
/// means over active tokens and without `coef`: `loss/value_avg` = `critic/vf_loss`,
/// `val/clipfrac_avg` = `critic/vf_clipfrac` (share where the clipped branch is the larger one).
/// @throws Error if shapes, the totals or a setting are out of range.
[[nodiscard]] LossOutput value_loss(const ValueBatch& batch, const ValueLossConfig& config);

/// Share of the returns' variance that the values explain, 1 - Var(ret - v) / Var(ret), over
/// active tokens: 1 for a perfect critic, 0 for a constant, below 0 for a harmful one. Give it all
/// tokens of a step: it is not a mean, so that parts cannot be averaged.
/// @param mask  [tokens] 0: left out; empty: all count.
/// @return nothing if fewer than two tokens count or all returns are equal.
/// @throws Error if the lengths disagree.
[[nodiscard]] std::optional<double> explained_variance(std::span<const float> values,
                                                       std::span<const float> returns,
                                                       std::span<const uint8_t> mask = {});

}  // namespace temper
