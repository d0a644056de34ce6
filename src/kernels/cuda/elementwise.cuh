#pragma once
// Loops over flat arrays whose elements do not depend on each other.

#include "cuda/device.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kElementThreads = 256;

/// Blocks for `n` elements, one a thread up to 2^22 and then several: enough to fill any device.
inline unsigned element_blocks(int64_t n) {
  const int64_t blocks = (n + kElementThreads - 1) / kElementThreads;
  return static_cast<unsigned>(blocks < 16384 ? blocks : 16384);
}

/// Calls `body(i)` for every i of [0, n) once, neighbours on neighbouring threads.
template <class Body>
__device__ __forceinline__ void for_elements(int64_t n, const Body& body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    body(i);
  }
}

/// Blocks of `kWarps` warps for `n` pieces of work, one a warp.
template <int kWarps>
unsigned warp_blocks(int64_t n) {
  const int64_t blocks = (n + kWarps - 1) / kWarps;
  return static_cast<unsigned>(blocks < (1 << 20) ? blocks : 1 << 20);
}

/// Calls `body(i)` for every i of [0, n), each on one whole warp.
template <int kWarps, class Body>
__device__ __forceinline__ void for_warps(int64_t n, const Body& body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + warp_id(); i < n; i += step) body(i);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
