#include "cuda/kl_penalty.cuh"

namespace temper::kernels::cuda {

Status kl_penalty(const KlPenaltyArgs& args, Stream stream) {
  return launch_kl_penalty(args, stream);
}

Status shape_rewards(const ShapeRewardsArgs& args, Stream stream) {
  return launch_shape_rewards(args, stream);
}

}  // namespace temper::kernels::cuda
