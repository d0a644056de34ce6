#pragma once
// Launches of tree attention on the emulator.

#include "cuda/tree_attention.cuh"
#include "cuda/tree_attention_backward.cuh"
#include "kernels/attention_device_case.h"
#include "kernels/cuda_sim/sim_test_util.h"

namespace temper::kernels::attention_case {

inline Outputs run_on_emulator(const Problem& p, const Launch& launch, size_t offset = 0) {
  return run_on_device<test::DeviceBuffer>(p, launch, offset);
}
inline GradientOutputs run_backward_on_emulator(const Problem& p, const std::vector<float>& dout,
                                                const BackwardLaunch& launch, size_t offset = 0) {
  return run_backward_on_device<test::DeviceBuffer>(p, dout, launch, offset);
}

inline Launch launcher(int64_t rows_per_list) {
  return [=](const TreeAttentionArgs& a) {
    return cuda::launch_tree_attention(a, rows_per_list, nullptr);
  };
}
/// A shape that need not be the launcher's choice.
template <class Shape>
Launch shape_launcher(int64_t rows_per_list = 0) {
  return [=](const TreeAttentionArgs& a) {
    return cuda::launch_attend<Shape>(cuda::view_of(a), rows_per_list, nullptr);
  };
}

}  // namespace temper::kernels::attention_case
