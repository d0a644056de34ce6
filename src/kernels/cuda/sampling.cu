#include "cuda/sampling.cuh"

namespace temper::kernels::cuda {

Status linear_sample(const LinearSampleArgs& args, float* workspace, Stream stream) {
  return launch_linear_sample(args, workspace, stream);
}

}  // namespace temper::kernels::cuda
