#pragma once

#include <cstdint>
#include <span>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Gathers rows of an embedding that is stored in the panel layout of `linear.h` (the LM head may
/// share it): element (id, k) lies at panels[((id / 32) * panel_depth(width) + k) * 32 + id % 32].
/// @param panels  fp32 panels of a [vocabulary, width] weight.
/// @param ids     Each in [0, vocabulary): the caller checks them.
/// @param out     [ids.size(), width], overwritten with exact copies.
void embedding(const float* panels, int64_t width, std::span<const int32_t> ids, float* out);

/// The same over bf16 panels (PackedWeight::bf16), widened exactly.
void embedding(const uint16_t* panels, int64_t width, std::span<const int32_t> ids, float* out);

namespace cuda {

/// The same copies as the CPU's.
Status embedding(const float* panels, int64_t width, std::span<const int32_t> ids, float* out,
                 Stream stream);
Status embedding(const uint16_t* panels, int64_t width, std::span<const int32_t> ids, float* out,
                 Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
