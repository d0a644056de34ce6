#pragma once
// The products of `linear` for launchers of other ops: nvcc compiles their kernels once, in
// linear.cu, and the emulator has no library to call.

#include "cuda/device.cuh"
#include "temper/kernels/linear.h"
#ifndef __CUDACC__
#include "cuda/linear.cuh"
#endif

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

#ifdef __CUDACC__
inline Status product(const LinearArgs& g, Stream stream) { return linear(g, stream); }
inline Status product(const LinearBackwardInputArgs& g, Stream stream) {
  return linear_backward_input(g, stream);
}
inline Status product(const LinearBackwardWeightArgs& g, Stream stream) {
  return linear_backward_weight(g, stream);
}
#else
inline Status product(const LinearArgs& g, Stream stream) { return launch_linear(g, stream); }
inline Status product(const LinearBackwardInputArgs& g, Stream stream) {
  return launch_linear_backward_input(g, stream);
}
inline Status product(const LinearBackwardWeightArgs& g, Stream stream) {
  return launch_linear_backward_weight(g, stream);
}
#endif

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
