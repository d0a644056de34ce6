#pragma once
// Kernels with one mistake each, to prove that the emulator and the sanitizers see it. The marked
// lines are those that a report must name.

#include "cuda/device.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// out[i] = in[i + 1] within a block, cyclic, through shared memory. Correct if kBarrier.
template <bool kBarrier>
__global__ void rotate_block(const float* in, float* out) {
  SharedArena arena;
  float* s = arena.take<float>(blockDim.x);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x;
  const unsigned i = threadIdx.x;
  s[i] = in[first + i];  // planted: block race, writes
  if (kBarrier) __syncthreads();
  out[first + i] = s[(i + 1) % blockDim.x];  // planted: block race, reads
}

/// out[i] = in[i ^ 1]. The shuffle makes the lanes meet but orders no memory.
template <bool kSync>
__global__ void swap_in_warp(const float* in, float* out) {
  SharedArena arena;
  float* s = arena.take<float>(blockDim.x);
  const unsigned i = threadIdx.x;
  s[i] = in[i];  // planted: warp race, writes
  const float sum = __shfl_xor_sync(kAllLanes, in[i], 1);
  if (kSync) __syncwarp();
  out[i] = s[i ^ 1] + 0.0f * sum;  // planted: warp race, reads
}

/// Two halves of a warp that synchronise by their own masks: legal, with kHalves only if nobody
/// reads across.
template <bool kAcross>
__global__ void swap_in_half_warps(const float* in, float* out) {
  SharedArena arena;
  float* s = arena.take<float>(32);
  const unsigned i = threadIdx.x;
  s[i] = in[i];
  __syncwarp(i < 16 ? 0x0000ffffu : 0xffff0000u);
  out[i] = s[i ^ (kAcross ? 16 : 1)];  // planted: half warp race, reads
}

__global__ void divergent_barrier(float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();  // planted: divergent barrier, first
  } else {
    __syncthreads();  // planted: divergent barrier, second
  }
  out[threadIdx.x] = 1.0f;
}

__global__ void shared_overrun(float* out) {
  SharedArena arena;
  float* first = arena.take<float>(32);
  float* second = arena.take<float>(32);
  second[threadIdx.x] = 0.0f;
  first[threadIdx.x + 1] = 1.0f;  // planted: shared overrun
  __syncthreads();
  out[threadIdx.x] = first[threadIdx.x] + second[threadIdx.x];
}

__global__ void global_overrun(const float* in, float* out) {
  out[threadIdx.x] = in[threadIdx.x + 1];  // planted: global overrun
}

__global__ void blocks_collide(float* out) {
  if (threadIdx.x == 0) out[0] = static_cast<float>(blockIdx.x);  // planted: blocks collide
}

/// What atomicAdd of a float would be: the sum depends on the order of arrival.
__global__ void float_atomic(const float* in, unsigned* sum) {
  unsigned old = 0, seen;  // A guess: a plain read would race with the others.
  do {
    seen = old;
    old = atomicCAS(sum, seen, __float_as_uint(__uint_as_float(seen) + in[threadIdx.x]));
  } while (old != seen);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
