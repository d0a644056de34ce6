// Products over quantized blocks: a weight is widened exactly on its way to the float32 chains, by
// few rows in registers and by many into a copy that they share.
#if defined(TEMPER_KERNELS_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_BLOCKS_INL_H_
#undef TEMPER_KERNELS_BLOCKS_INL_H_
#else
#define TEMPER_KERNELS_BLOCKS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "cpu/operands-inl.h"
#include "temper/kernels/linear.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Whole blocks that a chunk has.
inline constexpr int64_t kChunkBlocks = kScaleChunk / kBlock;

/// Scales and minimums of a panel's chunk in float32.
struct BlockScales {
  alignas(64) float scales[kChunkBlocks * kPanel];
  alignas(64) float minimums[kChunkBlocks * kPanel];
};

/// `count` halves, a multiple of 32, in float32.
HWY_INLINE void widen_halves(const uint16_t* from, int64_t count, float* to) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const hn::Rebind<uint16_t, DF> narrow;
  for (int64_t i = 0; i < count; i += kLanes) {
    hn::StoreU(widen_half(hn::PromoteTo(du, hn::LoadU(narrow, from + i))), d, to + i);
  }
}

/// Those of steps [k, k + depth), where k begins a block, of at most a chunk.
HWY_INLINE void widen_scales(const PackedWeight& w, int64_t panel, int64_t k, int64_t depth,
                             BlockScales& out) {
  const int64_t first = (panel * ((w.k + kBlock - 1) / kBlock) + k / kBlock) * kPanel;
  const int64_t count = (depth + kBlock - 1) / kBlock * kPanel;
  widen_halves(w.block_scales + first, count, out.scales);
  if (w.block_minimums != nullptr)
    return widen_halves(w.block_minimums + first, count, out.minimums);
  const float implied = w.codes4 != nullptr ? -8.0f : 0.0f;
  for (int64_t i = 0; i < count; ++i) out.minimums[i] = implied * out.scales[i];
}

/// The weight of a code: exact but for the sum's rounding, fused or not.
HWY_INLINE VF block_weight(VF code, const BlockScales* s, int64_t k, int column) {
  const DF d;
  const int64_t at = k / kBlock * kPanel + column;
  return hn::MulAdd(code, hn::Load(d, s->scales + at), hn::Load(d, s->minimums + at));
}

/// B as rows of 32 codes, two steps a byte.
struct BBlocks4 {
  const uint8_t* p;
  const BlockScales* s;
  template <int kOdd>
  HWY_INLINE VF load(int64_t k, int column) const {  // k even.
    const hn::RebindToUnsigned<DF> du;
    const hn::RebindToSigned<DF> di;
    const hn::Rebind<uint8_t, DF> narrow;
    const auto pair = hn::PromoteTo(du, hn::LoadU(narrow, p + k / 2 * kPanel + column));
    const auto code = kOdd ? hn::ShiftRight<4>(pair) : hn::And(pair, hn::Set(du, 15u));
    return block_weight(hn::ConvertTo(DF(), hn::BitCast(di, code)), s, k, column);
  }
};

/// B as rows of 32 codes of a byte.
struct BBlocks8 {
  const int8_t* p;
  const BlockScales* s;
  template <int kOdd>
  HWY_INLINE VF load(int64_t k, int column) const {
    return block_weight(BInt8{p}.load<kOdd>(k, column), s, k, column);
  }
};

/// The panel's codes from step k on, which begins a block.
HWY_INLINE BBlocks4 codes_at(const PackedWeight& w, const uint8_t* codes, int64_t panel, int64_t k,
                             const BlockScales* s) {
  return {codes + (panel * panel_depth(w.k) + k) / 2 * kPanel, s};
}
HWY_INLINE BBlocks8 codes_at(const PackedWeight& w, const int8_t* codes, int64_t panel, int64_t k,
                             const BlockScales* s) {
  return {codes + (panel * panel_depth(w.k) + k) * kPanel, s};
}

/// Steps [k, k + depth) of a panel in float32, rounded up to pairs; at most a chunk, k begins a
/// block.
template <class Code>
void widen_blocks(const PackedWeight& w, const Code* codes, int64_t panel, int64_t k, int64_t depth,
                  float* out) {
  BlockScales s;
  widen_scales(w, panel, k, depth, s);
  const auto b = codes_at(w, codes, panel, k, &s);
  for (int64_t i = 0; i < depth; i += 2) {
    for (int c = 0; c < kPanel; c += kLanes) {
      hn::StoreU(b.template load<0>(i, c), DF(), out + i * kPanel + c);
      hn::StoreU(b.template load<1>(i, c), DF(), out + (i + 1) * kPanel + c);
    }
  }
}

/// float32 activations and codes of a type, by fused multiply-adds.
template <class Code>
struct BlockOperands {
  static constexpr int64_t kChunk = kScaleChunk;
  AMatrix a;
  PackedWeight w;
  const Code* codes;

  /// Steps [k, k + depth): one chunk, from zero.
  void run(const Region& at, int64_t k, int64_t depth, const TileOut& out) const {
    const AMatrix ak{a.p + at.row * a.row_stride + k * a.k_stride, a.row_stride, a.k_stride};
    if (at.rows > kTileRows) {  // Enough to pay for a widened copy; they take one panel at a time.
      alignas(64) float wide[kChunk * kPanel];
      widen_blocks(w, codes, at.panel, k, depth, wide);
      return panel_rows(at.rows, ak, BFloat{wide}, depth, out);
    }
    BlockScales s[4];
    decltype(codes_at(w, codes, 0, 0, s)) b[4];
    for (int q = 0; q < at.panels; ++q) {
      widen_scales(w, at.panel + q, k, depth, s[q]);
      b[q] = codes_at(w, codes, at.panel + q, k, s + q);
    }
    constexpr int kVectors = kTileColumns / kLanes;
    if constexpr (kTileColumns == 32) {
      if (at.panels == 4) return tile_rows<3, 4, kVectors>(at.rows, ak, b, 0, depth, out);
      if (at.panels == 2) return tile_rows<6, 2, kVectors>(at.rows, ak, b, 0, depth, out);
    }
    panel_rows(at.rows, ak, b[0], depth, out);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
