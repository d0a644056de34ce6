// Products over int8 panels: a chunk's sums over the whole numbers, then its scales. Many rows share
// a widened copy and the tiles of float32 weights; few rows widen in registers.
#if defined(TEMPER_KERNELS_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_INT8_INL_H_
#undef TEMPER_KERNELS_INT8_INL_H_
#else
#define TEMPER_KERNELS_INT8_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "cpu/operands-inl.h"
#include "temper/kernels/linear.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// `count` bytes, a multiple of 32, in float32.
HWY_INLINE void widen_bytes(const int8_t* from, int64_t count, float* to) {
  const DF d;
  const hn::Rebind<int8_t, DF> narrow;
  const hn::Rebind<int32_t, DF> wide;
  for (int64_t i = 0; i < count; i += kLanes) {
    hn::StoreU(hn::ConvertTo(d, hn::PromoteTo(wide, hn::LoadU(narrow, from + i))), d, to + i);
  }
}

/// C = or += scale * sums (+ bias): `columns` columns of a chunk's sums, [rows][columns].
HWY_INLINE void scale_sums(const float* sums, const float* scales, int64_t rows, int64_t columns,
                           const TileOut& out) {
  const DF d;
  for (int64_t r = 0; r < rows; ++r) {
    float* c = out.c + r * out.stride;
    for (int64_t i = 0; i < columns; i += kLanes) {
      VF v = hn::Mul(hn::LoadU(d, sums + r * columns + i), hn::LoadU(d, scales + i));
      if (out.bias != nullptr) v = hn::Add(v, hn::LoadU(d, out.bias + i));
      if (out.finish == Finish::kAdd) v = hn::Add(hn::LoadU(d, c + i), v);
      hn::StoreU(v, d, c + i);
    }
  }
}

/// float32 activations and int8 panels, by fused multiply-adds of the whole numbers.
struct Int8Operands {
  static constexpr int64_t kChunk = kScaleChunk;
  AMatrix a;
  const int8_t* panels;
  const float* scales;
  int64_t panel_stride;
  int64_t scale_stride;  // Between chunks.

  /// Steps [k, k + depth): one chunk, from zero.
  void run(const Region& at, int64_t k, int64_t depth, const TileOut& out) const {
    const int8_t* from = panels + at.panel * panel_stride + k * kPanel;
    const AMatrix ak{a.p + at.row * a.row_stride + k * a.k_stride, a.row_stride, a.k_stride};
    if (at.rows <= kTileRows) {  // Too few to pay for a widened copy.
      return scaled(FmaOperands<BInt8>{ak, {from}, panel_stride}, at, k, depth, out);
    }
    alignas(64) float wide[kChunk * kPanel];  // One panel: only few rows take several.
    widen_bytes(from, depth * kPanel, wide);
    scaled(FmaOperands<BFloat>{ak, {wide}, 0}, at, k, depth, out);
  }

 private:
  /// The chunk's sums by `product`, which begins at the region's rows, panels and step.
  template <class Sums>
  void scaled(const Sums& product, const Region& at, int64_t k, int64_t depth,
              const TileOut& out) const {
    constexpr int64_t kRows = 4 * kTileRows;  // Their sums stay in the L1 cache.
    alignas(64) float sums[kRows * 4 * kPanel];
    const float* chunk_scales = scales + k / kChunk * scale_stride + at.panel * kPanel;
    const int64_t columns = at.panels * kPanel;
    for (int64_t r = 0; r < at.rows; r += kRows) {
      const int64_t rows = std::min(kRows, at.rows - r);
      product.run({r, rows, 0, at.panels}, 0, depth,
                  {sums, columns, Start::kZero, Finish::kStore, nullptr});
      scale_sums(sums, chunk_scales, rows, columns,
                 {out.c + r * out.stride, out.stride, out.start, out.finish, out.bias});
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
