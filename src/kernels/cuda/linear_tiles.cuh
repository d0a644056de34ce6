#pragma once
// What the products of linear.cuh share: loads of activations whose alignment is not known, and
// copies of a weight's panels. A weight is read as 32-bit words: a word of a float32 panel is one
// step of k, a word of a bf16 panel two, and a row of a panel has 32 words, one an output.

#include "cuda/device.cuh"
#include "cuda/math.cuh"
#include "temper/kernels/linear.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kProductThreads = 256;
inline constexpr int kPanelWords = static_cast<int>(kPanel);  // Of one row of a panel.
/// Rows of an array in shared memory that lie this many words apart can be read by a warp without
/// two lanes meeting in a bank: columns by 8 lanes x 4 rows, or 16 bytes a lane.
inline constexpr int kPaddedPanel = kPanelWords + 8;

/// An array of floats whose rows lie `stride` apart.
struct RowsView {
  const float* p;
  int64_t stride;
  int64_t rows;
  int64_t columns;
  bool aligned;  // Every row starts at a multiple of 16 bytes.
};
inline bool rows_aligned(const float* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % 4 == 0;
}
inline RowsView view_rows(const float* p, int64_t stride, int64_t rows, int64_t columns) {
  return {p, stride, rows, columns, rows_aligned(p, stride)};
}

/// Columns [column, column + 4) of a row; what lies outside the array is zero.
__device__ __forceinline__ float4 load4(const RowsView& v, int64_t row, int64_t column) {
  float4 out = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (row >= v.rows) return out;
  const float* p = v.p + row * v.stride + column;
  if (v.aligned && column + 4 <= v.columns) return *reinterpret_cast<const float4*>(p);
  if (column < v.columns) out.x = p[0];
  if (column + 1 < v.columns) out.y = p[1];
  if (column + 2 < v.columns) out.z = p[2];
  if (column + 3 < v.columns) out.w = p[3];
  return out;
}

/// Two activations as a word of bf16, nearest even, `low` in the low half.
__device__ __forceinline__ uint32_t round_pair(float low, float high) {
  const uint32_t lo = __bfloat16_as_ushort(__float2bfloat16_rn(low));
  const uint32_t hi = __bfloat16_as_ushort(__float2bfloat16_rn(high));
  return lo | hi << 16;
}

/// A weight's panels as words.
struct PanelsView {
  const uint32_t* p;
  int64_t panels;
  int64_t rows;  // Of a panel.
};
/// What products read of a weight.
inline const void* read_panels(const PackedWeight& w) {
  if (w.bf16 != nullptr) return w.bf16;
  return w.f16 != nullptr ? static_cast<const void*>(w.f16) : w.f32;
}
inline PanelsView view_panels(const PackedWeight& w) {
  const void* panels = read_panels(w);
  const int64_t depth = panel_depth(w.k);
  return {static_cast<const uint32_t*>(panels), panel_count(w.n),
          panels == w.f32 ? depth : depth / 2};
}

/// Copies, in the background, panels [panel, panel + kPanels) x rows [row, row + kRows) x words
/// [word, word + kWords) to `to`, [kPanels][kRows] rows of kWords that lie kStride words apart.
/// What lies outside the weight becomes zero.
template <int kPanels, int kRows, int kWords, int kStride>
__device__ __forceinline__ void copy_panels(const PanelsView& v, int64_t panel, int64_t row,
                                            int word, uint32_t* to) {
  constexpr int kPieces = kWords / 4;
  constexpr int kCopies = kPanels * kRows * kPieces;
  static_assert(kCopies % kProductThreads == 0);
#pragma unroll
  for (int i = 0; i < kCopies / kProductThreads; ++i) {
    const int at = i * kProductThreads + static_cast<int>(threadIdx.x);
    const int piece = at % kPieces * 4;
    const int line = at / kPieces;
    const int64_t from_panel = panel + line / kRows;
    const int64_t from_row = row + line % kRows;
    const bool inside = from_panel < v.panels && from_row < v.rows;
    const uint32_t* from =
        inside ? v.p + (from_panel * v.rows + from_row) * kPanelWords + word + piece : v.p;
    async_copy16(to + line * kStride + piece, from, inside ? 16 : 0);
  }
}

/// Where a product goes: rows of y or of dx.
struct RowsOut {
  float* p;
  int64_t stride;
  int64_t rows;
  int64_t columns;
  const float* bias;  // [columns] or null.
  bool add;           // To what is there.
  bool aligned;

  /// The value of an element after its first chunk; later chunks are added to it.
  __device__ __forceinline__ float first(int64_t row, int64_t column, float sum) const {
    if (bias != nullptr && column < columns) sum += bias[column];
    if (add && row < rows && column < columns) sum = p[row * stride + column] + sum;
    return sum;
  }
};

/// A weight's gradient in panels.
struct WeightOut {
  float* p;
  int64_t n;
  int64_t k;
  int64_t depth;  // panel_depth(k)

  __device__ __forceinline__ float* at(int64_t row, int64_t step) const {
    return p + (row / kPanel * depth + step) * kPanel + row % kPanel;
  }
  __device__ __forceinline__ bool has(int64_t row, int64_t step) const {
    return row < n && step < k;
  }
};

/// Runs `consume(tile number, a, b)` over the tiles of kSteps of `depth` steps while the next one
/// arrives. Shared memory: two tiles of each operand, in Words.
template <class Word, int kSteps, class A, class B, class Consume>
__device__ __forceinline__ void tile_pipeline(const A& a, const B& b, int64_t row, int64_t column,
                                              int64_t depth, const Consume& consume) {
  SharedArena arena;
  auto* tiles_a = arena.take<Word>(2 * A::kWords);
  auto* tiles_b = arena.take<Word>(2 * B::kWords);
  typename A::Staged staged_a;
  typename B::Staged staged_b;
  const auto bring = [&](int64_t tile) {
    a.fetch(row, tile * kSteps, staged_a);
    b.fetch(column, tile * kSteps, tiles_b + tile % 2 * B::kWords, staged_b);
    async_commit();
  };
  const auto place = [&](int64_t tile) {
    a.place(staged_a, tiles_a + tile % 2 * A::kWords);
    b.place(staged_b, tiles_b + tile % 2 * B::kWords);
    async_wait<0>();
    __syncthreads();
  };
  const int64_t tiles = (depth + kSteps - 1) / kSteps;
  bring(0);
  place(0);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const bool more = tile + 1 < tiles;
    if (more) bring(tile + 1);
    consume(tile, tiles_a + tile % 2 * A::kWords, tiles_b + tile % 2 * B::kWords);
    if (more) place(tile + 1);
  }
}
template <class Word, class A, class B>
constexpr size_t tile_shared() {
  return shared_bytes<Word>(2 * A::kWords) + shared_bytes<Word>(2 * B::kWords);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
