#pragma once

#include "cuda/device.cuh"
#include "cuda/math.cuh"
#include "temper/kernels/embedding.h"
#include "temper/kernels/linear.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kEmbeddingThreads = 128;

__device__ __forceinline__ float panel_element(const float* panel, int64_t lane, int64_t k) {
  return panel[k * kPanel + lane];
}
__device__ __forceinline__ float panel_element(const uint16_t* panel, int64_t lane, int64_t k) {
  return bf16_to_float(panel[(k / 2 * kPanel + lane) * 2 + k % 2]);
}
__device__ __forceinline__ float panel_element(const __half* panel, int64_t lane, int64_t k) {
  return __half2float(panel[(k / 2 * kPanel + lane) * 2 + k % 2]);
}

/// One block a row.
template <class Element>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_rows(const Element* panels, int64_t width, int64_t panel_size, const int32_t* ids,
                   int64_t rows, float* out) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t id = ids[row];
    const Element* panel = panels + id / kPanel * panel_size;
    for (int64_t k = threadIdx.x; k < width; k += kEmbeddingThreads) {
      out[row * width + k] = panel_element(panel, id % kPanel, k);
    }
  }
}

inline Status launch_embedding(const PackedWeight& w, std::span<const int32_t> ids, float* out,
                               Stream stream) {
  if (w.k < 1) return invalid_argument("[embedding] width must be >= 1");
  if (w.frozen()) {
    return invalid_argument("[embedding] int8 panels and blocks are read on the CPU alone");
  }
  const auto rows = static_cast<int64_t>(ids.size());
  const auto blocks = static_cast<unsigned>(rows < (1 << 20) ? rows : 1 << 20);
  const auto gather = [&]<class Element>(const Element* panels) {
    return launch(embedding_rows<Element>, blocks, kEmbeddingThreads, 0, stream, panels, w.k,
                  panel_elements(1, w.k), ids.data(), rows, out);
  };
  if (w.bf16 != nullptr) return gather(w.bf16);
  if (w.f16 != nullptr) return gather(reinterpret_cast<const __half*>(w.f16));
  return gather(w.f32);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
