#pragma once

#include <ATen/ops/log_sigmoid.h>

#include "temper/core/torch.h"

namespace temper {

/// Exponents above this are held to it: exp(80) is 5.5e34, far out, and finite in float32 too.
inline constexpr double kMaxExponent = 80;

/// -(1 - e) log sigmoid(x) - e log sigmoid(-x): the logistic loss of a preference that is the wrong
/// way round with probability e.
inline at::Tensor smoothed_logistic(const at::Tensor& x, double e) {
  const at::Tensor loss = -(1.0 - e) * at::log_sigmoid(x);
  return e == 0 ? loss : loss - e * at::log_sigmoid(-x);
}

}  // namespace temper
