// The emulated kernels of norms, rope, SwiGLU, embedding, the optimizer and the ops around a policy
// update: the bits of the CPU's, which their own tests hold to references in float64.
#include <sys/mman.h>

#include "cuda/adamw.cuh"
#include "cuda/embedding.cuh"
#include "cuda/gae.cuh"
#include "cuda/group_advantages.cuh"
#include "cuda/kl_penalty.cuh"
#include "cuda/masked_stats.cuh"
#include "cuda/rms_norm.cuh"
#include "cuda/rope.cuh"
#include "cuda/swiglu.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/layer_cases.h"
#include "kernels/rl_cases.h"

namespace temper::kernels::cuda {
namespace {

struct SimOps {
  template <class T>
  using Buffer = test::DeviceBuffer<T>;

  static bool kl_penalty(const KlPenaltyArgs& a) { return launch_kl_penalty(a, nullptr).ok(); }
  static bool shape_rewards(const ShapeRewardsArgs& a) {
    return launch_shape_rewards(a, nullptr).ok();
  }
  static bool gae(const GaeArgs& a) { return launch_gae(a, nullptr).ok(); }
  static bool group_advantages(const GroupAdvantagesArgs& a) {
    return launch_group_advantages(a, nullptr).ok();
  }
  static bool masked_stats(const MaskedStatsArgs& a) {
    return launch_masked_stats(a, nullptr).ok();
  }
  static bool whiten(const WhitenArgs& a) { return launch_whiten(a, nullptr).ok(); }
  static bool adamw(const AdamWArgs& a, const float* grad_scale) {
    return launch_adamw(a, grad_scale, nullptr).ok();
  }
  static bool sum_of_squares(const float* x, int64_t count, double* workspace, double* sum) {
    return launch_sum_of_squares(x, count, workspace, sum, nullptr).ok();
  }
  static bool clip_factor(const ClipArgs& a) { return launch_clip_factor(a, nullptr).ok(); }
  static bool rms_norm(const RmsNormArgs& a) { return launch_rms_norm(a, nullptr).ok(); }
  static bool rms_norm_backward(const RmsNormBackwardArgs& a) {
    return launch_rms_norm_backward(a, nullptr).ok();
  }
  static bool rope(const RopeArgs& a, int64_t) { return launch_rope(a, nullptr).ok(); }
  static bool embedding(const PackedWeight& w, std::span<const int32_t> ids, float* out) {
    return launch_embedding(w, ids, out, nullptr).ok();
  }
  static bool swiglu(const float* gate_up, float* y, int64_t rows, int64_t width) {
    return launch_swiglu(gate_up, y, rows, width, nullptr).ok();
  }
  static bool swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                              int64_t width) {
    return launch_swiglu_backward(dy, gate_up, dgate_up, rows, width, nullptr).ok();
  }
  static bool add_inplace(float* x, const float* y, int64_t n) {
    return launch_add_inplace(x, y, n, nullptr).ok();
  }
};

/// Runs a case in all thread orders and expects the bits of the CPU.
struct Compare {
  template <class Run>
  void operator()(const Run& run) const {
    const auto want = run.template operator()<test::HostOps>();
    const auto got = test::in_all_orders([&] { return run.template operator()<SimOps>(); });
    EXPECT_TRUE(test::identical(got, want));
  }
};

TEST(KlPenaltySim, HasTheBitsOfTheCpu) { test::kl_penalty_cases(Compare()); }
TEST(ShapeRewardsSim, HasTheBitsOfTheCpu) { test::shape_rewards_cases(Compare()); }
TEST(GaeSim, HasTheBitsOfTheCpu) { test::gae_cases(Compare()); }
TEST(GroupAdvantagesSim, HasTheBitsOfTheCpu) { test::group_advantages_cases(Compare()); }
TEST(MaskedStatsSim, HasTheBitsOfTheCpu) { test::masked_stats_cases(Compare()); }
TEST(RmsNormSim, HasTheBitsOfTheCpu) { test::rms_norm_cases(Compare()); }
TEST(RmsNormSim, BackwardHasTheBitsOfTheCpu) { test::rms_norm_backward_cases(Compare()); }
TEST(RopeSim, HasTheBitsOfTheCpu) { test::rope_cases(Compare()); }
TEST(EmbeddingSim, HasTheBitsOfTheCpu) { test::embedding_cases(Compare()); }
TEST(SwigluSim, HasTheBitsOfTheCpu) { test::swiglu_cases(Compare()); }
TEST(AdamWSim, HasTheBitsOfTheCpu) { test::adamw_cases(Compare()); }
TEST(ClippingSim, HasTheBitsOfTheCpu) { test::clipping_cases(Compare()); }

// A comparison that cannot fail would prove nothing.
TEST(SmallOpsSim, ComparisonSeesOneBit) {
  const auto run = []<class D>() {
    return std::vector<float>{1.0f, std::is_same_v<D, SimOps> ? -0.0f : 0.0f};
  };
  EXPECT_FALSE(test::identical(run.operator()<SimOps>(), run.operator()<test::HostOps>()));
}

TEST(SmallOpsSim, BadArgumentsAreRefusedBeforeTheLaunch) {
  const auto refused = [](Status s, const char* what) {
    EXPECT_EQ(s.code, kInvalidArgument);
    EXPECT_STREQ(s.what, what);
  };
  refused(launch_kl_penalty({.tokens = -1}, nullptr), "[kl_penalty] tokens must be >= 0");
  refused(launch_kl_penalty({.tokens = 1, .estimator = KlEstimator::kExact}, nullptr),
          "[kl_penalty] the exact estimator needs the KL over the vocabulary");
  refused(launch_shape_rewards({.score_clip = -1}, nullptr),
          "[shape_rewards] score_clip must be >= 0");
  refused(launch_gae({.lambda = 1.5}, nullptr), "[gae] gamma and lambda must be in [0, 1]");
  const uint8_t truncated = 1;
  refused(launch_gae({.sequences = 1, .truncated = &truncated}, nullptr),
          "[gae] truncated sequences need bootstrap values");
  refused(launch_group_advantages({.groups = -1}, nullptr),
          "[group_advantages] groups must be >= 0");
  refused(launch_masked_stats({.count = -1}, nullptr), "[masked_stats] count must be >= 0");
  refused(launch_whiten({.count = -1}, nullptr), "[whiten] count must be >= 0");
  refused(launch_adamw({.step = 0}, nullptr, nullptr), "[adamw] step must be >= 1");
  const int8_t byte = 0;
  refused(launch_embedding({.n = 1, .k = 1, .i8 = &byte}, {}, nullptr, nullptr),
          "[embedding] int8 panels and blocks are read on the CPU alone");
  uint16_t half = 0;
  refused(launch_adamw({.bf16 = &half, .count = 32}, nullptr, nullptr),
          "[adamw] 16-bit panels hold multiples of 64");
  refused(launch_sum_of_squares(nullptr, -1, nullptr, nullptr, nullptr),
          "[sum_of_squares] count must be >= 0");
  refused(launch_clip_factor({.max_norm = -1}, nullptr), "[clip_factor] max_norm must be >= 0");
  refused(launch_rms_norm({}, nullptr), "[rms_norm] expected rows >= 0 and width >= 1");
  refused(launch_rms_norm_backward({}, nullptr),
          "[rms_norm_backward] expected rows >= 0 and width >= 1");
  refused(launch_rope({}, nullptr), "[rope] expected rows >= 0, heads >= 0 and half >= 1");
  refused(launch_embedding({}, {}, nullptr, nullptr), "[embedding] width must be >= 1");
  refused(launch_swiglu(nullptr, nullptr, -1, 1, nullptr), "[swiglu] expected rows and width >= 0");
  refused(launch_add_inplace(nullptr, nullptr, -1, nullptr), "[add_inplace] n must be >= 0");
}

/// Address space of which only what is touched takes memory.
class SparseFloats {
 public:
  explicit SparseFloats(int64_t n) : bytes_(static_cast<size_t>(n) * sizeof(float)) {
    map_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  SparseFloats(const SparseFloats&) = delete;
  SparseFloats& operator=(const SparseFloats&) = delete;
  ~SparseFloats() {
    if (valid()) munmap(map_, bytes_);
  }
  bool valid() const { return map_ != MAP_FAILED; }
  float* data() { return static_cast<float*>(map_); }

 private:
  size_t bytes_;
  void* map_;
};

TEST(SmallOpsSim, OffsetsBeyond32BitsAreReached) {
  constexpr int64_t kWidth = 2048, kVocabulary = 1 << 21;
  SparseFloats far(panel_elements(kVocabulary, kWidth));  // 2^32 elements, of which one is set.
  ASSERT_TRUE(far.valid());
  const int64_t at = panel_elements(kVocabulary, kWidth) - 32 * kWidth;
  ASSERT_GT(at, int64_t{1} << 31);
  far.data()[at + 5 * 32 + 7] = 1.5f;  // Output row 7 of the last panel, k = 5.
  const int32_t id = static_cast<int32_t>(kVocabulary - 32 + 7);
  std::vector<float> out(kWidth);
  const PackedWeight table{.f32 = far.data(), .n = kVocabulary, .k = kWidth};
  ASSERT_TRUE(launch_embedding(table, {&id, 1}, out.data(), nullptr).ok());
  EXPECT_EQ(out[5], 1.5f);
  // Rope over rows that lie 2^31 floats apart: the second one turns by a quarter.
  far.data()[(int64_t{1} << 31) + 0] = 3.0f;
  far.data()[(int64_t{1} << 31) + 1] = 4.0f;
  const int32_t positions[] = {0, 1};
  const float cos[] = {1, 0}, sin[] = {0, 1};
  ASSERT_TRUE(launch_rope({.x = far.data(),
                           .row_stride = int64_t{1} << 31,
                           .positions = positions,
                           .rows = 2,
                           .heads = 1,
                           .cos = cos,
                           .sin = sin,
                           .half = 1},
                          nullptr)
                  .ok());
  EXPECT_EQ(far.data()[int64_t{1} << 31], -4.0f);
  EXPECT_EQ(far.data()[(int64_t{1} << 31) + 1], 3.0f);
}

}  // namespace
}  // namespace temper::kernels::cuda
