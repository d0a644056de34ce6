#pragma once

#include <cstdint>

#include "cpu/tile_types.h"

namespace temper::kernels {

/// The kernels that need the pairwise bf16 dot instruction of the CPU. Highway 1.0 has no target
/// for it, so they are chosen by hand.
struct DotKernels {
  void (*block)(const DotBlock& block, const TileOut& out);
  /// See `transpose_panel` in dot-inl.h.
  void (*transpose_panel)(const uint32_t* panel, int64_t k_pairs, uint32_t* out);
};

/// Null where the CPU or its operating system lacks AVX512-BF16.
const DotKernels* dot_avx512bf16();

}  // namespace temper::kernels
