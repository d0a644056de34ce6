#pragma once

#include <cstdint>
#include <span>

#include "temper/kernels/cuda.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {

/// Gathers rows of an embedding [n, k] that is stored in panels (the LM head may share it).
/// @param ids  Each in [0, n): the caller checks them.
/// @param out  [ids.size(), k], overwritten with exact copies of what products would read; of int8
///             panels with bytes times scales, each rounded once.
void embedding(const PackedWeight& weight, std::span<const int32_t> ids, float* out);

namespace cuda {

/// The same copies as the CPU's. int8 panels are refused.
Status embedding(const PackedWeight& weight, std::span<const int32_t> ids, float* out,
                 Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
