#pragma once

// The op that docs/add_a_kernel.md walks through. The page shows these files as they stand.

// [shown: the header]
#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// y = sigmoid(gate) x over n floats (Dauphin et al. 2017, eq. 1).
/// @param y  [n], may be `x` or `gate`.
/// @note Elementwise: the bits of an element depend on its own inputs alone. NaN stays NaN.
void sigmoid_gate(const float* gate, const float* x, float* y, int64_t n);

/// Arguments of `sigmoid_gate_backward`, [n] each. Outputs must not overlap inputs.
struct SigmoidGateBackwardArgs {
  const float* dy = nullptr;
  const float* gate = nullptr;
  const float* x = nullptr;
  float* dgate = nullptr;
  float* dx = nullptr;
  int64_t n = 0;
};

/// With s = sigmoid(gate): dx = dy s, dgate = dy x s (1 - s).
void sigmoid_gate_backward(const SigmoidGateBackwardArgs& args);

namespace cuda {
/// As on the CPU and with its bits, pointers on the device. Does not sync.
Status sigmoid_gate(const float* gate, const float* x, float* y, int64_t n, Stream stream);
Status sigmoid_gate_backward(const SigmoidGateBackwardArgs& args, Stream stream);
}  // namespace cuda

}  // namespace temper::kernels
// [end]
