#include "cuda/masked_stats.cuh"

namespace temper::kernels::cuda {

Status masked_stats(const MaskedStatsArgs& args, Stream stream) {
  return launch_masked_stats(args, stream);
}

Status whiten(const WhitenArgs& args, Stream stream) { return launch_whiten(args, stream); }

}  // namespace temper::kernels::cuda
