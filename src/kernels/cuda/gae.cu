#include "cuda/gae.cuh"

namespace temper::kernels::cuda {

Status gae(const GaeArgs& args, Stream stream) { return launch_gae(args, stream); }

}  // namespace temper::kernels::cuda
