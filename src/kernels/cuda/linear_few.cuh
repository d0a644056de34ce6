#pragma once
// Forward products of few rows (decode): a block has one panel of the weight and streams it once
// from global memory. The chunks of k, which are sums of their own in either contract, go round the
// warps and are added in order: the bits of linear_fma.cuh and linear_dot.cuh.

#include <type_traits>

#include "cuda/linear_dot.cuh"
#include "cuda/linear_fma.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kFewWarps = kProductThreads / 32;
inline constexpr int kFewRows = 16;  // At most.

/// The sums of one round of chunks, [kFewWarps][kRows][32] in shared memory, and what a thread has
/// of the output: elements threadIdx.x, threadIdx.x + 256, ... of [kRows][32].
template <int kRows>
struct ChunkRound {
  static constexpr int kSize = kRows * kPanelWords;
  static constexpr int kOwn = (kSize + kProductThreads - 1) / kProductThreads;
  float* sums = nullptr;
  float total[kOwn] = {};

  __device__ __forceinline__ float* own_sums() const { return sums + warp_id() * kSize; }
  /// Adds the round that begins at `chunk`; all threads call it.
  __device__ __forceinline__ void add(const RowsOut& out, int64_t column, int64_t chunk,
                                      int64_t chunks) {
    __syncthreads();
    const int64_t left = chunks - chunk;
    const int n = static_cast<int>(left < kFewWarps ? left : kFewWarps);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kProductThreads;
      if (at >= kSize) break;
      for (int c = 0; c < n; ++c) {
        const float sum = sums[c * kSize + at];
        total[i] = chunk + c == 0 ? out.first(at / kPanelWords, column + at % kPanelWords, sum)
                                  : total[i] + sum;
      }
    }
    __syncthreads();
  }
  __device__ __forceinline__ void store(const RowsOut& out, int64_t column) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kProductThreads;
      const int64_t row = at / kPanelWords;
      const int64_t to = column + at % kPanelWords;
      if (at < kSize && row < out.rows && to < out.columns) out.p[row * out.stride + to] = total[i];
    }
  }
};

/// Runs `chunk_sums(chunk, to)` for every chunk, one a warp; `to` is [kRows][32].
template <int kRows, class ChunkSums>
__device__ __forceinline__ void few_rows(const RowsOut& out, int64_t depth, int64_t chunk_steps,
                                         const ChunkSums& chunk_sums) {
  SharedArena arena;
  ChunkRound<kRows> round;
  round.sums = arena.take<float>(kFewWarps * ChunkRound<kRows>::kSize);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kPanel;
  const int64_t chunks = (depth + chunk_steps - 1) / chunk_steps;
  for (int64_t chunk = 0; chunk < chunks; chunk += kFewWarps) {
    const int64_t own = chunk + warp_id();
    if (own < chunks) chunk_sums(own, round.own_sums());
    round.add(out, column, chunk, chunks);
  }
  round.store(out, column);
}
template <int kRows>
constexpr size_t few_shared() {
  return shared_bytes<float>(kFewWarps * ChunkRound<kRows>::kSize);
}

/// The words of float32 panels.
struct FloatWords {};

/// Steps [step, step + 4) of this lane's output: a panel's row of words is read by a warp at once.
template <class Words>
__device__ __forceinline__ void few_weights(const uint32_t* panel, int64_t step, int64_t depth,
                                            float (&w)[4]) {
#pragma unroll
  for (int s = 0; s < 4; s += 2) {
    if (step + s >= depth) break;  // A panel has whole pairs of steps.
    if constexpr (std::is_same_v<Words, FloatWords>) {
      w[s] = __uint_as_float(__ldg(panel + (step + s) * kPanelWords));
      w[s + 1] = __uint_as_float(__ldg(panel + (step + s + 1) * kPanelWords));
    } else {
      const uint32_t word = __ldg(panel + (step + s) / 2 * kPanelWords);
      w[s] = Words::low(word);
      w[s + 1] = Words::high(word);
    }
  }
}

/// A lane has one output of each row.
template <int kRows, class Words>
__global__ void __launch_bounds__(kProductThreads)
    fma_few(RowsView x, PanelsView w, RowsOut out, int64_t depth) {
  const uint32_t* panel = w.p + blockIdx.x * w.rows * kPanelWords + lane_id();
  few_rows<kRows>(out, depth, kFmaChunk, [&](int64_t chunk, float* to) {
    float sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = 0.0f;
    const int64_t begin = chunk * kFmaChunk;
    const int64_t left = depth - begin;
    const int steps = static_cast<int>(left < kFmaChunk ? left : kFmaChunk);
#pragma unroll 4
    for (int k = 0; k < steps; k += 4) {
      float weights[4] = {};
      few_weights<Words>(panel, begin + k, depth, weights);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float v[4];
        unpack4(load4(x, r, begin + k), v);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          if (k + s < steps) sums[r] = fmaf(v[s], weights[s], sums[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) to[r * kPanelWords + lane_id()] = sums[r];
  });
}

/// Two activations as a word; what lies outside x is zero.
__device__ __forceinline__ uint32_t few_pair(const RowsView& x, int64_t row, int64_t step) {
  if (row >= x.rows) return 0;
  const float* p = x.p + row * x.stride + step;
  if (x.aligned && step + 2 <= x.columns) {
    const float2 v = *reinterpret_cast<const float2*>(p);
    return round_pair(v.x, v.y);
  }
  return round_pair(step < x.columns ? p[0] : 0.0f, step + 1 < x.columns ? p[1] : 0.0f);
}

/// A warp has 16 rows (those that do not exist are zero) and the panel's 32 columns: 16 bytes a
/// lane are its words of four fragments, as in DotWords.
__global__ void __launch_bounds__(kProductThreads)
    dot_few(RowsView x, PanelsView w, RowsOut out, int64_t depth) {
  const int lane = static_cast<int>(lane_id());
  const int g = lane / 4, t = lane % 4;
  const uint32_t* panel = w.p + blockIdx.x * w.rows * kPanelWords + g * 4;
  few_rows<kFewRows>(out, depth, kDotChunk, [&](int64_t chunk, float* to) {
    float acc[4][4] = {};
    const int64_t begin = chunk * kDotChunk;
    const int64_t left = depth - begin;
    const int steps = static_cast<int>(left < kDotChunk ? left : kDotChunk);
#pragma unroll 4
    for (int k = 0; k < steps; k += 16) {
      uint32_t b[4][2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int64_t row = (begin + k) / 2 + h * 4 + t;
        const uint4 v = row < w.rows ? *reinterpret_cast<const uint4*>(panel + row * kPanelWords)
                                     : make_uint4(0, 0, 0, 0);
        b[0][h] = v.x;
        b[1][h] = v.y;
        b[2][h] = v.z;
        b[3][h] = v.w;
      }
      const int64_t step = begin + k + 2 * t;
      const uint32_t a[4] = {few_pair(x, g, step), few_pair(x, g + 8, step),
                             few_pair(x, g, step + 8), few_pair(x, g + 8, step + 8)};
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_bf16_16x8x16(acc[j], a, b[j], acc[j]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        float v[4];
        DotWords::take(acc, half, q, v);
        *reinterpret_cast<float4*>(to + (g + half * 8) * kPanelWords + DotWords::run(q)) =
            make_float4(v[0], v[1], v[2], v[3]);
      }
    }
  });
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
