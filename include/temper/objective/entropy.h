#pragma once

#include <cstdint>
#include <span>

namespace temper {

/// Where a step's entropies are cut; see `StepTotals`.
struct EntropyCut {
  double threshold = 0;  ///< Nats.
  int64_t tokens = 0;    ///< Active tokens at or above the threshold.
};

/// The quantile of the active tokens' entropies (mask not 0), with linear interpolation between
/// neighbours, and how many tokens reach it. To train on the top tenth, ask for quantile 0.9.
///
/// Give it all tokens of the optimizer step. Without an active token the threshold is -infinity.
/// @throws Error unless lengths agree, quantile is in [0, 1] and active entropies are no NaN.
[[nodiscard]] EntropyCut entropy_threshold(std::span<const float> entropies,
                                           std::span<const float> mask, double quantile);
[[nodiscard]] EntropyCut entropy_threshold(std::span<const double> entropies,
                                           std::span<const double> mask, double quantile);

}  // namespace temper
