// [shown: the launcher]
#include "kernels/add_a_kernel/sigmoid_gate.cuh"

namespace temper::kernels::cuda {

Status sigmoid_gate(const float* gate, const float* x, float* y, int64_t n, Stream stream) {
  return launch_sigmoid_gate(gate, x, y, n, stream);
}

Status sigmoid_gate_backward(const SigmoidGateBackwardArgs& args, Stream stream) {
  return launch_sigmoid_gate_backward(args, stream);
}

}  // namespace temper::kernels::cuda
// [end]
