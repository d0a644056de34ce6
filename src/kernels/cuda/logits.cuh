#pragma once
// Statistics of one row of logits by one block of threads, in the order of cpu/logits-inl.h: the
// same bits at any number of threads.

#include "cuda/math.cuh"
#include "cuda/reduce.cuh"
#include "logits_formula.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// Threads of the kernels over rows of logits, and the most that a launch may ask for.
inline constexpr int kRowThreads = 512;

/// Whole warps, no more than the kernels are compiled for.
inline bool row_threads_ok(int threads) {
  return threads >= 32 && threads <= kRowThreads && threads % 32 == 0;
}

/// What a block needs for the statistics of a row.
struct RowScratch {
  double* sums;      // [chunks]
  double* weighted;  // [chunks]
  float* warps;      // [32]
  RowStats* stats;   // One.

  static __host__ __device__ int64_t chunks(int64_t padded) {
    return (padded + kLogitChunk - 1) / kLogitChunk;
  }
  static size_t bytes(int64_t padded) {
    return 2 * shared_bytes<double>(static_cast<size_t>(chunks(padded))) + shared_bytes<float>(32) +
           shared_bytes<RowStats>(1);
  }
  __device__ RowScratch(SharedArena& arena, int64_t padded)
      : sums(arena.take<double>(static_cast<size_t>(chunks(padded)))),
        weighted(arena.take<double>(static_cast<size_t>(chunks(padded)))),
        warps(arena.take<float>(32)),
        stats(arena.take<RowStats>(1)) {}
};

/// A product becomes a logit: capped, and -inf from `support` on.
__device__ __forceinline__ float finish_logit(float z, int64_t id, int64_t support, float softcap) {
  if (id >= support) return -INFINITY;
  return softcap > 0 ? softcap * vtanh(z / softcap) : z;
}

/// The same for a row in place, columns up to `padded`. Ends with a barrier.
__device__ __forceinline__ void finish_row(float* z, int64_t support, int64_t padded,
                                           float softcap) {
  const int64_t begin = softcap > 0 ? 0 : support;
  for (int64_t i = begin + threadIdx.x; i < padded; i += blockDim.x) {
    z[i] = finish_logit(z[i], i, support, softcap);
  }
  __syncthreads();
}

/// Scaled logit less the row's maximum.
__device__ __forceinline__ float centred(float z, float scale, float max) {
  return fmaxf(z * scale - max, kFarBelow);
}

/// Calls `add(i)` for the columns of each chunk on half a warp, whose lane j has columns j, j + 16,
/// ... in order, and then `done(chunk)` on the whole warp; chunk may be one past the last.
template <class Add, class Done>
__device__ __forceinline__ void for_chunks(int64_t padded, const Add& add, const Done& done) {
  const int64_t chunks = RowScratch::chunks(padded);
  for (int64_t pair = warp_id(); 2 * pair < chunks; pair += blockDim.x / 32) {
    const int64_t chunk = 2 * pair + (lane_id() >> 4);
    const int64_t begin = chunk * kLogitChunk;
    const int64_t end = begin + kLogitChunk < padded ? begin + kLogitChunk : padded;
#pragma unroll 4
    for (int64_t i = begin + (lane_id() & 15); i < end; i += 16) add(i);
    done(chunk);
  }
}

/// `logit(i)` for i in [0, padded). Leaves the chunks' sums in `s`. Begins and ends with barriers.
template <class Logit>
__device__ __forceinline__ RowStats row_stats(const Logit& logit, int64_t padded, float scale,
                                              const RowScratch& s) {
  float top = -INFINITY;
  for (int64_t i = threadIdx.x; i < padded; i += blockDim.x) top = fmaxf(top, logit(i) * scale);
  const float max = block_max(top, s.warps) + 0.0f;
  float sum = 0, weighted = 0;
  for_chunks(
      padded,
      [&](int64_t i) {
        const float x = centred(logit(i), scale, max);
        const float e = vexp(x);
        sum += e;
        weighted = fmaf(e, x, weighted);
      },
      [&](int64_t chunk) {
        const double all = ordered_sum16(0.0, sum), all_weighted = ordered_sum16(0.0, weighted);
        if ((lane_id() & 15) == 0 && chunk < RowScratch::chunks(padded)) {
          s.sums[chunk] = all;
          s.weighted[chunk] = all_weighted;
        }
        sum = weighted = 0;
      });
  __syncthreads();
  if (threadIdx.x == 0) {
    RowStats stats{max, 0, 0};
    for (int64_t c = 0; c < RowScratch::chunks(padded); ++c) {
      stats.sum += s.sums[c];
      stats.weighted += s.weighted[c];
    }
    *s.stats = stats;
  }
  __syncthreads();
  return *s.stats;
}

/// sum e^x (x - y) over a row; thread 0 gets it. Spoils the sums in `s`.
/// @param x, y  x(i) and y(i) of column i: scaled logits of the row and of its reference, centred.
template <class X, class Y>
__device__ __forceinline__ double kl_difference(const X& x, const Y& y, int64_t padded,
                                                const RowScratch& s) {
  __syncthreads();  // All have done with the sums of the row before.
  float sum = 0;
  for_chunks(
      padded,
      [&](int64_t i) {
        const float at = x(i);
        sum = fmaf(vexp(at), at - y(i), sum);
      },
      [&](int64_t chunk) {
        const double all = ordered_sum16(0.0, sum);
        if ((lane_id() & 15) == 0 && chunk < RowScratch::chunks(padded)) s.sums[chunk] = all;
        sum = 0;
      });
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0) {
    for (int64_t c = 0; c < RowScratch::chunks(padded); ++c) total += s.sums[c];
  }
  return total;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
