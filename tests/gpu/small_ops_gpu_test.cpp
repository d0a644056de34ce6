// Norms, rope, SwiGLU, embedding, the optimizer and the ops around a policy update on a GPU: the
// bits of the CPU.
#include "gpu/gpu_test_util.h"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/layer_cases.h"
#include "kernels/rl_cases.h"

namespace temper::kernels::cuda {
namespace {

struct GpuOps {
  template <class T>
  using Buffer = test::GpuBuffer<T>;

  static bool kl_penalty(const KlPenaltyArgs& a) { return cuda::kl_penalty(a, nullptr).ok(); }
  static bool shape_rewards(const ShapeRewardsArgs& a) {
    return cuda::shape_rewards(a, nullptr).ok();
  }
  static bool gae(const GaeArgs& a) { return cuda::gae(a, nullptr).ok(); }
  static bool group_advantages(const GroupAdvantagesArgs& a) {
    return cuda::group_advantages(a, nullptr).ok();
  }
  static bool masked_stats(const MaskedStatsArgs& a) { return cuda::masked_stats(a, nullptr).ok(); }
  static bool whiten(const WhitenArgs& a) { return cuda::whiten(a, nullptr).ok(); }
  static bool adamw(const AdamWArgs& a, const float* grad_scale) {
    return cuda::adamw(a, grad_scale, nullptr).ok();
  }
  static bool sum_of_squares(const float* x, int64_t count, double* workspace, double* sum) {
    return cuda::sum_of_squares(x, count, workspace, sum, nullptr).ok();
  }
  static bool clip_factor(const ClipArgs& a) { return cuda::clip_factor(a, nullptr).ok(); }
  static bool rms_norm(const RmsNormArgs& a) { return cuda::rms_norm(a, nullptr).ok(); }
  static bool rms_norm_backward(const RmsNormBackwardArgs& a) {
    return cuda::rms_norm_backward(a, nullptr).ok();
  }
  static bool rope(const RopeArgs& a, int64_t) { return cuda::rope(a, nullptr).ok(); }
  static bool embedding(const PackedWeight& w, std::span<const int32_t> ids, float* out) {
    return cuda::embedding(w, ids, out, nullptr).ok();
  }
  static bool swiglu(const float* gate_up, float* y, int64_t rows, int64_t width) {
    return cuda::swiglu(gate_up, y, rows, width, nullptr).ok();
  }
  static bool swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                              int64_t width) {
    return cuda::swiglu_backward(dy, gate_up, dgate_up, rows, width, nullptr).ok();
  }
  static bool add_inplace(float* x, const float* y, int64_t n) {
    return cuda::add_inplace(x, y, n, nullptr).ok();
  }
};

struct Compare {
  template <class Run>
  void operator()(const Run& run) const {
    const auto want = run.template operator()<test::HostOps>();
    EXPECT_TRUE(test::identical(run.template operator()<GpuOps>(), want));
  }
};

using SmallOpsGpu = test::GpuTest;

TEST_F(SmallOpsGpu, KlPenaltyHasTheBitsOfTheCpu) { test::kl_penalty_cases(Compare()); }
TEST_F(SmallOpsGpu, ShapeRewardsHasTheBitsOfTheCpu) { test::shape_rewards_cases(Compare()); }
TEST_F(SmallOpsGpu, GaeHasTheBitsOfTheCpu) { test::gae_cases(Compare()); }
TEST_F(SmallOpsGpu, GroupAdvantagesHasTheBitsOfTheCpu) { test::group_advantages_cases(Compare()); }
TEST_F(SmallOpsGpu, MaskedStatsHasTheBitsOfTheCpu) { test::masked_stats_cases(Compare()); }
TEST_F(SmallOpsGpu, RmsNormHasTheBitsOfTheCpu) { test::rms_norm_cases(Compare()); }
TEST_F(SmallOpsGpu, RmsNormBackwardHasTheBitsOfTheCpu) { test::rms_norm_backward_cases(Compare()); }
TEST_F(SmallOpsGpu, RopeHasTheBitsOfTheCpu) { test::rope_cases(Compare()); }
TEST_F(SmallOpsGpu, EmbeddingHasTheBitsOfTheCpu) { test::embedding_cases(Compare()); }
TEST_F(SmallOpsGpu, SwigluHasTheBitsOfTheCpu) { test::swiglu_cases(Compare()); }
TEST_F(SmallOpsGpu, AdamWHasTheBitsOfTheCpu) { test::adamw_cases(Compare()); }
TEST_F(SmallOpsGpu, ClippingHasTheBitsOfTheCpu) { test::clipping_cases(Compare()); }

}  // namespace
}  // namespace temper::kernels::cuda
