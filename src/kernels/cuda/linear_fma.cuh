#pragma once
// Products by the contract kFma: float32 activations, one fma chain a chunk, in the CPU's order
// (cpu/operands-inl.h). 64 rows x 128 columns a block, 16 steps of the inner dimension at a time in
// shared memory, twice: one half is filled while the other is multiplied.

#include "cuda/linear_tiles.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kFmaChunk = 256;    // As on the CPU.
inline constexpr int kFmaRows = 64;      // Of a block; 4 a thread.
inline constexpr int kFmaColumns = 128;  // 8 a thread.
inline constexpr int kFmaSteps = 16;

// A, the row operand: tile [kFmaSteps][kFmaRows], padded.
inline constexpr int kFmaAStride = kFmaRows + 4;

/// Element (row, step) of A is x[row][step].
struct FmaRowsA {
  static constexpr int kWords = kFmaSteps * kFmaAStride;
  using Staged = float4;
  RowsView x;

  __device__ __forceinline__ void fetch(int64_t row, int64_t step, Staged& s) const {
    const int t = static_cast<int>(threadIdx.x);
    s = load4(x, row + t / 4, step + t % 4 * 4);
  }
  __device__ __forceinline__ void place(const Staged& s, float* tile) const {
    const int t = static_cast<int>(threadIdx.x);
    float* to = tile + t % 4 * 4 * kFmaAStride + t / 4;
    to[0] = s.x;
    to[kFmaAStride] = s.y;
    to[2 * kFmaAStride] = s.z;
    to[3 * kFmaAStride] = s.w;
  }
};

/// Element (row, step) of A is x[step][row].
struct FmaColumnsA {
  static constexpr int kWords = kFmaSteps * kFmaAStride;
  using Staged = float4;
  RowsView x;

  __device__ __forceinline__ void fetch(int64_t row, int64_t step, Staged& s) const {
    const int t = static_cast<int>(threadIdx.x);
    s = load4(x, step + t / 16, row + t % 16 * 4);
  }
  __device__ __forceinline__ void place(const Staged& s, float* tile) const {
    const int t = static_cast<int>(threadIdx.x);
    *reinterpret_cast<float4*>(tile + t / 16 * kFmaAStride + t % 16 * 4) = s;
  }
};

// B, the column operand. `read` gives a thread (of 16 along the columns) its 8 columns of 4 steps.
struct NothingStaged {};

__device__ __forceinline__ void unpack4(const float4& v, float* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}
__device__ __forceinline__ float4 quad(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ __forceinline__ uint4 quad(const uint32_t* p) {
  return *reinterpret_cast<const uint4*>(p);
}

/// Columns in two groups of four neighbours, 64 apart: 16 lanes read 256 bytes in a row.
struct FmaNeighbours {
  __device__ static __forceinline__ int column(int lane, int i) {
    return lane * 4 + i / 4 * 64 + i % 4;
  }
  /// Word of a tile [4 panels][kRows][32] that holds this group's first column.
  template <int kRows>
  __device__ static __forceinline__ int word(int lane, int group, int row) {
    const int c = column(lane, group * 4);
    return (c / kPanelWords * kRows + row) * kPanelWords + c % kPanelWords;
  }
};

/// Element (step, column) of B lies in float32 panels over `column`.
struct FmaPanelsF32 : FmaNeighbours {
  static constexpr int kWords = 4 * kFmaSteps * kPanelWords;
  using Staged = NothingStaged;
  PanelsView w;

  __device__ __forceinline__ void fetch(int64_t column, int64_t step, float* tile, Staged&) const {
    copy_panels<4, kFmaSteps, kPanelWords, kPanelWords>(w, column / kPanelWords, step, 0,
                                                        reinterpret_cast<uint32_t*>(tile));
  }
  __device__ __forceinline__ void place(const Staged&, float*) const {}
  __device__ __forceinline__ void read(const float* tile, int lane, int step,
                                       float (&b)[4][8]) const {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      unpack4(quad(tile + word<kFmaSteps>(lane, 0, step + s)), b[s]);
      unpack4(quad(tile + word<kFmaSteps>(lane, 1, step + s)), b[s] + 4);
    }
  }
};

/// The same in 16-bit panels, widened.
template <class Words>
struct FmaPanelsHalf : FmaNeighbours {
  static constexpr int kPairs = kFmaSteps / 2;
  static constexpr int kWords = 4 * kPairs * kPanelWords;
  using Staged = NothingStaged;
  PanelsView w;

  __device__ __forceinline__ void fetch(int64_t column, int64_t step, float* tile, Staged&) const {
    copy_panels<4, kPairs, kPanelWords, kPanelWords>(w, column / kPanelWords, step / 2, 0,
                                                     reinterpret_cast<uint32_t*>(tile));
  }
  __device__ __forceinline__ void place(const Staged&, float*) const {}
  __device__ __forceinline__ void read(const float* tile, int lane, int step,
                                       float (&b)[4][8]) const {
    const auto* words = reinterpret_cast<const uint32_t*>(tile);
#pragma unroll
    for (int s = 0; s < 4; s += 2) {
#pragma unroll
      for (int group = 0; group < 2; ++group) {
        const uint4 v = quad(words + word<kPairs>(lane, group, (step + s) / 2));
        const uint32_t w4[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          b[s][group * 4 + i] = Words::low(w4[i]);
          b[s + 1][group * 4 + i] = Words::high(w4[i]);
        }
      }
    }
  }
};

/// Element (step, column) of B is y[step][column].
struct FmaRowsB : FmaNeighbours {
  static constexpr int kWords = 4 * kFmaSteps * kPanelWords;
  struct Staged {
    float4 v[2];
  };
  RowsView y;

  __device__ __forceinline__ void fetch(int64_t column, int64_t step, float*, Staged& s) const {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 2; ++i) s.v[i] = load4(y, step + t / 32 + i * 8, column + t % 32 * 4);
  }
  __device__ __forceinline__ void place(const Staged& s, float* tile) const {
    const int t = static_cast<int>(threadIdx.x);
    const int panel = t % 32 * 4 / kPanelWords;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = panel * kFmaSteps + t / 32 + i * 8;
      *reinterpret_cast<float4*>(tile + row * kPanelWords + t % 8 * 4) = s.v[i];
    }
  }
  __device__ __forceinline__ void read(const float* tile, int lane, int step,
                                       float (&b)[4][8]) const {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      unpack4(quad(tile + word<kFmaSteps>(lane, 0, step + s)), b[s]);
      unpack4(quad(tile + word<kFmaSteps>(lane, 1, step + s)), b[s] + 4);
    }
  }
};

/// Element (step, column) of B lies in float32 panels over `step`: a tile is half a panel of 128 of
/// its rows, padded, and a thread's columns are 16 apart.
struct FmaTransposedF32 {
  static constexpr int kStride = kFmaSteps + 4;
  static constexpr int kWords = kFmaColumns * kStride;
  using Staged = NothingStaged;
  PanelsView w;

  __device__ static __forceinline__ int column(int lane, int i) { return lane + 16 * i; }
  __device__ __forceinline__ void fetch(int64_t column, int64_t step, float* tile, Staged&) const {
    copy_panels<1, kFmaColumns, kFmaSteps, kStride>(w, step / kPanelWords, column,
                                                    static_cast<int>(step % kPanelWords),
                                                    reinterpret_cast<uint32_t*>(tile));
  }
  __device__ __forceinline__ void place(const Staged&, float*) const {}
  __device__ __forceinline__ void read(const float* tile, int lane, int step,
                                       float (&b)[4][8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float v[4];
      unpack4(quad(tile + column(lane, i) * kStride + step), v);
#pragma unroll
      for (int s = 0; s < 4; ++s) b[s][i] = v[s];
    }
  }
};

/// The same in 16-bit panels: a word holds two neighbouring columns.
template <class Words>
struct FmaTransposedHalf {
  static constexpr int kStride = kFmaSteps + 4;
  static constexpr int kWords = kFmaColumns / 2 * kStride;
  using Staged = NothingStaged;
  PanelsView w;

  __device__ static __forceinline__ int column(int lane, int i) {
    return 2 * lane + 32 * (i / 2) + i % 2;
  }
  __device__ __forceinline__ void fetch(int64_t column, int64_t step, float* tile, Staged&) const {
    copy_panels<1, kFmaColumns / 2, kFmaSteps, kStride>(w, step / kPanelWords, column / 2,
                                                        static_cast<int>(step % kPanelWords),
                                                        reinterpret_cast<uint32_t*>(tile));
  }
  __device__ __forceinline__ void place(const Staged&, float*) const {}
  __device__ __forceinline__ void read(const float* tile, int lane, int step,
                                       float (&b)[4][8]) const {
    const auto* words = reinterpret_cast<const uint32_t*>(tile);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 v = quad(words + column(lane, 2 * i) / 2 * kStride + step);
      const uint32_t w4[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        b[s][2 * i] = Words::low(w4[s]);
        b[s][2 * i + 1] = Words::high(w4[s]);
      }
    }
  }
};

/// Four rows by eight columns a thread.
struct FmaSums {
  float v[4][8];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int c = 0; c < 8; ++c) v[r][c] = 0.0f;
    }
  }
  __device__ __forceinline__ void step(const float* a, const float (&b)[8]) {
    float x[4];
    unpack4(quad(a), x);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int c = 0; c < 8; ++c) v[r][c] = fmaf(x[r], b[c], v[r][c]);
    }
  }
};

/// `steps` steps (at most kFmaSteps) of a tile: a step that does not exist must not be multiplied,
/// for fma(0, 0, -0) is +0.
template <class B>
__device__ __forceinline__ void fma_tile(const float* a, const B& b, const float* tile, int steps,
                                         FmaSums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 16;
  const float* rows = a + threadIdx.x / 16 * 4;
#pragma unroll
  for (int k = 0; k < kFmaSteps; k += 4) {
    float values[4][8];
    b.read(tile, lane, k, values);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if (k + s < steps) sums.step(rows + (k + s) * kFmaAStride, values[s]);
    }
  }
}

/// Steps of a tile of `depth` steps: all but the last are full.
__device__ __forceinline__ int fma_steps(int64_t depth, int64_t tile) {
  const int64_t left = depth - tile * kFmaSteps;
  return static_cast<int>(left < kFmaSteps ? left : kFmaSteps);
}

/// out = A B over rows of y or dx: the chunks' sums are added in order.
template <class B>
__global__ void __launch_bounds__(kProductThreads, 1)
    fma_rows(FmaRowsA a, B b, RowsOut out, int64_t depth) {
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kFmaRows;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kFmaColumns;
  const int64_t own_row = row + threadIdx.x / 16 * 4;
  const int lane = static_cast<int>(threadIdx.x) % 16;
  FmaSums sums, total;
  sums.clear();
  const auto flush = [&](bool first) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        total.v[r][c] = first ? out.first(own_row + r, column + B::column(lane, c), sums.v[r][c])
                              : total.v[r][c] + sums.v[r][c];
      }
    }
    sums.clear();
  };
  tile_pipeline<float, kFmaSteps>(
      a, b, row, column, depth, [&](int64_t tile, const float* ta, const float* tb) {
        if (tile > 0 && tile % (kFmaChunk / kFmaSteps) == 0) {
          flush(tile == kFmaChunk / kFmaSteps);
        }
        fma_tile(ta, b, tb, fma_steps(depth, tile), sums);
      });
  flush(depth <= kFmaChunk);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    if (own_row + r >= out.rows) break;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const int64_t at = column + B::column(lane, c);
      if (at < out.columns) out.p[(own_row + r) * out.stride + at] = total.v[r][c];
    }
  }
}

/// dweight += dy^T x: rows of A are k, columns of B are n, steps are rows of the batch; one chain
/// that goes on from the stored value.
__global__ void __launch_bounds__(kProductThreads, 2)
    fma_weight(FmaColumnsA x, FmaRowsB dy, WeightOut out, int64_t rows) {
  const int64_t k = static_cast<int64_t>(blockIdx.y) * kFmaRows;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kFmaColumns;
  const int64_t own_k = k + threadIdx.x / 16 * 4;
  const int lane = static_cast<int>(threadIdx.x) % 16;
  FmaSums sums;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const int64_t column = n + FmaRowsB::column(lane, c);
      sums.v[r][c] = out.has(column, own_k + r) ? *out.at(column, own_k + r) : 0.0f;
    }
  }
  tile_pipeline<float, kFmaSteps>(
      x, dy, k, n, rows, [&](int64_t tile, const float* tx, const float* tdy) {
        fma_tile(tx, dy, tdy, fma_steps(rows, tile), sums);
      });
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const int64_t column = n + FmaRowsB::column(lane, c);
      if (out.has(column, own_k + r)) *out.at(column, own_k + r) = sums.v[r][c];
    }
  }
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
