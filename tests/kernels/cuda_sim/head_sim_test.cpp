// The emulated kernels of the LM head and of sampling: the bits of the CPU's, which their own tests
// hold to references in float64.
#include <algorithm>

#include "cuda/linear_logprob.cuh"
#include "cuda/sampling.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/head_cases.h"

namespace temper::kernels::cuda {
namespace {

template <int kThreads>
struct SimHead {
  template <class T>
  using Buffer = test::DeviceBuffer<T>;

  static bool forward(const LinearLogprobArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_logprob_workspace(a)));
    const bool ok = launch_linear_logprob(a, workspace.data(), nullptr, kThreads).ok();
    workspace.values();  // Looks for stray writes.
    return ok;
  }
  static bool backward(const LinearLogprobBackwardArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_logprob_backward_workspace(a.forward)));
    const bool ok = launch_linear_logprob_backward(a, workspace.data(), nullptr, kThreads).ok();
    workspace.values();
    return ok;
  }
  static bool train(const LinearLogprobTrainArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_logprob_backward_workspace(a.pass.forward)));
    const bool ok = launch_linear_logprob_train(a, workspace.data(), nullptr, kThreads).ok();
    workspace.values();
    return ok;
  }
  static bool sample(const LinearSampleArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_sample_workspace(a.rows, a.head.n)));
    const bool ok = launch_linear_sample(a, workspace.data(), nullptr, kThreads).ok();
    workspace.values();
    return ok;
  }
};

/// Runs a case in all thread orders and expects the bits of the CPU.
struct Compare {
  template <class Run>
  void operator()(const Run& run) const {
    const auto want = run.template operator()<test::HostHead>();
    const auto got = test::in_all_orders([&] { return run.template operator()<SimHead<64>>(); });
    EXPECT_TRUE(test::identical(got, want));
  }
};

TEST(HeadSim, HasTheBitsOfTheCpu) { test::head_cases(Compare()); }
TEST(SamplingSim, DrawsTheTokensOfTheCpu) { test::sampling_cases(Compare()); }

}  // namespace
}  // namespace temper::kernels::cuda
