#pragma once

#include "cuda/device.cuh"
#include "temper/kernels/rope.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kRopeThreads = 128;

/// One block a row; a thread turns pairs (x1, x2), products rounded before they are added.
__global__ void __launch_bounds__(kRopeThreads) rope_rows(RopeArgs a) {
  const int half = static_cast<int>(a.half);
  const int pairs = static_cast<int>(a.heads * a.half);
  const float sign = a.inverse ? -1.0f : 1.0f;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float* x = a.x + row * a.row_stride;
    const float* cosines = a.cos + a.positions[row] * a.half;
    const float* sines = a.sin + a.positions[row] * a.half;
    for (int pair = static_cast<int>(threadIdx.x); pair < pairs; pair += kRopeThreads) {
      const int i = pair % half;
      float* first = x + (pair - i) * int64_t{2} + i;
      float* second = first + half;
      const float c = cosines[i];
      const float s = sines[i] * sign;
      const float x1 = *first;
      const float x2 = *second;
      *first = x1 * c - x2 * s;
      *second = x2 * c + x1 * s;
    }
  }
}

inline Status launch_rope(const RopeArgs& a, Stream stream) {
  if (a.rows < 0 || a.heads < 0 || a.half < 1) {
    return invalid_argument("[rope] expected rows >= 0, heads >= 0 and half >= 1");
  }
  if (a.heads * a.half >= int64_t{1} << 31) {
    return invalid_argument("[rope] a row must have fewer than 2^32 elements");
  }
  const auto blocks = static_cast<unsigned>(a.rows < (1 << 20) ? a.rows : 1 << 20);
  return launch(rope_rows, blocks, kRopeThreads, 0, stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
