// Orders and formulas of masked_stats.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "temper/kernels/masked_stats.h"

namespace temper::kernels {

inline constexpr int64_t kStatsBlock = 4096;
inline constexpr int kStatsLanes = 32;

TEMPER_HOST_DEVICE inline double whitened(double x, const MaskedStats& s, const WhitenArgs& a) {
  const double y = (x - s.mean) * (1.0 / sqrt(s.variance + a.eps));
  return a.shift_mean ? y : y + s.mean;
}

}  // namespace temper::kernels
