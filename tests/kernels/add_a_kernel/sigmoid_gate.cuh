// [shown: the CUDA kernel]
#pragma once

#include "cuda/elementwise.cuh"
#include "cuda/math.cuh"
#include "kernels/add_a_kernel/sigmoid_gate.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

__global__ void __launch_bounds__(kElementThreads)
    sigmoid_gate_elements(const float* gate, const float* x, float* y, int64_t n) {
  for_elements(n, [&](int64_t i) { y[i] = vsigmoid(gate[i]) * x[i]; });
}

__global__ void __launch_bounds__(kElementThreads)
    sigmoid_gate_backward_elements(SigmoidGateBackwardArgs a) {
  for_elements(a.n, [&](int64_t i) {
    const float s = vsigmoid(a.gate[i]);
    const float dx = a.dy[i] * s;
    a.dx[i] = dx;
    a.dgate[i] = dx * (a.x[i] * (1.0f - s));
  });
}

inline Status launch_sigmoid_gate(const float* gate, const float* x, float* y, int64_t n,
                                  Stream stream) {
  if (n < 0) return invalid_argument("[sigmoid_gate] n must be >= 0");
  return launch(sigmoid_gate_elements, element_blocks(n), kElementThreads, 0, stream, gate, x, y,
                n);
}

inline Status launch_sigmoid_gate_backward(const SigmoidGateBackwardArgs& a, Stream stream) {
  if (a.n < 0) return invalid_argument("[sigmoid_gate_backward] n must be >= 0");
  return launch(sigmoid_gate_backward_elements, element_blocks(a.n), kElementThreads, 0, stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
// [end]
