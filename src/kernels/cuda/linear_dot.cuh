#pragma once
// Products by the contract kDot on tensor cores: activations rounded to bf16 on their way to shared
// memory, bf16 panels as they lie, one shape of mma. An element takes its steps 16 at a time in
// ascending order, in chunks of 256 whose sums are added in order, whatever block, warp or fragment
// it falls on. 128 rows x 128 columns a block, 32 steps at a time in shared memory, twice.
//
// Columns of a warp (32 of them, four fragments of 8) are dealt so that 16 bytes of shared memory
// are one lane's words of all four fragments: column c of fragment j is not 8 j + c.

#include "cuda/linear_tiles.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kDotChunk = 256;
inline constexpr int kDotRows = 128;     // Of a block; a warp has 64.
inline constexpr int kDotColumns = 128;  // A warp has 32.
inline constexpr int kDotSteps = 32;
inline constexpr int kDotPairs = kDotSteps / 2;

// A, the row operand.

/// Element (row, step) of A is x[row][step]: tile [kDotRows][kDotPairs] of words, padded.
struct DotRowsA {
  static constexpr int kStride = kDotPairs + 4;
  static constexpr int kWords = kDotRows * kStride;
  struct Staged {
    float4 v[4];
  };
  RowsView x;

  __device__ __forceinline__ void fetch(int64_t row, int64_t step, Staged& s) const {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 4; ++i) s.v[i] = load4(x, row + t / 8 + i * 32, step + t % 8 * 4);
  }
  __device__ __forceinline__ void place(const Staged& s, uint32_t* tile) const {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<uint2*>(tile + (t / 8 + i * 32) * kStride + t % 8 * 2) =
          make_uint2(round_pair(s.v[i].x, s.v[i].y), round_pair(s.v[i].z, s.v[i].w));
    }
  }
  /// Rows [row, row + 16), pairs [pair, pair + 8).
  __device__ __forceinline__ void fragment(const uint32_t* tile, int row, int pair,
                                           uint32_t (&a)[4]) const {
    const int lane = static_cast<int>(lane_id());
    const uint32_t* p = tile + (row + lane / 4) * kStride + pair + lane % 4;
    a[0] = p[0];
    a[1] = p[8 * kStride];
    a[2] = p[4];
    a[3] = p[8 * kStride + 4];
  }
};

/// Words of two neighbouring rows of x, four columns at once.
struct PairedRows {
  float4 low, high;

  __device__ __forceinline__ void fetch(const RowsView& x, int64_t row, int64_t column) {
    low = load4(x, row, column);
    high = load4(x, row + 1, column);
  }
  __device__ __forceinline__ void place(uint32_t* to) const {
    *reinterpret_cast<uint4*>(to) =
        make_uint4(round_pair(low.x, high.x), round_pair(low.y, high.y), round_pair(low.z, high.z),
                   round_pair(low.w, high.w));
  }
};

/// Element (row, step) of A is x[step][row]: tile [kDotPairs][kDotRows] of words, padded.
struct DotColumnsA {
  static constexpr int kStride = kDotRows + 8;
  static constexpr int kWords = kDotPairs * kStride;
  struct Staged {
    PairedRows v[2];
  };
  RowsView x;

  __device__ __forceinline__ void fetch(int64_t row, int64_t step, Staged& s) const {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 2; ++i) s.v[i].fetch(x, step + (t / 32 + i * 8) * 2, row + t % 32 * 4);
  }
  __device__ __forceinline__ void place(const Staged& s, uint32_t* tile) const {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 2; ++i) s.v[i].place(tile + (t / 32 + i * 8) * kStride + t % 32 * 4);
  }
  __device__ __forceinline__ void fragment(const uint32_t* tile, int row, int pair,
                                           uint32_t (&a)[4]) const {
    const int lane = static_cast<int>(lane_id());
    const uint32_t* p = tile + (pair + lane % 4) * kStride + row + lane / 4;
    a[0] = p[0];
    a[1] = p[8];
    a[2] = p[4 * kStride];
    a[3] = p[4 * kStride + 8];
  }
};

// B, the column operand. `fragments` gives a warp its 32 columns of 8 pairs; `run` says where four
// neighbouring columns of a lane lie among its sums.

/// Words over pairs of steps, [4 panels][kDotPairs][32], padded. Column c of fragment j is 4 c + j.
struct DotWords {
  static constexpr int kWords = 4 * kDotPairs * kPaddedPanel;

  __device__ static __forceinline__ void fragments(const uint32_t* tile, int warp_column, int pair,
                                                   uint32_t (&b)[4][2]) {
    const int lane = static_cast<int>(lane_id());
    const uint32_t* p =
        tile + (warp_column * kDotPairs + pair + lane % 4) * kPaddedPanel + lane / 4 * 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4 v = *reinterpret_cast<const uint4*>(p + h * 4 * kPaddedPanel);
      b[0][h] = v.x;
      b[1][h] = v.y;
      b[2][h] = v.z;
      b[3][h] = v.w;
    }
  }
  __device__ static __forceinline__ int run(int q) {
    return static_cast<int>(lane_id()) % 4 * 8 + q * 4;
  }
  /// Columns [run(q), run(q) + 4) of row g (half 0) or g + 8 (half 1).
  __device__ static __forceinline__ void take(const float (&acc)[4][4], int half, int q,
                                              float (&v)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = acc[j][2 * half + q];
  }
};

/// Element (step, column) of B lies in panels over `column`.
struct DotPanels : DotWords {
  struct Staged {};
  PanelsView w;

  __device__ __forceinline__ void fetch(int64_t column, int64_t step, uint32_t* tile,
                                        Staged&) const {
    copy_panels<4, kDotPairs, kPanelWords, kPaddedPanel>(w, column / kPanelWords, step / 2, 0,
                                                         tile);
  }
  __device__ __forceinline__ void place(const Staged&, uint32_t*) const {}
};

/// Element (step, column) of B is y[step][column].
struct DotRowsB : DotWords {
  struct Staged {
    PairedRows v[2];
  };
  RowsView y;

  __device__ __forceinline__ void fetch(int64_t column, int64_t step, uint32_t*, Staged& s) const {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 2; ++i) s.v[i].fetch(y, step + (t / 32 + i * 8) * 2, column + t % 32 * 4);
  }
  __device__ __forceinline__ void place(const Staged& s, uint32_t* tile) const {
    const int t = static_cast<int>(threadIdx.x);
    const int panel = t % 32 * 4 / kPanelWords;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      s.v[i].place(tile + (panel * kDotPairs + t / 32 + i * 8) * kPaddedPanel + t % 8 * 4);
    }
  }
};

/// Element (step, column) of B lies in panels over `step`: a tile is 64 rows of one panel, and
/// words (k, k + 1) of two neighbouring n become words (n, n + 1) of two neighbouring k. Column c
/// of fragment 2 q + h is 16 q + 2 c + h.
struct DotTransposed {
  static constexpr int kWords = kDotColumns / 2 * kPaddedPanel;
  struct Staged {};
  PanelsView w;

  __device__ __forceinline__ void fetch(int64_t column, int64_t step, uint32_t* tile,
                                        Staged&) const {
    copy_panels<1, kDotColumns / 2, kPanelWords, kPaddedPanel>(w, step / kPanelWords, column / 2, 0,
                                                               tile);
  }
  __device__ __forceinline__ void place(const Staged&, uint32_t*) const {}
  __device__ static __forceinline__ void fragments(const uint32_t* tile, int warp_column, int pair,
                                                   uint32_t (&b)[4][2]) {
    const int lane = static_cast<int>(lane_id());
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const uint32_t* p =
          tile + (warp_column * 16 + q * 8 + lane / 4) * kPaddedPanel + (pair + lane % 4) * 2;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint2 v = *reinterpret_cast<const uint2*>(p + h * 8);
        b[2 * q][h] = (v.x & 0xffffu) | v.y << 16;
        b[2 * q + 1][h] = v.x >> 16 | (v.y & 0xffff0000u);
      }
    }
  }
  __device__ static __forceinline__ int run(int q) {
    return q * 16 + static_cast<int>(lane_id()) % 4 * 4;
  }
  __device__ static __forceinline__ void take(const float (&acc)[4][4], int half, int q,
                                              float (&v)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = acc[2 * q + i % 2][2 * half + i / 2];
  }
};

/// A warp's 64 rows x 32 columns.
struct DotSums {
  float v[4][4][4];  // [rows / 16][fragment][of a lane]

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) v[r][j][i] = 0.0f;
      }
    }
  }
};

/// Calls `body(r, half, q, row, column)` for the runs of four columns that a lane holds; row and
/// column are those of the product.
template <class B, class Body>
__device__ __forceinline__ void for_runs(int64_t row, int64_t column, const Body& body) {
  const int warp = static_cast<int>(warp_id());
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = row + warp / 4 * 64 + r * 16 + half * 8 + lane_id() / 4;
#pragma unroll
      for (int q = 0; q < 2; ++q) body(r, half, q, at, column + warp % 4 * 32 + B::run(q));
    }
  }
}

template <class A, class B>
__device__ __forceinline__ void dot_tile(const A& a, const uint32_t* tile_a, const B& b,
                                         const uint32_t* tile_b, DotSums& sums) {
  const int warp = static_cast<int>(warp_id());
#pragma unroll
  for (int pair = 0; pair < kDotPairs; pair += 8) {
    uint32_t words_b[4][2];
    b.fragments(tile_b, warp % 4, pair, words_b);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      uint32_t words_a[4];
      a.fragment(tile_a, warp / 4 * 64 + r * 16, pair, words_a);
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_bf16_16x8x16(sums.v[r][j], words_a, words_b[j], sums.v[r][j]);
    }
  }
}

/// The first `count` of four floats.
__device__ __forceinline__ void store4(float* p, const float (&v)[4], int64_t count, bool aligned) {
  if (aligned && count >= 4) {
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) p[i] = v[i];
  }
}

/// out = A B over rows of y or dx.
template <class B>
__global__ void __launch_bounds__(kProductThreads, 1)
    dot_rows(DotRowsA a, B b, RowsOut out, int64_t depth) {
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kDotRows;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kDotColumns;
  DotSums sums, total;  // total[r][2 half + q] is a run of four columns.
  sums.clear();
  const auto flush = [&](bool first) {
    for_runs<B>(row, column, [&](int r, int half, int q, int64_t at, int64_t c) {
      float v[4];
      B::take(sums.v[r], half, q, v);
      float(&to)[4] = total.v[r][2 * half + q];
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i] = first ? out.first(at, c + i, v[i]) : to[i] + v[i];
    });
    sums.clear();
  };
  tile_pipeline<uint32_t, kDotSteps>(a, b, row, column, depth, [&](int64_t tile, const uint32_t* ta, const uint32_t* tb) {
    constexpr int kTiles = kDotChunk / kDotSteps;
    if (tile > 0 && tile % kTiles == 0) flush(tile == kTiles);
    dot_tile(a, ta, b, tb, sums);
  });
  flush(depth <= kDotChunk);
  for_runs<B>(row, column, [&](int r, int half, int q, int64_t at, int64_t c) {
    if (at < out.rows) {
      store4(out.p + at * out.stride + c, total.v[r][2 * half + q], out.columns - c, out.aligned);
    }
  });
}

/// dweight += dy^T x: rows of A are k, columns of B are n, steps are rows of the batch; one chain
/// that goes on from the stored value.
__global__ void __launch_bounds__(kProductThreads, 1)
    dot_weight(DotColumnsA x, DotRowsB dy, WeightOut out, int64_t rows) {
  const int64_t first_k = static_cast<int64_t>(blockIdx.y) * kDotRows;
  const int64_t first_n = static_cast<int64_t>(blockIdx.x) * kDotColumns;
  DotSums sums;
  for_runs<DotRowsB>(first_k, first_n, [&](int r, int half, int q, int64_t k, int64_t n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums.v[r][i][2 * half + q] = out.has(n + i, k) ? *out.at(n + i, k) : 0.0f;
    }
  });
  tile_pipeline<uint32_t, kDotSteps>(
      x, dy, first_k, first_n, rows,
      [&](int64_t, const uint32_t* tx, const uint32_t* tdy) { dot_tile(x, tx, dy, tdy, sums); });
  for_runs<DotRowsB>(first_k, first_n, [&](int r, int half, int q, int64_t k, int64_t n) {
    float v[4];
    DotRowsB::take(sums.v[r], half, q, v);
    if (k < out.k) store4(out.at(n, k), v, out.n - n, true);
  });
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
