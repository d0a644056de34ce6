#pragma once

#include <cstdint>

/// Before a loop over the rows or columns of a register tile: left as a loop, it would send the
/// accumulators through the stack.
#ifdef __clang__
#define TEMPER_UNROLL _Pragma("unroll")
#else
#define TEMPER_UNROLL _Pragma("GCC unroll 16")
#endif

namespace temper::kernels {

/// Whether a tile's chain starts at zero or goes on from what C holds.
enum class Start { kZero, kFromC };
/// Whether its result replaces C or is added to it.
enum class Finish { kStore, kAdd };

/// Where a tile of a product goes.
struct TileOut {
  float* c;
  int64_t stride;
  Start start;
  Finish finish;
  const float* bias;  // At the tile's first column, or null.
};

/// A block of C from pairwise dots of bf16 words, a word being two neighbouring steps of the inner
/// dimension: word (row, p) of A at a + row * row_stride + p * pair_stride, word (p, column) of B
/// panel q at b + q * panel_stride + p * 32 + column. With words (lo, hi), an accumulator takes
/// acc = a_hi b_hi + acc, then acc = a_lo b_lo + acc, each rounded once: what vdpbf16ps does.
struct DotBlock {
  const uint32_t* a;
  int64_t row_stride;
  int64_t pair_stride;
  const uint32_t* b;
  int64_t panel_stride;
  int64_t pairs;
  int64_t rows;
  int panels;  // 1; 2 if rows <= 6; 4 if rows <= 3.
};

}  // namespace temper::kernels
