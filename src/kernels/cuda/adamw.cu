#include "cuda/adamw.cuh"

namespace temper::kernels::cuda {

Status adamw(const AdamWArgs& args, const float* grad_scale, Stream stream) {
  return launch_adamw(args, grad_scale, stream);
}

Status sum_of_squares(const float* x, int64_t count, double* workspace, double* sum,
                      Stream stream) {
  return launch_sum_of_squares(x, count, workspace, sum, stream);
}

Status clip_factor(const ClipArgs& args, Stream stream) { return launch_clip_factor(args, stream); }

}  // namespace temper::kernels::cuda
