#pragma once

#include "cuda/elementwise.cuh"
#include "cuda/math.cuh"
#include "temper/kernels/swiglu.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// Calls `body(row, i)` for every row and i of [0, width): columns along x, rows along y.
template <class Body>
__device__ __forceinline__ void for_row_elements(int64_t rows, int64_t width, const Body& body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < width;
         i += step) {
      body(row, i);
    }
  }
}
inline dim3 row_element_blocks(int64_t rows, int64_t width) {
  return dim3(element_blocks(width), static_cast<unsigned>(rows < 65535 ? rows : 65535));
}

__global__ void __launch_bounds__(kElementThreads)
    swiglu_elements(const float* gate_up, float* y, int64_t rows, int64_t width) {
  for_row_elements(rows, width, [&](int64_t row, int64_t i) {
    const float g = gate_up[row * 2 * width + i];
    const float u = gate_up[row * 2 * width + width + i];
    y[row * width + i] = g * vsigmoid(g) * u;
  });
}

__global__ void __launch_bounds__(kElementThreads)
    swiglu_backward_elements(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                             int64_t width) {
  for_row_elements(rows, width, [&](int64_t row, int64_t i) {
    const int64_t at = row * 2 * width + i;
    const float g = gate_up[at];
    const float u = gate_up[at + width];
    const float d = dy[row * width + i];
    const float s = vsigmoid(g);
    // silu'(g) = s (1 + g (1 - s)).
    const float slope = s * fmaf(g, 1.0f - s, 1.0f);
    dgate_up[at] = d * u * slope;
    dgate_up[at + width] = d * (g * s);
  });
}

__global__ void __launch_bounds__(kElementThreads)
    add_inplace_elements(float* x, const float* y, int64_t n) {
  for_elements(n, [&](int64_t i) { x[i] += y[i]; });
}

inline Status launch_swiglu(const float* gate_up, float* y, int64_t rows, int64_t width,
                            Stream stream) {
  if (rows < 0 || width < 0) return invalid_argument("[swiglu] expected rows and width >= 0");
  return launch(swiglu_elements, row_element_blocks(rows, width), kElementThreads, 0, stream,
                gate_up, y, rows, width);
}

inline Status launch_swiglu_backward(const float* dy, const float* gate_up, float* dgate_up,
                                     int64_t rows, int64_t width, Stream stream) {
  if (rows < 0 || width < 0) {
    return invalid_argument("[swiglu_backward] expected rows and width >= 0");
  }
  return launch(swiglu_backward_elements, row_element_blocks(rows, width), kElementThreads, 0,
                stream, dy, gate_up, dgate_up, rows, width);
}

inline Status launch_add_inplace(float* x, const float* y, int64_t n, Stream stream) {
  if (n < 0) return invalid_argument("[add_inplace] n must be >= 0");
  return launch(add_inplace_elements, element_blocks(n), kElementThreads, 0, stream, x, y, n);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
