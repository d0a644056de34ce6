// The LM head and sampling on a GPU: the bits of the CPU, for products by fma.
#include "gpu/gpu_test_util.h"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/head_cases.h"

namespace temper::kernels::cuda {
namespace {

struct GpuHead {
  template <class T>
  using Buffer = test::GpuBuffer<T>;

  static bool forward(const LinearLogprobArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_logprob_workspace(a)));
    const bool ok = cuda::linear_logprob(a, workspace.data(), nullptr).ok();
    workspace.values();  // Waits, and looks for stray writes.
    return ok;
  }
  static bool backward(const LinearLogprobBackwardArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_logprob_backward_workspace(a.forward)));
    const bool ok = cuda::linear_logprob_backward(a, workspace.data(), nullptr).ok();
    workspace.values();
    return ok;
  }
  static bool train(const LinearLogprobTrainArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_logprob_backward_workspace(a.pass.forward)));
    const bool ok = cuda::linear_logprob_train(a, workspace.data(), nullptr).ok();
    workspace.values();
    return ok;
  }
  static bool sample(const LinearSampleArgs& a) {
    Buffer<float> workspace(static_cast<size_t>(linear_sample_workspace(a.rows, a.head.n)));
    const bool ok = cuda::linear_sample(a, workspace.data(), nullptr).ok();
    workspace.values();
    return ok;
  }
};

struct Compare {
  template <class Run>
  void operator()(const Run& run) const {
    const auto want = run.template operator()<test::HostHead>();
    EXPECT_TRUE(test::identical(run.template operator()<GpuHead>(), want));
  }
};

using HeadGpu = test::GpuTest;
TEST_F(HeadGpu, HasTheBitsOfTheCpu) { test::head_cases(Compare()); }
TEST_F(HeadGpu, HasThemOverAWholeVocabulary) { test::large_head_cases(Compare(), test::kMany); }
using SamplingGpu = test::GpuTest;
TEST_F(SamplingGpu, DrawsTheTokensOfTheCpu) { test::sampling_cases(Compare()); }

}  // namespace
}  // namespace temper::kernels::cuda
