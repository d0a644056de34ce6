#pragma once
// A row's sums run in the CPU's sixteen lanes (lane j takes elements j, j + 16, ...), which is a
// chain of width / 16 steps. Short rows give half a warp to each row. Long rows give a block to
// each, so that the loads of a lone row (decode) are in flight together: all threads bring the
// operands to shared memory, and one warp walks the chains from there.

#include "cuda/elementwise.cuh"
#include "cuda/reduce.cuh"
#include "temper/kernels/rms_norm.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kNormThreads = 256;
inline constexpr int64_t kShortNorm = 256;  // Widths up to here are short.
inline constexpr int kNormTile = 2048;      // Operands of a long row that lie in shared memory.

/// Factors of one term of a row's sum.
struct Term {
  float a, b;
};

/// Sum of a_i b_i over [0, width), by half a warp.
template <class Terms>
__device__ __forceinline__ float half_warp_dot(int64_t width, const Terms& terms) {
  float sum = 0;
#pragma unroll 4
  for (int64_t i = lane_id() & 15; i < width; i += 16) {
    const Term t = terms(i);
    sum = fmaf(t.a, t.b, sum);
  }
  return sum16(sum);
}

/// The same by a block; `tile` holds kNormTile of Term, and may be used again after the call.
template <class Terms>
__device__ __forceinline__ float block_dot(int64_t width, Term* tile, const Terms& terms) {
  float sum = 0;
  for (int64_t begin = 0; begin < width; begin += kNormTile) {
    const int n = static_cast<int>(width - begin < kNormTile ? width - begin : kNormTile);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kNormThreads) tile[i] = terms(begin + i);
    __syncthreads();
    if (warp_id() == 0) {  // Both halves of the warp walk the same chains.
#pragma unroll 8
      for (int i = static_cast<int>(lane_id()) & 15; i < n; i += 16) {
        sum = fmaf(tile[i].a, tile[i].b, sum);
      }
    }
    __syncthreads();
  }
  if (warp_id() == 0) {
    sum = sum16(sum);
    if (lane_id() == 0) tile[0].a = sum;
  }
  __syncthreads();
  const float total = tile[0].a;
  __syncthreads();
  return total;
}

/// A thread's share of a row: elements begin, begin + step, ... below end.
struct Share {
  int64_t row, begin, step, end;
};

/// Calls `body(share, dot)` for every row, where `dot(terms)` sums over all of it.
template <bool kLong, class Body>
__device__ __forceinline__ void for_rows(int64_t rows, int64_t width, const Body& body) {
  if constexpr (kLong) {
    SharedArena arena;
    Term* tile = arena.take<Term>(kNormTile);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
      body(Share{row, static_cast<int64_t>(threadIdx.x), kNormThreads, width},
           [&](const auto& terms) { return block_dot(width, tile, terms); });
    }
  } else {
    for_warps<kNormThreads / 32>((rows + 1) / 2, [&](int64_t pair) {
      // A half without a row of its own only keeps the shuffles company.
      const int64_t row = 2 * pair + (lane_id() >> 4);
      const int64_t end = row < rows ? width : 0;
      body(Share{row < rows ? row : rows - 1, static_cast<int64_t>(lane_id() & 15), 16, end},
           [&](const auto& terms) { return half_warp_dot(end, terms); });
    });
  }
}

template <bool kLong>
__global__ void __launch_bounds__(kNormThreads, 2) rms_norm_rows(RmsNormArgs a) {
  for_rows<kLong>(a.rows, a.width, [&](const Share& share, const auto& dot) {
    const float* x = a.x + share.row * a.width;
    float* y = a.y + share.row * a.width;
    const float squares = dot([&](int64_t i) { return Term{x[i], x[i]}; });
    const float rstd = 1.0f / sqrtf(squares / static_cast<float>(a.width) + a.eps);
    if (a.rstd != nullptr && share.begin == 0 && share.end > 0) a.rstd[share.row] = rstd;
    for (int64_t i = share.begin; i < share.end; i += share.step) y[i] = x[i] * rstd * a.weight[i];
  });
}

template <bool kLong>
__global__ void __launch_bounds__(kNormThreads) rms_norm_backward_rows(RmsNormBackwardArgs a) {
  for_rows<kLong>(a.rows, a.width, [&](const Share& share, const auto& dot) {
    const float* x = a.x + share.row * a.width;
    const float* dy = a.dy + share.row * a.width;
    float* dx = a.dx + share.row * a.width;
    const float rstd = a.rstd[share.row];
    const auto terms = [&](int64_t i) { return Term{dy[i] * a.weight[i], x[i] * rstd}; };
    const float minus_mean = -(dot(terms) / static_cast<float>(a.width));
    for (int64_t i = share.begin; i < share.end; i += share.step) {
      const Term t = terms(i);
      const float d = fmaf(t.b, minus_mean, t.a) * rstd;
      dx[i] = a.accumulate_dx ? dx[i] + d : d;
    }
  });
}

inline constexpr int kWeightThreads = 32;  // Columns are few: small blocks reach more processors.

/// One thread a column: a chain over the rows in ascending order.
__global__ void __launch_bounds__(kWeightThreads) rms_norm_backward_weight(RmsNormBackwardArgs a) {
  for_elements(a.width, [&](int64_t i) {
    float sum = a.dweight[i];
#pragma unroll 8
    for (int64_t row = 0; row < a.rows; ++row) {
      const int64_t at = row * a.width + i;
      sum = fmaf(a.dy[at], a.x[at] * a.rstd[row], sum);
    }
    a.dweight[i] = sum;
  });
}

/// Launches the kernel for short or for long rows.
template <class Args>
Status launch_norm(void (*short_rows)(Args), void (*long_rows)(Args), const Args& a,
                   Stream stream) {
  if (a.width <= kShortNorm) {
    return launch(short_rows, warp_blocks<kNormThreads / 32>((a.rows + 1) / 2), kNormThreads, 0,
                  stream, a);
  }
  const auto blocks = static_cast<unsigned>(a.rows < (1 << 20) ? a.rows : 1 << 20);
  return launch(long_rows, blocks, kNormThreads, shared_bytes<Term>(kNormTile), stream, a);
}

inline Status launch_rms_norm(const RmsNormArgs& a, Stream stream) {
  if (a.rows < 0 || a.width < 1) {
    return invalid_argument("[rms_norm] expected rows >= 0 and width >= 1");
  }
  return launch_norm(rms_norm_rows<false>, rms_norm_rows<true>, a, stream);
}

inline Status launch_rms_norm_backward(const RmsNormBackwardArgs& a, Stream stream) {
  if (a.rows < 0 || a.width < 1) {
    return invalid_argument("[rms_norm_backward] expected rows >= 0 and width >= 1");
  }
  if (a.dweight != nullptr && a.rows > 0) {  // First: dx may overwrite dy.
    const auto blocks = static_cast<unsigned>((a.width + kWeightThreads - 1) / kWeightThreads);
    const Status status = launch(rms_norm_backward_weight, blocks, kWeightThreads, 0, stream, a);
    if (!status.ok()) return status;
  }
  if (a.dx == nullptr) return {};
  return launch_norm(rms_norm_backward_rows<false>, rms_norm_backward_rows<true>, a, stream);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
