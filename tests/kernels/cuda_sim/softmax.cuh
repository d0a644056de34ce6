#pragma once
// A row softmax in the kernels' vocabulary: the smallest whole example, and the bed for planted
// bugs.

#include "cuda/math.cuh"
#include "cuda/reduce.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

struct SoftmaxArgs {
  const float* in;  // [rows, n]
  float* out;       // [rows, n]
  float* sums;      // [rows]: sum of exp(x - max).
  int64_t rows, n;
};

/// One block a row.
__global__ void __launch_bounds__(256) softmax_rows(SoftmaxArgs a) {
  SharedArena arena;
  float* scratch = arena.take<float>(32);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * a.n;
  float m = -INFINITY, s = 0;
  for (int64_t i = threadIdx.x; i < a.n; i += blockDim.x) m = fmaxf(m, a.in[first + i]);
  m = block_max(m, scratch);
  for (int64_t i = threadIdx.x; i < a.n; i += blockDim.x) s += vexp(a.in[first + i] - m);
  s = block_sum(s, scratch);
  for (int64_t i = threadIdx.x; i < a.n; i += blockDim.x) {
    a.out[first + i] = vexp(a.in[first + i] - m) / s;
  }
  if (threadIdx.x == 0) a.sums[blockIdx.x] = s;
}

inline Status softmax(const SoftmaxArgs& a, Stream stream) {
  if (a.n <= 0) return invalid_argument("[softmax] n must be positive");
  return launch(softmax_rows, dim3(static_cast<unsigned>(a.rows)), dim3(128),
                shared_bytes<float>(32), stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
