#include "cuda/linear.cuh"

namespace temper::kernels::cuda {

Status linear(const LinearArgs& args, Stream stream) { return launch_linear(args, stream); }

Status linear_backward_input(const LinearBackwardInputArgs& args, Stream stream) {
  return launch_linear_backward_input(args, stream);
}

Status linear_backward_weight(const LinearBackwardWeightArgs& args, Stream stream) {
  return launch_linear_backward_weight(args, stream);
}

}  // namespace temper::kernels::cuda
