// Pairwise bf16 dots by fused multiply-adds, for CPUs without the instruction: the same bits, since
// a product of two bf16 is exact in float32. And the packing that both kinds read.
#if defined(TEMPER_KERNELS_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_DOT_INL_H_
#undef TEMPER_KERNELS_DOT_INL_H_
#else
#define TEMPER_KERNELS_DOT_INL_H_
#endif

#include <cstdint>
#include <vector>

#include "cpu/dot_avx512bf16.h"
#include "cpu/gemm-inl.h"
#include "cpu/workspace.h"
#include "temper/core/threads.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

using DU = hn::RebindToUnsigned<DF>;
using VU = hn::Vec<DU>;

/// C[MR, kTileColumns] at column `column` of a panel.
template <int MR>
HWY_INLINE void dot_tile(const DotBlock& g, int64_t row, int column, const TileOut& out) {
  constexpr int kVectors = kTileColumns / kLanes;
  const DF d;
  const DU du;
  VF acc[MR][kVectors];
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    TEMPER_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      acc[i][v] = out.start == Start::kZero
                      ? hn::Zero(d)
                      : hn::LoadU(d, out.c + (row + i) * out.stride + column + v * kLanes);
    }
  }
  const VU mask = hn::Set(du, 0xffff0000u);
  for (int64_t p = 0; p < g.pairs; ++p) {
    const uint32_t* a = g.a + row * g.row_stride + p * g.pair_stride;
    VU b[kVectors];
    TEMPER_UNROLL
    for (int v = 0; v < kVectors; ++v) b[v] = hn::LoadU(du, g.b + p * 32 + column + v * kLanes);
    TEMPER_UNROLL
    for (int i = 0; i < MR; ++i) {
      const VU x = hn::Set(du, a[i * g.row_stride]);
      const VF high = hn::BitCast(d, hn::And(x, mask));
      const VF low = hn::BitCast(d, hn::ShiftLeft<16>(x));
      TEMPER_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        acc[i][v] = hn::MulAdd(high, hn::BitCast(d, hn::And(b[v], mask)), acc[i][v]);
        acc[i][v] = hn::MulAdd(low, hn::BitCast(d, hn::ShiftLeft<16>(b[v])), acc[i][v]);
      }
    }
  }
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    TEMPER_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* c = out.c + (row + i) * out.stride + column + v * kLanes;
      VF r = acc[i][v];
      if (out.bias != nullptr) r = hn::Add(r, hn::LoadU(d, out.bias + column + v * kLanes));
      if (out.finish == Finish::kAdd) r = hn::Add(hn::LoadU(d, c), r);
      hn::StoreU(r, d, c);
    }
  }
}

/// Any number of rows and panels, four rows at a time (four leave registers for the widened words).
inline void dot_block_by_fma(const DotBlock& g, const TileOut& out) {
  for (int q = 0; q < g.panels; ++q) {
    DotBlock one = g;
    one.b = g.b + q * g.panel_stride;
    TileOut to = out;
    to.c = out.c + q * 32;
    if (out.bias != nullptr) to.bias = out.bias + q * 32;
    for (int column = 0; column < 32; column += kTileColumns) {
      int64_t r = 0;
      for (; r + 4 <= g.rows; r += 4) dot_tile<4>(one, r, column, to);
      for (; r < g.rows; ++r) dot_tile<1>(one, r, column, to);
    }
  }
}

/// 32 output rows of one panel and 16 pairs of k (`k_pairs` of them exist, the rest become zero)
/// from words {k, k + 1} of an output row to words {n, n + 1} of a k: [16 pairs of n][32 k].
inline void transpose_panel_by_words(const uint32_t* panel, int64_t k_pairs, uint32_t* out) {
  for (int64_t n = 0; n < 16; ++n) {
    for (int64_t k = 0; k < 16; ++k) {
      const uint32_t even = k < k_pairs ? panel[k * 32 + 2 * n] : 0;
      const uint32_t odd = k < k_pairs ? panel[k * 32 + 2 * n + 1] : 0;
      out[n * 32 + 2 * k] = (even & 0xffffu) | (odd << 16);
      out[n * 32 + 2 * k + 1] = (even >> 16) | (odd & 0xffff0000u);
    }
  }
}

/// float32 to the upper half of a word, nearest even, as vcvtneps2bf16 does it: NaN stays quiet,
/// denormal numbers become zero (the dot instruction would take them for zero too).
HWY_INLINE VU round_to_bf16(VF x) {
  const DF d;
  const DU du;
  const VU u = hn::BitCast(du, x);
  const VU odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  VU r = hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fffu)));
  const VU sign = hn::And(u, hn::Set(du, 0x80000000u));
  const auto tiny = hn::Lt(hn::Abs(x), hn::Set(d, 0x1p-126f));
  r = hn::IfThenElse(hn::RebindMask(du, tiny), sign, r);
  const auto nan = hn::Ne(x, x);
  r = hn::IfThenElse(hn::RebindMask(du, nan), hn::Or(u, hn::Set(du, 0x00400000u)), r);
  return hn::And(r, hn::Set(du, 0xffff0000u));
}

/// Words {low, high} of two rows of floats: 2 n elements into n words.
HWY_INLINE void pair_rows(const float* low, const float* high, int64_t n, uint32_t* out) {
  const DF d;
  const DU du;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VU lo = hn::ShiftRight<16>(round_to_bf16(hn::LoadU(d, low + i)));
    hn::StoreU(hn::Or(lo, round_to_bf16(hn::LoadU(d, high + i))), du, out + i);
  }
  if (i == n) return;
  float tail[2][16] = {};
  uint32_t words[16];
  for (int64_t j = i; j < n; ++j) {
    tail[0][j - i] = low[j];
    tail[1][j - i] = high[j];
  }
  const VU lo = hn::ShiftRight<16>(round_to_bf16(hn::LoadU(d, tail[0])));
  hn::StoreU(hn::Or(lo, round_to_bf16(hn::LoadU(d, tail[1]))), du, words);
  for (int64_t j = i; j < n; ++j) out[j] = words[j - i];
}

/// One row of n floats as (n + 1) / 2 words of neighbours; the high half of an odd end is zero.
HWY_INLINE void pack_row(const float* x, int64_t n, uint32_t* out) {
  const DF d;
  const DU du;
  auto* halves = reinterpret_cast<uint16_t*>(out);
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Rebind<uint16_t, DF> dh;
  for (; i + kLanes <= n; i += kLanes) {
    const VU u = hn::ShiftRight<16>(round_to_bf16(hn::LoadU(d, x + i)));
    hn::StoreU(hn::DemoteTo(dh, hn::BitCast(hn::RebindToSigned<DU>(), u)), dh, halves + i);
  }
#endif
  for (; i < n; ++i) {
    uint32_t word[16];
    hn::StoreU(round_to_bf16(hn::Set(d, x[i])), du, word);
    halves[i] = static_cast<uint16_t>(word[0] >> 16);
  }
  if (n % 2 != 0) halves[n] = 0;
}

/// Rows of words in a workspace of the calling thread, valid until its next packing.
struct PackedRows {
  const uint32_t* words;
  int64_t stride;  // In words.
};

/// Words a row: a whole number of cache lines, odd, so that rows do not fall on the same cache sets.
constexpr int64_t word_stride(int64_t words) { return ((words + 15) / 16 | 1) * 16; }

/// x[rows, n] as words of neighbouring columns.
inline PackedRows pack_rows_to_words(const float* x, int64_t x_stride, int64_t rows, int64_t n) {
  const int64_t stride = word_stride((n + 1) / 2);
  uint32_t* words = word_workspace(static_cast<size_t>(rows * stride));
  parallel_for(rows, HWY_MAX(int64_t{1}, 16384 / HWY_MAX(n, int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   pack_row(x + r * x_stride, n, words + r * stride);
                 }
               });
  return {words, stride};
}

/// x[rows, n] as words of neighbouring rows: [(rows + 1) / 2][n], an odd last row beside zeros.
inline PackedRows pair_rows_to_words(const float* x, int64_t x_stride, int64_t rows, int64_t n) {
  const int64_t stride = word_stride(n);
  const int64_t pairs = (rows + 1) / 2;
  uint32_t* words = word_workspace(static_cast<size_t>(pairs * stride));
  const std::vector<float> zeros(static_cast<size_t>(rows % 2 == 0 ? 0 : n));
  parallel_for(pairs, HWY_MAX(int64_t{1}, 8192 / HWY_MAX(n, int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin; p < end; ++p) {
                   const float* low = x + 2 * p * x_stride;
                   pair_rows(low, 2 * p + 1 < rows ? low + x_stride : zeros.data(), n,
                             words + p * stride);
                 }
               });
  return {words, stride};
}

/// The kernels for this target: AVX-512 takes the instruction where the CPU has it.
HWY_INLINE DotKernels dot_kernels() {
#if HWY_TARGET == HWY_AVX3
  if (const DotKernels* k = dot_avx512bf16()) return *k;
#endif
  return {dot_block_by_fma, transpose_panel_by_words};
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
