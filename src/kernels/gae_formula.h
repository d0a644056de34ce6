// Formulas of gae.h for one token.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "temper/kernels/gae.h"

namespace temper::kernels {

/// The value behind the last token of sequence i.
TEMPER_HOST_DEVICE inline double gae_end_value(const GaeArgs& a, int64_t i) {
  return a.truncated != nullptr && a.truncated[i] != 0 ? static_cast<double>(a.bootstrap_values[i])
                                                       : 0.0;
}

TEMPER_HOST_DEVICE inline double gae_delta(double reward, double value, double next_value,
                                           double gamma) {
  return reward + gamma * next_value - value;
}

}  // namespace temper::kernels
