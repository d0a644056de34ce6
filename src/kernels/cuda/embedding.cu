#include "cuda/embedding.cuh"

namespace temper::kernels::cuda {

Status embedding(const float* panels, int64_t width, std::span<const int32_t> ids, float* out,
                 Stream stream) {
  return launch_embedding(panels, width, ids, out, stream);
}

Status embedding(const uint16_t* panels, int64_t width, std::span<const int32_t> ids, float* out,
                 Stream stream) {
  return launch_embedding(panels, width, ids, out, stream);
}

}  // namespace temper::kernels::cuda
