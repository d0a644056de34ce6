// The emulated kernels of the LM head and of sampling: the bits of the CPU's, which their own tests
// hold to references in float64.
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

/// Runs a case in blocks of several sizes and expects the bits of the CPU.
struct CompareShapes {
  template <class Run>
  void operator()(const Run& run) const {
    const auto want = run.template operator()<test::HostHead>();
    EXPECT_TRUE(test::identical(run.template operator()<SimHead<32>>(), want));
    EXPECT_TRUE(test::identical(run.template operator()<SimHead<128>>(), want));
    EXPECT_TRUE(test::identical(run.template operator()<SimHead<256>>(), want));
    EXPECT_TRUE(test::identical(run.template operator()<SimHead<512>>(), want));
  }
};

/// Once.
struct CompareOnce {
  template <class Run>
  void operator()(const Run& run) const {
    const auto want = run.template operator()<test::HostHead>();
    EXPECT_TRUE(test::identical(run.template operator()<SimHead<128>>(), want));
  }
};

/// Tiles are launches of their own, one after the other, and begin behind 256 rows.
constexpr const char* kNoRaceBetweenTiles = "nothing for ThreadSanitizer that small cases lack";

TEST(HeadSim, HasTheBitsOfTheCpu) { test::head_cases(Compare()); }
TEST(HeadSim, HasThemInBlocksOfAnySize) { test::head_cases(CompareShapes()); }
TEST(HeadSim, HasThemOverSeveralTilesAndChunks) {
  if (test::kThreadSanitizer) GTEST_SKIP() << kNoRaceBetweenTiles;
  test::large_head_cases(CompareOnce(), 3000);
}
TEST(SamplingSim, DrawsTheTokensOfTheCpu) { test::sampling_cases(Compare()); }
TEST(SamplingSim, DrawsThemInBlocksOfAnySize) { test::sampling_cases(CompareShapes()); }

// Tensor cores add in an order of their own: close to the CPU, but the same bits for one pass and
// for two, and in every order of threads.
TEST(HeadSim, DotProductsComeCloseToTheCpus) {
  test::HeadCase c{.rows = 21,
                   .vocabulary = 40,
                   .k = 24,
                   .softcap = 20,
                   .ref_k = 3,
                   .bf16 = true,
                   .product = Product::kDot};
  const auto want = test::run_head_case<test::HostHead>(c);
  const auto two = test::in_all_orders([&] { return test::run_head_case<SimHead<64>>(c); });
  c.one_pass = true;
  EXPECT_TRUE(test::identical(test::run_head_case<SimHead<64>>(c), two));
  const auto near = [](const std::vector<float>& got, const std::vector<float>& expected) {
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-4) << i;
  };
  near(std::get<0>(two), std::get<0>(want));    // Log-probs.
  near(std::get<4>(two), std::get<4>(want));    // KL.
  near(std::get<10>(two), std::get<10>(want));  // Gradients.
  near(std::get<11>(two), std::get<11>(want));
}

// Each tile's outputs are there when its coefficients are asked for.
TEST(HeadSim, CoefficientsAreAskedForTileByTile) {
  if (test::kThreadSanitizer) GTEST_SKIP() << kNoRaceBetweenTiles;
  const int64_t rows = kHeadTileRows + 3, n = 5;
  const auto count = static_cast<size_t>(rows);
  const test::HeadPanels panels(test::random_floats(n * 2, 1), n, 2, false);
  test::HeadPanels::On<SimHead<32>> head(panels);
  test::DeviceBuffer<float> hidden(test::random_floats(rows * 2, 2)), dhidden(count * 2);
  test::DeviceBuffer<float> logprob(count), max(count), log_sum(count), dlogprob(count);
  test::DeviceBuffer<int32_t> targets(std::vector<int32_t>(count, 3));
  std::vector<int64_t> asked;
  const LinearLogprobArgs forward{.hidden = hidden.data(),
                                  .hidden_stride = 2,
                                  .head = head.weight(),
                                  .targets = targets.data(),
                                  .rows = rows,
                                  .logprob = logprob.data(),
                                  .max = max.data(),
                                  .log_sum = log_sum.data()};
  ASSERT_TRUE(SimHead<32>::train({.pass = {.forward = forward,
                                           .dlogprob = dlogprob.data(),
                                           .dhidden = dhidden.data(),
                                           .dhidden_stride = 2},
                                  .coefficients = [&](int64_t begin, int64_t end) {
                                    asked.insert(asked.end(), {begin, end});
                                    for (int64_t r = begin; r < end; ++r) {
                                      EXPECT_LT(logprob.data()[r], 0);
                                      dlogprob.data()[r] = r % 2 == 0 ? 1.0f : 0.0f;
                                    }
                                  }}));
  EXPECT_EQ(asked, (std::vector<int64_t>{0, kHeadTileRows, kHeadTileRows, rows}));
  const std::vector<float> d = dhidden.values();
  for (size_t r = 0; r < count; ++r) EXPECT_EQ(d[2 * r] != 0, r % 2 == 0) << r;
}

TEST(HeadSim, BadArgumentsAreRefusedBeforeTheLaunch) {
  const auto refused = [](Status s, const char* what) {
    EXPECT_EQ(s.code, kInvalidArgument);
    EXPECT_STREQ(s.what, what);
  };
  const float word = 0;
  const PackedWeight head{&word, nullptr, 7, 1};
  const auto forward = [&](const LinearLogprobArgs& a) {
    return launch_linear_logprob(a, nullptr, nullptr);
  };
  refused(forward({.head = head, .rows = -1}), "[linear_logprob] rows must be >= 0");
  refused(forward({}), "[linear_logprob] the vocabulary must have 1 to 4,194,304 ids");
  refused(forward({.head = {&word, nullptr, kMostIds + 1, 1}}),
          "[linear_logprob] the vocabulary must have 1 to 4,194,304 ids");
  refused(forward({.head = head, .support = 8}),
          "[linear_logprob] support must be in [0, vocabulary]");
  refused(forward({.head = head, .softcap = -1}),
          "[linear_logprob] a softcap must not be negative");
  refused(forward({.head = head, .top_k = 65}), "[linear_logprob] top_k must be in [0, 64]");
  refused(forward({.head = head, .top_k = 1}),
          "[linear_logprob] top_k needs top_ids and top_logprobs");
  refused(forward({.head = head, .reference = {.hidden = &word, .head = {&word, nullptr, 8, 1}}}),
          "[linear_logprob] policy and reference must have one vocabulary");
  refused(forward({.head = head, .reference = {.hidden = &word, .head = head}}),
          "[linear_logprob] a reference needs an array for kl");
  float out = 0;
  LinearLogprobBackwardArgs b{.forward = {.head = head}};
  const auto backward = [&] { return launch_linear_logprob_backward(b, nullptr, nullptr); };
  refused(backward(), "[linear_logprob_backward] expected max, log_sum, dlogprob and dhidden");
  b.forward.max = b.forward.log_sum = b.dhidden = &out;
  b.dlogprob = b.dentropy = &word;
  refused(backward(), "[linear_logprob_backward] an entropy gradient needs the forward's entropy");
  b.forward.entropy = &out;
  b.dkl = &word;
  refused(backward(),
          "[linear_logprob_backward] a KL gradient needs the forward's reference with its max and "
          "log_sum");
  refused(launch_linear_logprob_train({.pass = b, .coefficients = {}}, nullptr, nullptr),
          "[linear_logprob_backward] a KL gradient needs the forward's reference with its max and "
          "log_sum");
  EXPECT_TRUE(forward({.head = head}).ok());  // No rows: nothing to do.
}

TEST(SamplingSim, BadArgumentsAreRefusedBeforeTheLaunch) {
  const float word = 0;
  const int32_t id = 0;
  const PackedWeight head{&word, nullptr, 7, 1};
  const auto refused = [](const LinearSampleArgs& a, const char* what) {
    const Status s = launch_linear_sample(a, nullptr, nullptr);
    EXPECT_EQ(s.code, kInvalidArgument);
    EXPECT_STREQ(s.what, what);
  };
  refused({.head = head, .allowed = 7, .rows = -1}, "[linear_sample] rows must be >= 0");
  refused({.allowed = 7}, "[linear_sample] the vocabulary must have 1 to 4,194,304 ids");
  refused({.head = head, .allowed = 0}, "[linear_sample] allowed must be in [1, vocabulary]");
  refused({.head = head, .allowed = 8}, "[linear_sample] allowed must be in [1, vocabulary]");
  refused({.head = head, .allowed = 7, .support = -1},
          "[linear_sample] support must be in [0, vocabulary]");
  refused({.head = head, .allowed = 7, .softcap = -1},
          "[linear_sample] a softcap must not be negative");
  refused({.head = head, .allowed = 7, .seen = &id}, "[linear_sample] seen ids need seen_begin");
}

}  // namespace
}  // namespace temper::kernels::cuda
