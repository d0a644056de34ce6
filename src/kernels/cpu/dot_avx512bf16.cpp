#include "cpu/dot_avx512bf16.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#include <immintrin.h>

#define TEMPER_TARGET_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define TEMPER_INLINE_BF16 TEMPER_TARGET_BF16 __attribute__((always_inline)) inline

namespace temper::kernels {
namespace {

constexpr int kMaxRows = 12;

/// C[MR, NP * 32]: 2 MR NP accumulators, at most 24 of the 32 registers.
template <int MR, int NP>
TEMPER_INLINE_BF16 void dot_tile(const DotBlock& g, int64_t row, const TileOut& out) {
  __m512 acc[MR][2 * NP];
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    TEMPER_UNROLL
    for (int v = 0; v < 2 * NP; ++v) {
      acc[i][v] = out.start == Start::kZero
                      ? _mm512_setzero_ps()
                      : _mm512_loadu_ps(out.c + (row + i) * out.stride + v * 16);
    }
  }
  const uint32_t* a = g.a + row * g.row_stride;
  const uint32_t* b = g.b;
  for (int64_t p = 0; p < g.pairs; ++p, a += g.pair_stride, b += 32) {
    __m512i bv[2 * NP];
    TEMPER_UNROLL
    for (int v = 0; v < 2 * NP; ++v) {
      bv[v] = _mm512_loadu_si512(b + v / 2 * g.panel_stride + v % 2 * 16);
    }
    TEMPER_UNROLL
    for (int i = 0; i < MR; ++i) {
      const __m512i x = _mm512_set1_epi32(static_cast<int>(a[i * g.row_stride]));
      TEMPER_UNROLL
      for (int v = 0; v < 2 * NP; ++v) {
        acc[i][v] = _mm512_dpbf16_ps(acc[i][v], reinterpret_cast<__m512bh>(x),
                                     reinterpret_cast<__m512bh>(bv[v]));
      }
    }
  }
  TEMPER_UNROLL
  for (int i = 0; i < MR; ++i) {
    TEMPER_UNROLL
    for (int v = 0; v < 2 * NP; ++v) {
      float* c = out.c + (row + i) * out.stride + v * 16;
      __m512 r = acc[i][v];
      if (out.bias != nullptr) r = _mm512_add_ps(r, _mm512_loadu_ps(out.bias + v * 16));
      if (out.finish == Finish::kAdd) r = _mm512_add_ps(_mm512_loadu_ps(c), r);
      _mm512_storeu_ps(c, r);
    }
  }
}

/// `dot_tile` for a number of rows known at run time, 1 to MR.
template <int MR, int NP>
TEMPER_TARGET_BF16 void dot_rows(const DotBlock& g, int64_t row, int64_t rows,
                                 const TileOut& out) {
  if (rows == MR) {
    dot_tile<MR, NP>(g, row, out);
  } else if constexpr (MR > 1) {
    dot_rows<MR - 1, NP>(g, row, rows, out);
  }
}

TEMPER_TARGET_BF16 void block(const DotBlock& g, const TileOut& out) {
  if (g.panels == 4) return dot_rows<3, 4>(g, 0, g.rows, out);
  if (g.panels == 2) return dot_rows<6, 2>(g, 0, g.rows, out);
  for (int64_t r = 0; r < g.rows; r += kMaxRows) {
    const int64_t rows = g.rows - r < kMaxRows ? g.rows - r : int64_t{kMaxRows};
    dot_rows<kMaxRows, 1>(g, r, rows, out);
  }
}

/// Transposes 8 x 8 elements of 64 bits in registers.
TEMPER_INLINE_BF16 void transpose8(__m512i (&r)[8]) {
  __m512i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
  }
  __m512i u[8];
  for (int h = 0; h < 8; h += 4) {
    for (int i = 0; i < 2; ++i) {
      u[h + i] = _mm512_shuffle_i64x2(t[h + i], t[h + i + 2], 0x88);
      u[h + i + 2] = _mm512_shuffle_i64x2(t[h + i], t[h + i + 2], 0xdd);
    }
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i64x2(u[i], u[i + 4], 0x88);
    r[i + 4] = _mm512_shuffle_i64x2(u[i], u[i + 4], 0xdd);
  }
}

TEMPER_TARGET_BF16 void transpose_panel(const uint32_t* panel, int64_t k_pairs, uint32_t* out) {
  // Words of two output rows, {(k, k+1) of n, (k, k+1) of n+1}, become {(n, n+1) of k, of k+1} by
  // swapping the middle halves; 64-bit elements [k pair][n pair] are then transposed.
  const __m512i swap = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int64_t k = 0; k < 16; k += 8) {
    for (int half = 0; half < 2; ++half) {
      __m512i r[8];
      for (int64_t i = 0; i < 8; ++i) {
        r[i] = k + i < k_pairs
                   ? _mm512_shuffle_epi8(_mm512_loadu_si512(panel + (k + i) * 32 + half * 16), swap)
                   : _mm512_setzero_si512();
      }
      transpose8(r);
      for (int64_t i = 0; i < 8; ++i) _mm512_storeu_si512(out + (half * 8 + i) * 32 + k * 2, r[i]);
    }
  }
}

bool cpu_has_bf16_dot() {
  __builtin_cpu_init();
  // The compiler's test includes whether the operating system keeps the wide registers.
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return false;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 5)) != 0;
}

}  // namespace

const DotKernels* dot_avx512bf16() {
  static constexpr DotKernels kKernels{block, transpose_panel};
  static const bool has = cpu_has_bf16_dot();  // Once: cpuid is slow in a virtual machine.
  return has ? &kKernels : nullptr;
}

}  // namespace temper::kernels

#else

namespace temper::kernels {
const DotKernels* dot_avx512bf16() { return nullptr; }
}  // namespace temper::kernels

#endif
