#include "cuda/rope.cuh"

namespace temper::kernels::cuda {

Status rope(const RopeArgs& args, Stream stream) { return launch_rope(args, stream); }

}  // namespace temper::kernels::cuda
