#include "cuda/group_advantages.cuh"

namespace temper::kernels::cuda {

Status group_advantages(const GroupAdvantagesArgs& args, Stream stream) {
  return launch_group_advantages(args, stream);
}

}  // namespace temper::kernels::cuda
