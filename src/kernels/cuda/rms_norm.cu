#include "cuda/rms_norm.cuh"

namespace temper::kernels::cuda {

Status rms_norm(const RmsNormArgs& args, Stream stream) { return launch_rms_norm(args, stream); }

Status rms_norm_backward(const RmsNormBackwardArgs& args, Stream stream) {
  return launch_rms_norm_backward(args, stream);
}

}  // namespace temper::kernels::cuda
