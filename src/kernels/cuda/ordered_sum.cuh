#pragma once
// Sums whose parts are added in order, as the CPU adds its blocks.

#include "cuda/device.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kOrderedThreads = 256;

/// parts[0] + parts[1] + ... one by one, by a block of kOrderedThreads, which loads ahead of the one
/// thread that adds. Thread 0 gets the sum. `tile` holds kOrderedThreads doubles.
__device__ __forceinline__ double ordered_sum(const double* parts, int64_t n, double* tile) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kOrderedThreads) {
    const int64_t i = begin + threadIdx.x;
    if (i < n) tile[threadIdx.x] = parts[i];
    __syncthreads();
    if (threadIdx.x == 0) {
      const int count = static_cast<int>(n - begin < kOrderedThreads ? n - begin : kOrderedThreads);
#pragma unroll 8
      for (int j = 0; j < count; ++j) sum += tile[j];
    }
    __syncthreads();
  }
  return sum;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
