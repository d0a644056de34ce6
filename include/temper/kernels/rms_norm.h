#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// y = x * rsqrt(mean(x^2) + eps) * weight, row by row (Zhang and Sennrich 2019, eq. 4).
/// Contiguous fp32. For a norm per head, rows = tokens * heads and width = head_dim.
struct RmsNormArgs {
  const float* x;       ///< [rows, width]
  const float* weight;  ///< [width]
  float* y;             ///< [rows, width]; may be `x`.
  float* rstd;          ///< [rows] rsqrt(mean(x^2) + eps), kept for the backward; or null.
  int64_t rows;
  int64_t width;
  float eps;  ///< >= 0.
};

/// @throws Error if a size is negative or width is 0.
/// @note The bits of a row depend on that row alone.
void rms_norm(const RmsNormArgs& args);

/// Gradients of `rms_norm`. With h = x rstd and g = dy weight:
/// dx = rstd (g - h mean(g h)), dweight = sum over rows of dy h.
struct RmsNormBackwardArgs {
  const float* dy;      ///< [rows, width]
  const float* x;       ///< [rows, width], the input of the forward.
  const float* weight;  ///< [width]
  const float* rstd;    ///< [rows]
  float* dx;            ///< [rows, width]; may be `dy`, unless dx accumulates. Null: not computed.
  bool accumulate_dx;   ///< Adds to dx instead of overwriting it.
  /// [width], added to: one fp32 chain a column that continues the buffer's value in row order, so
  /// that rows split over several calls give the same bits. Null: not computed.
  float* dweight;
  int64_t rows;
  int64_t width;
};

/// @throws Error if a size is negative or width is 0.
/// @note Same bits at any thread count.
void rms_norm_backward(const RmsNormBackwardArgs& args);

namespace cuda {

/// The same bits as the CPU's.
Status rms_norm(const RmsNormArgs& args, Stream stream);
Status rms_norm_backward(const RmsNormBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
