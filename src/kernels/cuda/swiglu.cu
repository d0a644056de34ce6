#include "cuda/swiglu.cuh"

namespace temper::kernels::cuda {

Status swiglu(const float* gate_up, float* y, int64_t rows, int64_t width, Stream stream) {
  return launch_swiglu(gate_up, y, rows, width, stream);
}

Status swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                       int64_t width, Stream stream) {
  return launch_swiglu_backward(dy, gate_up, dgate_up, rows, width, stream);
}

Status add_inplace(float* x, const float* y, int64_t n, Stream stream) {
  return launch_add_inplace(x, y, n, stream);
}

}  // namespace temper::kernels::cuda
