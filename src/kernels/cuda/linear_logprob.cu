#include "cuda/linear_logprob.cuh"

namespace temper::kernels::cuda {

Status linear_logprob(const LinearLogprobArgs& args, float* workspace, Stream stream) {
  return launch_linear_logprob(args, workspace, stream);
}

Status linear_logprob_backward(const LinearLogprobBackwardArgs& args, float* workspace,
                               Stream stream) {
  return launch_linear_logprob_backward(args, workspace, stream);
}

Status linear_logprob_train(const LinearLogprobTrainArgs& args, float* workspace, Stream stream) {
  return launch_linear_logprob_train(args, workspace, stream);
}

}  // namespace temper::kernels::cuda
