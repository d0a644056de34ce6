// The two products of attention on register tiles, and the packing they read. Included again by
// Highway for every target.
#if defined(TEMPER_KERNELS_ATTENTION_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_ATTENTION_TILES_INL_H_
#undef TEMPER_KERNELS_ATTENTION_TILES_INL_H_
#else
#define TEMPER_KERNELS_ATTENTION_TILES_INL_H_
#endif

#include <hwy/highway.h>

#include "cpu/lanes16-inl.h"
#include "cpu/tree_attention_plan.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// A tile of 6 rows by up to kTileVectors * 16 columns keeps its sums in registers (32 of them with
/// AVX-512, 16 before). Its shape does not change bits: every element is one chain.
inline constexpr int kAttentionRows = 6;
inline constexpr int kTileVectors = kParts == 1 ? 4 : 1;

inline int64_t padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

#if HWY_TARGET != HWY_SCALAR
/// Four floats from each of kPartLanes / 4 rows, one row a 128-bit block.
HWY_INLINE V16 load_blocks(const float* const* rows, int64_t offset) {
  const hn::FixedTag<float, 4> d4;
#if HWY_MAX_BYTES >= 64
  const hn::FixedTag<float, 8> d8;
  const auto low =
      hn::Combine(d8, hn::LoadU(d4, rows[4] + offset), hn::LoadU(d4, rows[0] + offset));
  const auto high =
      hn::Combine(d8, hn::LoadU(d4, rows[12] + offset), hn::LoadU(d4, rows[8] + offset));
  return hn::Combine(D16(), high, low);
#elif HWY_MAX_BYTES == 32
  return hn::Combine(D16(), hn::LoadU(d4, rows[4] + offset), hn::LoadU(d4, rows[0] + offset));
#else
  return hn::LoadU(d4, rows[0] + offset);
#endif
}

/// Columns [offset, offset + 4) of kPartLanes rows to out[column * kKeyBlock + row].
HWY_INLINE void transpose_part(const float* const* rows, int64_t offset, float* out) {
  const D16 d;
  const hn::RepartitionToWide<hn::RebindToUnsigned<D16>> d64;
  const V16 v0 = load_blocks(rows + 0, offset), v1 = load_blocks(rows + 1, offset);
  const V16 v2 = load_blocks(rows + 2, offset), v3 = load_blocks(rows + 3, offset);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, v0, v1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, v2, v3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, v0, v1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, v2, v3));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)), d, out);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)), d, out + kKeyBlock);
  hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)), d, out + 2 * kKeyBlock);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23)), d, out + 3 * kKeyBlock);
}
#endif

/// Packs `count` rows of one head to out[d * kKeyBlock + row], zeros up to a multiple of 16 rows.
inline void pack_transposed(const float* const* rows, int64_t count, int64_t head_dim, float* out) {
  static const float zeros[256] = {};
  const float* padded_rows[kKeyBlock];
  const int64_t whole = (count + 15) / 16 * 16;
  for (int64_t i = 0; i < whole; ++i) padded_rows[i] = i < count ? rows[i] : zeros;
#if HWY_TARGET == HWY_SCALAR
  for (int64_t d = 0; d < head_dim; ++d) {
    for (int64_t i = 0; i < whole; ++i) out[d * kKeyBlock + i] = padded_rows[i][d];
  }
#else
  for (int64_t i = 0; i < whole; i += kPartLanes) {
    for (int64_t d = 0; d < head_dim; d += 4) {
      transpose_part(padded_rows + i, d, out + d * kKeyBlock + i);
    }
  }
#endif
}

/// Row pointers that may be read in whole runs of 16: the rows themselves, or zero-padded copies.
inline void pad_rows(const float** rows, int64_t count, int64_t head_dim, float* copies) {
  if (head_dim % 16 == 0) return;
  const int64_t width = padded(head_dim);
  for (int64_t i = 0; i < count; ++i) {
    float* copy = copies + i * width;
    std::copy_n(rows[i], head_dim, copy);
    std::fill(copy + head_dim, copy + width, 0.0f);
    rows[i] = copy;
  }
}

/// scores[r * kKeyBlock + j] = q_r . key_j: one chain over ascending d.
template <int R, int NV>
HWY_INLINE void score_columns(const float* const* q, const float* packed, int64_t head_dim,
                              float* scores) {
  const float* rows[R];
  F16 sum[R][NV];
  TEMPER_UNROLL
  for (int r = 0; r < R; ++r) {
    rows[r] = q[r];
    TEMPER_UNROLL
    for (int n = 0; n < NV; ++n) sum[r][n] = set16(0.0f);
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    F16 key[NV];
    TEMPER_UNROLL
    for (int n = 0; n < NV; ++n) key[n] = load16(packed + d * kKeyBlock + n * 16);
    TEMPER_UNROLL
    for (int r = 0; r < R; ++r) {
      const F16 x = set16(rows[r][d]);
      TEMPER_UNROLL
      for (int n = 0; n < NV; ++n) sum[r][n] = fma16(x, key[n], sum[r][n]);
    }
  }
  TEMPER_UNROLL
  for (int r = 0; r < R; ++r) {
    TEMPER_UNROLL
    for (int n = 0; n < NV; ++n) store16(sum[r][n], scores + r * kKeyBlock + n * 16);
  }
}

/// Scores of R queries for the keys [0, keys) of a packed block.
template <int R>
void score_rows(const float* const* q, const float* packed, int64_t head_dim, int64_t keys,
                float* scores) {
  int64_t j = 0;
  if constexpr (kTileVectors == 4) {
    for (; j + 48 < keys; j += 64) score_columns<R, 4>(q, packed + j, head_dim, scores + j);
    for (; j + 16 < keys; j += 32) score_columns<R, 2>(q, packed + j, head_dim, scores + j);
  }
  for (; j < keys; j += 16) score_columns<R, 1>(q, packed + j, head_dim, scores + j);
}

inline void score_tile(int rows, const float* const* q, const float* packed, int64_t head_dim,
                       int64_t keys, float* scores) {
  switch (rows) {
    case 1: return score_rows<1>(q, packed, head_dim, keys, scores);
    case 2: return score_rows<2>(q, packed, head_dim, keys, scores);
    case 3: return score_rows<3>(q, packed, head_dim, keys, scores);
    case 4: return score_rows<4>(q, packed, head_dim, keys, scores);
    case 5: return score_rows<5>(q, packed, head_dim, keys, scores);
    default: return score_rows<6>(q, packed, head_dim, keys, scores);
  }
}

/// c[i][:] += sum over k of a(i, k) b[k][:], one chain over ascending k, from c on.
struct Product {
  float* c;
  int64_t c_stride;
  const float* a;  // a(i, k) = a[i * a_row + k * a_k].
  int64_t a_row;
  int64_t a_k;
  const float* const* b;
  int64_t columns;  // A multiple of 16.
};

template <int R, int NV>
HWY_INLINE void product_columns(const Product& g, int64_t column, int64_t begin, int64_t end) {
  F16 sum[R][NV];
  TEMPER_UNROLL
  for (int r = 0; r < R; ++r) {
    TEMPER_UNROLL
    for (int n = 0; n < NV; ++n) sum[r][n] = load16(g.c + r * g.c_stride + column + n * 16);
  }
  const int64_t a_row = g.a_row;
  const int64_t a_k = g.a_k;
  const float* a = g.a + begin * a_k;
  for (int64_t k = begin; k < end; ++k, a += a_k) {
    const float* b = g.b[k] + column;
    F16 value[NV];
    TEMPER_UNROLL
    for (int n = 0; n < NV; ++n) value[n] = load16(b + n * 16);
    TEMPER_UNROLL
    for (int r = 0; r < R; ++r) {
      const F16 x = set16(a[r * a_row]);
      TEMPER_UNROLL
      for (int n = 0; n < NV; ++n) sum[r][n] = fma16(x, value[n], sum[r][n]);
    }
  }
  TEMPER_UNROLL
  for (int r = 0; r < R; ++r) {
    TEMPER_UNROLL
    for (int n = 0; n < NV; ++n) store16(sum[r][n], g.c + r * g.c_stride + column + n * 16);
  }
}

template <int R>
void product_rows(const Product& g, int64_t begin, int64_t end) {
  int64_t column = 0;
  if constexpr (kTileVectors == 4) {
    for (; column + 64 <= g.columns; column += 64) product_columns<R, 4>(g, column, begin, end);
    for (; column + 32 <= g.columns; column += 32) product_columns<R, 2>(g, column, begin, end);
  }
  for (; column < g.columns; column += 16) product_columns<R, 1>(g, column, begin, end);
}

/// Rows [0, rows) of the product over k in [begin, end); rows is at most kAttentionRows.
inline void product_tile(int rows, const Product& g, int64_t begin, int64_t end) {
  if (begin >= end) return;
  switch (rows) {
    case 1: return product_rows<1>(g, begin, end);
    case 2: return product_rows<2>(g, begin, end);
    case 3: return product_rows<3>(g, begin, end);
    case 4: return product_rows<4>(g, begin, end);
    case 5: return product_rows<5>(g, begin, end);
    default: return product_rows<6>(g, begin, end);
  }
}

/// As `product_tile` with a range of k of its own for every row: what a row does not see is not
/// added to it. Rows share what all of them see; the few keys before and behind go row by row.
inline void product_ranges(int rows, const Product& g, const LaneRange* range) {
  int lo = 0;
  int hi = kKeyBlock;
  for (int r = 0; r < rows; ++r) {
    lo = std::max(lo, range[r].lo);
    hi = std::min(hi, range[r].hi);
  }
  const bool shared = lo < hi;
  for (int r = 0; r < rows; ++r) {
    Product one = g;
    one.c += r * g.c_stride;
    one.a += r * g.a_row;
    product_tile(1, one, range[r].lo, shared ? lo : range[r].hi);
  }
  if (!shared) return;
  product_tile(rows, g, lo, hi);
  for (int r = 0; r < rows; ++r) {
    Product one = g;
    one.c += r * g.c_stride;
    one.a += r * g.a_row;
    product_tile(1, one, hi, range[r].hi);
  }
}

/// Lanes of `values` outside of the range become `masked`; `lane` is the block lane of the first.
HWY_INLINE F16 mask_lanes(const F16& values, int lane, LaneRange range, float masked) {
  if (range.lo <= lane && lane + 16 <= range.hi) return values;
  F16 out;
  const D16 d;
  const V16 lo = hn::Set(d, static_cast<float>(range.lo));
  const V16 hi = hn::Set(d, static_cast<float>(range.hi));
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) {
    const V16 at = hn::Iota(d, static_cast<float>(lane + i * kPartLanes));
    const auto seen = hn::And(hn::Ge(at, lo), hn::Lt(at, hi));
    out.part[i] = hn::IfThenElse(seen, values.part[i], hn::Set(d, masked));
  }
  return out;
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif
