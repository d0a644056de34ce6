// What adamw.h's optimizer and clipping compute outside of the element.
#pragma once

#include <cmath>

#include "host_device.h"
#include "temper/kernels/adamw.h"

namespace temper::kernels {

/// The step's constants, rounded from double once.
struct AdamWFactors {
  float decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_scale, eps;
};

inline AdamWFactors adamw_factors(const AdamWArgs& a) {
  const auto step = static_cast<double>(a.step);
  return {static_cast<float>(1.0 - a.learning_rate * a.weight_decay),
          static_cast<float>(a.beta1),
          static_cast<float>(1.0 - a.beta1),
          static_cast<float>(a.beta2),
          static_cast<float>(1.0 - a.beta2),
          static_cast<float>(a.learning_rate / (1.0 - std::pow(a.beta1, step))),
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(a.beta2, step))),
          static_cast<float>(a.eps)};
}

TEMPER_HOST_DEVICE inline double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  const double scale = max_norm / (norm + 1e-6);
  return scale > 1.0 ? 1.0 : scale;
}

}  // namespace temper::kernels
