#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// y = silu(gate) * up with silu(g) = g / (1 + e^-g) (Shazeer 2020, eq. 6).
/// @param gate_up  [rows, 2 * width]: a row is {gate[width], up[width]}.
/// @param y        [rows, width]
/// @note Elementwise: the bits of an element depend on its own inputs alone. silu is within 4 ulp.
void swiglu(const float* gate_up, float* y, int64_t rows, int64_t width);

/// Gradient of `swiglu`: overwrites dgate_up [rows, 2 * width], which may be `gate_up`, from
/// dy [rows, width].
void swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                     int64_t width);

/// x += y over n floats: the residual stream.
void add_inplace(float* x, const float* y, int64_t n);

namespace cuda {

/// The same bits as the CPU's.
Status swiglu(const float* gate_up, float* y, int64_t rows, int64_t width, Stream stream);
Status swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                       int64_t width, Stream stream);
Status add_inplace(float* x, const float* y, int64_t n, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
