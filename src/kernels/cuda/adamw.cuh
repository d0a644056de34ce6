#pragma once

#include "adamw_formula.h"
#include "cuda/elementwise.cuh"
#include "cuda/math.cuh"
#include "cuda/ordered_sum.cuh"
#include "cuda/reduce.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// One element; returns the new parameter.
__device__ __forceinline__ float adamw_element(const AdamWArgs& a, const AdamWFactors& f,
                                               float grad_scale, int64_t i) {
  const float g = a.grad[i] * grad_scale;
  const bool rounded = a.exp_avg_bf16 != nullptr;
  const float m0 = rounded ? bf16_to_float(a.exp_avg_bf16[i]) : a.exp_avg[i];
  const float v0 = rounded ? bf16_to_float(a.exp_avg_sq_bf16[i]) : a.exp_avg_sq[i];
  const float m = fmaf(g, f.one_minus_beta1, m0 * f.beta1);
  const float v = fmaf(g * g, f.one_minus_beta2, v0 * f.beta2);
  const float root = fmaf(sqrtf(v), f.root_scale, f.eps);
  const float p = a.param[i] * f.decay - f.step_size * (m / root);
  if (rounded) {
    const uint32_t random = moment_bits(a.rounding_key, static_cast<uint32_t>(a.first + i));
    a.exp_avg_bf16[i] = moment_half(__float_as_uint(m), random);
    a.exp_avg_sq_bf16[i] = moment_half(__float_as_uint(v), random >> 16);
  } else {
    a.exp_avg[i] = m;
    a.exp_avg_sq[i] = v;
  }
  a.param[i] = p;
  return p;
}

__global__ void __launch_bounds__(kElementThreads, 2)
    adamw_elements(AdamWArgs a, AdamWFactors f, const float* grad_scale) {
  const float scale = grad_scale != nullptr ? *grad_scale : a.grad_scale;
  for_elements(a.count, [&](int64_t i) { adamw_element(a, f, scale, i); });
}

/// With the 16-bit copy: a thread has the two neighbouring k of one output row, which lie 32 floats
/// apart, and writes the word that holds both.
template <bool kBf16>
__global__ void __launch_bounds__(kElementThreads)
    adamw_pairs(AdamWArgs a, AdamWFactors f, const float* grad_scale) {
  const float scale = grad_scale != nullptr ? *grad_scale : a.grad_scale;
  uint32_t* words = reinterpret_cast<uint32_t*>(kBf16 ? a.bf16 : a.f16);
  for_elements(a.count / 2, [&](int64_t word) {
    const int64_t even = word / 32 * 64 + word % 32;
    const float low = adamw_element(a, f, scale, even);
    const float high = adamw_element(a, f, scale, even + 32);
    words[word] = kBf16 ? pack_bf16(low, high) : pack_half(low, high);
  });
}

inline constexpr int kSquaresBlock = 4096;
inline constexpr int kSquaresWarps = 4;

/// Half a warp a block of 4096 elements, in the CPU's sixteen lanes.
__global__ void __launch_bounds__(32 * kSquaresWarps)
    squares_parts(const float* x, int64_t count, double* parts) {
  const int64_t blocks = (count + kSquaresBlock - 1) / kSquaresBlock;
  for_warps<kSquaresWarps>((blocks + 1) / 2, [&](int64_t pair) {
    const int64_t block = 2 * pair + (lane_id() >> 4);
    const int64_t begin = block * kSquaresBlock;
    const int64_t end = begin + kSquaresBlock < count ? begin + kSquaresBlock : count;
    float sum = 0;
#pragma unroll 8
    for (int64_t i = begin + (lane_id() & 15); i < end; i += 16) sum = fmaf(x[i], x[i], sum);
    sum = sum16(sum);
    if ((lane_id() & 15) == 0 && block < blocks) parts[block] = static_cast<double>(sum);
  });
}

__global__ void __launch_bounds__(kOrderedThreads)
    squares_total(const double* parts, int64_t blocks, double* sum) {
  SharedArena arena;
  double* tile = arena.take<double>(kOrderedThreads);
  const double total = ordered_sum(parts, blocks, tile);
  if (threadIdx.x == 0) *sum = total;
}

__global__ void __launch_bounds__(kOrderedThreads) clip_factor_total(ClipArgs a) {
  SharedArena arena;
  double* tile = arena.take<double>(kOrderedThreads);
  const double total = ordered_sum(a.squares, a.buffers, tile);
  if (threadIdx.x != 0) return;
  const double norm = sqrt(total);
  *a.norm = norm;
  *a.factor = static_cast<float>(clip_scale(norm, a.max_norm));
}

inline Status launch_adamw(const AdamWArgs& a, const float* grad_scale, Stream stream) {
  if (a.count < 0) return invalid_argument("[adamw] count must be >= 0");
  if (a.step < 1) return invalid_argument("[adamw] step must be >= 1");
  const AdamWFactors f = adamw_factors(a);
  if (a.bf16 == nullptr && a.f16 == nullptr) {
    return launch(adamw_elements, element_blocks(a.count), kElementThreads, 0, stream, a, f,
                  grad_scale);
  }
  if (a.count % 64 != 0) return invalid_argument("[adamw] 16-bit panels hold multiples of 64");
  return launch(a.bf16 != nullptr ? adamw_pairs<true> : adamw_pairs<false>,
                element_blocks(a.count / 2), kElementThreads, 0, stream, a, f, grad_scale);
}

inline Status launch_sum_of_squares(const float* x, int64_t count, double* workspace, double* sum,
                                    Stream stream) {
  if (count < 0) return invalid_argument("[sum_of_squares] count must be >= 0");
  const int64_t blocks = sum_of_squares_workspace(count);
  const Status status = launch(squares_parts, warp_blocks<kSquaresWarps>((blocks + 1) / 2),
                               32 * kSquaresWarps, 0, stream, x, count, workspace);
  if (!status.ok()) return status;
  return launch(squares_total, 1, kOrderedThreads, shared_bytes<double>(kOrderedThreads), stream,
                workspace, blocks, sum);
}

inline Status launch_clip_factor(const ClipArgs& a, Stream stream) {
  if (a.buffers < 0) return invalid_argument("[clip_factor] buffers must be >= 0");
  if (!(a.max_norm >= 0)) return invalid_argument("[clip_factor] max_norm must be >= 0");
  return launch(clip_factor_total, 1, kOrderedThreads, shared_bytes<double>(kOrderedThreads),
                stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
