#pragma once
// Reductions with fixed trees: the bits depend on the values and their lanes only. All threads of
// the warp (or block) call them together.

#include "cuda/device.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Maximum {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Combines `v` of the `kWidth` neighbouring lanes (a power of two up to 32) at distances
/// kWidth / 2, ..., 2, 1; every lane gets the result. `combine` must be commutative.
template <int kWidth = 32, class T, class Combine>
__device__ __forceinline__ T warp_reduce(T v, Combine combine) {
  for (int d = kWidth / 2; d > 0; d /= 2) v = combine(v, __shfl_xor_sync(kAllLanes, v, d));
  return v;
}

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
  return warp_reduce<32>(v, Sum{});
}
__device__ __forceinline__ float warp_max(float v) { return warp_reduce<32>(v, Maximum{}); }

// The CPU sums a row in 16 virtual lanes (cpu/lanes16-inl.h): lane j takes elements j, j + 16,
// j + 32, ... in order. Half a warp a row, with lane & 15 as j, gives the same bits.

/// sum16 of the CPU.
__device__ __forceinline__ float sum16(float v) { return warp_reduce<16>(v, Sum{}); }

/// max_of16 of the CPU.
__device__ __forceinline__ float max_of16(float v) { return warp_reduce<16>(v, Maximum{}); }

/// `start` and then the 16 lanes in ascending order, added in double: how the CPU gathers the
/// lanes of a chunk of logits. Every lane gets the result.
__device__ __forceinline__ double ordered_sum16(double start, float v) {
  for (int i = 0; i < 16; ++i) start += static_cast<double>(__shfl_sync(kAllLanes, v, i, 16));
  return start;
}

/// Reduces over a one-dimensional block of whole warps: each warp, then the warps' results padded
/// with `identity` to 32. Every thread gets the result. `scratch` holds 32 of T in shared memory
/// and may be used again at once.
template <class T, class Combine>
__device__ T block_reduce(T v, T* scratch, Combine combine, T identity) {
  v = warp_reduce<32>(v, combine);
  if (lane_id() == 0) scratch[warp_id()] = v;
  __syncthreads();
  v = warp_reduce<32>(lane_id() < blockDim.x / 32 ? scratch[lane_id()] : identity, combine);
  __syncthreads();  // Without it a warp could overwrite scratch before the slowest has read.
  return v;
}

template <class T>
__device__ T block_sum(T v, T* scratch) {
  return block_reduce(v, scratch, Sum{}, T(0));
}
__device__ inline float block_max(float v, float* scratch) {
  return block_reduce(v, scratch, Maximum{}, -INFINITY);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
