#include "gpu/twins.h"
#include "kernels/cuda_sim/softmax.cuh"
#include "kernels/cuda_sim/vocabulary.cuh"

namespace temper::test {

kernels::cuda::Status softmax_on_device(const SoftmaxPointers& p, kernels::cuda::Stream stream) {
  return kernels::cuda::softmax({p.in, p.out, p.sums, p.rows, p.n}, stream);
}

kernels::cuda::Status vocabulary_on_device(const uint32_t* in, uint32_t* out,
                                           kernels::cuda::Stream stream) {
  return kernels::cuda::run_vocabulary(in, out, stream);
}

}  // namespace temper::test
