#include "cuda/embedding.cuh"

namespace temper::kernels::cuda {

Status embedding(const PackedWeight& weight, std::span<const int32_t> ids, float* out,
                 Stream stream) {
  return launch_embedding(weight, ids, out, stream);
}

}  // namespace temper::kernels::cuda
