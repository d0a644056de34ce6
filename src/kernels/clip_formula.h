// Formula of clip_factor in adamw.h.
#pragma once

#include "host_device.h"

namespace temper::kernels {

TEMPER_HOST_DEVICE inline double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  const double scale = max_norm / (norm + 1e-6);
  return scale > 1.0 ? 1.0 : scale;
}

}  // namespace temper::kernels
