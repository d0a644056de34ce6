// Register-tiled multiply kernels, compiled once for each instruction set (no include guard of the
// usual kind: Highway includes this file again for every target).
#if defined(TEMPER_KERNELS_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_GEMM_INL_H_
#undef TEMPER_KERNELS_GEMM_INL_H_
#else
#define TEMPER_KERNELS_GEMM_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "cpu/tile_types.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;

#if HWY_TARGET == HWY_SCALAR
inline constexpr int kLanes = 1;
#else
inline constexpr int kLanes = HWY_MIN(HWY_MAX_BYTES / 4, 16);
#endif
/// Columns that one tile covers, and the most rows it may have, so that accumulators, one row of B
/// and a broadcast fit the registers (32 with AVX-512, 16 before).
inline constexpr int kTileColumns = kLanes >= 16 ? 32 : 2 * kLanes;
inline constexpr int kTileRows = kLanes >= 16 ? 12 : 6;

/// B as fp32 rows of 32: element (k, column) at p + k * 32 + column.
struct BFloat {
  const float* p;
  HWY_INLINE BFloat at(int64_t k) const { return {p + k * 32}; }
  /// Columns from `column` on at k + kOdd, where k is even.
  template <int kOdd>
  HWY_INLINE VF load(int64_t k, int column) const {
    return hn::LoadU(DF(), p + (k + kOdd) * 32 + column);
  }
};

/// B as bf16 panel rows: see PackedWeight.
struct BBf16 {
  const uint16_t* p;
  HWY_INLINE BBf16 at(int64_t k) const { return {p + k * 32}; }  // k even.
  template <int kOdd>
  HWY_INLINE VF load(int64_t k, int column) const {
    const hn::RebindToUnsigned<DF> du;
    const auto u = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p) + k * 16 + column);
    return hn::BitCast(DF(), kOdd ? hn::And(u, hn::Set(du, 0xffff0000u)) : hn::ShiftLeft<16>(u));
  }
};

/// The half-precision number in the low 16 bits of each lane, exactly.
HWY_INLINE VF widen_half(hn::Vec<hn::RebindToUnsigned<DF>> bits) {
  const DF d;
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2) || HWY_TARGET == HWY_NEON
  const hn::Rebind<uint16_t, DF> narrow;
  const hn::Rebind<hwy::float16_t, DF> half;
  return hn::PromoteTo(d, hn::BitCast(half, hn::TruncateTo(narrow, bits)));
#else
  // No instruction. A half's bits at a float's place are its value times 2^-112, infinity and NaN
  // excepted, which have an exponent of their own.
  const hn::RebindToUnsigned<DF> du;
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
  const VF tiny = hn::BitCast(d, magnitude);
  const VF other = hn::BitCast(d, hn::Or(magnitude, hn::Set(du, 0x7f800000u)));
  const VF infinity = hn::BitCast(d, hn::Set(du, 0x0f800000u));
  const VF widened =
      hn::IfThenElse(hn::Lt(tiny, infinity), hn::Mul(tiny, hn::Set(d, 0x1p112f)), other);
  return hn::Or(widened, hn::BitCast(d, hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)))));
#endif
}

/// B as half-precision panel rows.
struct BHalf {
  const uint16_t* p;
  HWY_INLINE BHalf at(int64_t k) const { return {p + k * 32}; }  // k even.
  template <int kOdd>
  HWY_INLINE VF load(int64_t k, int column) const {
    const hn::RebindToUnsigned<DF> du;
    const auto u = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p) + k * 16 + column);
    return widen_half(kOdd ? hn::ShiftRight<16>(u) : u);
  }
};

/// B as rows of 32 bytes, whole numbers without their scale.
struct BInt8 {
  const int8_t* p;
  HWY_INLINE BInt8 at(int64_t k) const { return {p + k * 32}; }
  template <int kOdd>
  HWY_INLINE VF load(int64_t k, int column) const {
    const hn::Rebind<int8_t, DF> narrow;
    const hn::Rebind<int32_t, DF> wide;
    const auto bytes = hn::LoadU(narrow, p + (k + kOdd) * 32 + column);
    return hn::ConvertTo(DF(), hn::PromoteTo(wide, bytes));
  }
};

/// A as element (row, k) at p + row * row_stride + k * k_stride.
struct AMatrix {
  const float* p;
  int64_t row_stride;
  int64_t k_stride;
};

/// One k of a tile: every accumulator takes one product.
template <int MR, int NP, int NV, int kOdd, class B>
HWY_INLINE void tile_step(const AMatrix& a, const B* b, int column, int64_t k,
                          VF (&acc)[MR][NP * NV]) {
  const DF d;
  VF bv[NP * NV];
  TEMPER_UNROLL
  for (int q = 0; q < NP; ++q) {
    TEMPER_UNROLL
    for (int v = 0; v < NV; ++v) bv[q * NV + v] = b[q].template load<kOdd>(k, column + v * kLanes);
  }
  const float* ak = a.p + (k + kOdd) * a.k_stride;
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    const VF x = hn::Set(d, ak[i * a.row_stride]);
    TEMPER_UNROLL
    for (int v = 0; v < NP * NV; ++v) acc[i][v] = hn::MulAdd(x, bv[v], acc[i][v]);
  }
}

/// C[MR, NV * kLanes] from one fma chain over k in [0, depth) for each element.
/// Column v * kLanes of the tile is column `column + v * kLanes` of its panel; for several panels
/// (NP > 1) panel q starts at b[q].
template <int MR, int NP, int NV, class B>
HWY_INLINE void tile(const AMatrix& a, const B* b, int column, int64_t depth, const TileOut& out) {
  const DF d;
  VF acc[MR][NP * NV];
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    TEMPER_UNROLL
    for (int v = 0; v < NP * NV; ++v) {
      acc[i][v] = out.start == Start::kZero ? hn::Zero(d)
                                            : hn::LoadU(d, out.c + i * out.stride + v * kLanes);
    }
  }
  int64_t k = 0;
  for (; k + 2 <= depth; k += 2) {  // In pairs, so that a word of two is loaded once for both.
    tile_step<MR, NP, NV, 0>(a, b, column, k, acc);
    tile_step<MR, NP, NV, 1>(a, b, column, k, acc);
  }
  if (k < depth) tile_step<MR, NP, NV, 0>(a, b, column, k, acc);
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    TEMPER_UNROLL
    for (int v = 0; v < NP * NV; ++v) {
      float* c = out.c + i * out.stride + v * kLanes;
      VF r = acc[i][v];
      if (out.bias != nullptr) r = hn::Add(r, hn::LoadU(d, out.bias + v * kLanes));
      if (out.finish == Finish::kAdd) r = hn::Add(hn::LoadU(d, c), r);
      hn::StoreU(r, d, c);
    }
  }
}

/// `tile` for a row count known at run time, 1 to MaxRows.
template <int MaxRows, int NP, int NV, class B>
HWY_INLINE void tile_rows(int64_t rows, const AMatrix& a, const B* b, int column, int64_t depth,
                          const TileOut& out) {
  if constexpr (MaxRows >= 1) {
    if (rows == MaxRows) {
      tile<MaxRows, NP, NV>(a, b, column, depth, out);
    } else {
      tile_rows<MaxRows - 1, NP, NV>(rows, a, b, column, depth, out);
    }
  }
}

/// All rows of one panel: C[rows, 32].
template <class B>
HWY_INLINE void panel_rows(int64_t rows, const AMatrix& a, const B& b, int64_t depth,
                           const TileOut& out) {
  constexpr int kVectors = kTileColumns / kLanes;
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int64_t count = HWY_MIN(rows - r, int64_t{kTileRows});
    const AMatrix ar{a.p + r * a.row_stride, a.row_stride, a.k_stride};
    for (int column = 0; column < 32; column += kTileColumns) {
      const TileOut o{out.c + r * out.stride + column, out.stride, out.start, out.finish,
                      out.bias == nullptr ? nullptr : out.bias + column};
      tile_rows<kTileRows, 1, kVectors>(count, ar, &b, column, depth, o);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
