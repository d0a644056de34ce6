// The two contracts of a product behind one face, so that the loops over panels are written once.
#if defined(TEMPER_KERNELS_OPERANDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_OPERANDS_INL_H_
#undef TEMPER_KERNELS_OPERANDS_INL_H_
#else
#define TEMPER_KERNELS_OPERANDS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "cpu/dot-inl.h"
#include "cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

#ifdef TEMPER_FREE_ORDER  // Only the benchmark of what a fixed order costs asks for this.
inline constexpr int64_t kFmaChunk = 4096, kDotChunk = 4096;
#else
/// Products of this many steps are summed from zero before their sum is added to the output: the
/// rounding error grows with the chunk, not with the depth. Part of the exactness contract. Dots can
/// afford longer ones, since their operands' rounding outweighs the sum's, and need them, since a
/// chunk's products take half the time that they take by fma.
inline constexpr int64_t kFmaChunk = 256;
inline constexpr int64_t kDotChunk = 512;
#endif

/// Rows and neighbouring panels that a run covers: 1 panel; 2 for at most 6 rows; 4 for at most 3.
struct Region {
  int64_t row;
  int64_t rows;
  int64_t panel;
  int panels;
};

/// float32 activations and float32 or widened 16-bit panels, by fused multiply-adds.
template <class B>
struct FmaOperands {
  static constexpr int64_t kChunk = kFmaChunk;
  AMatrix a;
  B b;                   // First panel.
  int64_t panel_stride;  // In elements of B.

  /// Steps [k, k + depth).
  void run(const Region& at, int64_t k, int64_t depth, const TileOut& out) const {
    const AMatrix ar{a.p + at.row * a.row_stride + k * a.k_stride, a.row_stride, a.k_stride};
    B bk[4];
    for (int q = 0; q < at.panels; ++q) bk[q] = B{b.p + (at.panel + q) * panel_stride}.at(k);
    constexpr int kVectors = kTileColumns / kLanes;
    if constexpr (kTileColumns == 32) {
      if (at.panels == 4) return tile_rows<3, 4, kVectors>(at.rows, ar, bk, 0, depth, out);
      if (at.panels == 2) return tile_rows<6, 2, kVectors>(at.rows, ar, bk, 0, depth, out);
    }
    panel_rows(at.rows, ar, bk[0], depth, out);
  }
};

/// bf16 words on both sides, by pairwise dots.
struct DotOperands {
  static constexpr int64_t kChunk = kDotChunk;
  DotKernels kernels;
  const uint32_t* a;
  int64_t row_stride;
  int64_t pair_stride;
  const uint32_t* b;
  int64_t panel_stride;

  void run(const Region& at, int64_t k, int64_t depth, const TileOut& out) const {
    kernels.block({a + at.row * row_stride + k / 2 * pair_stride, row_stride, pair_stride,
                   b + at.panel * panel_stride + k / 2 * 32, panel_stride, (depth + 1) / 2, at.rows,
                   at.panels},
                  out);
  }
};

/// All chunks of a region.
template <class Operands>
void chunked(const Operands& o, const Region& at, int64_t depth, const TileOut& out) {
  TileOut chunk = out;
  for (int64_t k = 0; k < depth; k += Operands::kChunk) {
    o.run(at, k, std::min(Operands::kChunk, depth - k), chunk);
    chunk.finish = Finish::kAdd;
    chunk.bias = nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
