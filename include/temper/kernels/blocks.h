#pragma once

#include <cstdint>

#include "temper/kernels/linear.h"

namespace temper::kernels {

/// A matrix in blocks of kBlock steps of a row: weight = float32(scale * code + minimum). A scale
/// has 11 bits and a code at most 8, so the product is exact and the sum is rounded once. These are
/// GGUF's Q4_0 (minimum -8 scales), Q4_1 and Q8_0 (minimum 0).
struct BlockRows {
  int bits = 4;  ///< 4: codes in [0, 15]; 8: int8 as bytes.
  int64_t n = 0;
  int64_t k = 0;
  const uint8_t* codes = nullptr;      ///< [n, k], one a byte.
  const uint16_t* scales = nullptr;    ///< [n, ceil(k / kBlock)] IEEE half precision.
  const uint16_t* minimums = nullptr;  ///< As `scales`, or null for those of Q4_0 and Q8_0.
};
/// The same in the panels that PackedWeight describes.
struct BlockPanels {
  uint8_t* codes = nullptr;      ///< `block_code_bytes`
  uint16_t* scales = nullptr;    ///< block_elements(n, k)
  uint16_t* minimums = nullptr;  ///< The same, or null.
};
/// Bytes of the codes of an [n, k] weight in block panels.
[[nodiscard]] constexpr int64_t block_code_bytes(int64_t n, int64_t k, int bits) {
  return panel_elements(n, k) * bits / 8;
}

/// Fills panels that hold zeros with rows at [row_begin, row_begin + rows.n). Panels with minimums
/// may be filled by rows without: theirs are written out then.
/// @throws Error where a minimum of -8 scales is none of half precision.
void pack_blocks(const BlockRows& rows, int64_t row_begin, int64_t total_n,
                 const BlockPanels& panels);

/// Rounds [n, k] numbers, magnitudes below 65520, to the nearest of 16 between each block's
/// smallest and largest (Q4_1): half a scale at most, and the rounding of scale and minimum to half
/// precision.
void quantize_blocks4(const float* rows, int64_t n, int64_t k, uint8_t* codes, uint16_t* scales,
                      uint16_t* minimums);
/// The same to the nearest of 255 multiples of largest magnitude / 127 (Q8_0).
void quantize_blocks8(const float* rows, int64_t n, int64_t k, uint8_t* codes, uint16_t* scales);

}  // namespace temper::kernels
