// Golden vectors: tests/golden/make_optim.py (torch.optim.AdamW, clip_grad_norm_). The rest are
// invariants: bits do not depend on how the work is cut.
#include "temper/kernels/adamw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "golden_numbers.h"
#include "kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {
namespace {

using namespace test;
using Floats = std::vector<float>;

/// Within 1e-6, relative to the value or to the size of what was added to make it.
void expect_close(const Floats& got, const Floats& expected, const std::string& what,
                  double added = 1e-6) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double size = std::abs(double{expected[i]}) + added;
    ASSERT_NEAR(got[i], expected[i], 1e-6 * size) << what << " " << i;
  }
}

TEST(AdamW, IsThatOfTorch) {
  const auto golden = SafetensorsFile::open(golden_folder("optim") / "adamw.safetensors");
  int cases = 0;
  const auto listed = manifest("optim")["adamw"];
  for (const auto& c : listed) {
    const std::string name = c["name"];
    if (!name.ends_with("_f32")) continue;
    ++cases;
    for (const std::string p : {"/matrix", "/vector"}) {
      Floats param = golden_floats(golden, name + "/param0" + p);
      Floats m(param.size(), 0.0f), v(param.size(), 0.0f);
      for (int64_t step = 1; step <= c["steps"]; ++step) {
        const std::string at = std::to_string(step) + p;
        const Floats grad = golden_floats(golden, name + "/grad" + at);
        adamw({.param = param.data(),
               .grad = grad.data(),
               .exp_avg = m.data(),
               .exp_avg_sq = v.data(),
               .count = std::ssize(param),
               .learning_rate = c["lr"],
               .beta1 = c["betas"][0],
               .beta2 = c["betas"][1],
               .eps = c["eps"],
               .weight_decay = c["weight_decay"],
               .step = step});
        expect_close(m, golden_floats(golden, name + "/exp_avg" + at), name + "/exp_avg" + at);
        expect_close(v, golden_floats(golden, name + "/exp_avg_sq" + at),
                     name + "/exp_avg_sq" + at);
        expect_close(param, golden_floats(golden, name + "/param" + at), name + "/param" + at,
                     c["lr"]);
      }
    }
  }
  EXPECT_EQ(cases, 3);
}

/// Parameters with optimizer state after some history.
struct State {
  Floats param, grad, m, v;
  explicit State(int64_t n)
      : param(random_floats(n, 1)),
        grad(random_floats(n, 2, 0.1f)),
        m(random_floats(n, 3, 0.1f)),
        v(random_floats(n, 4, 0.01f)) {
    for (float& x : v) x = std::abs(x);
  }
  AdamWArgs args(int64_t begin = 0) {
    return {.param = param.data() + begin,
            .grad = grad.data() + begin,
            .exp_avg = m.data() + begin,
            .exp_avg_sq = v.data() + begin,
            .count = std::ssize(param) - begin,
            .grad_scale = 0.37f,
            .learning_rate = 3e-3,
            .beta1 = 0.9,
            .beta2 = 0.99,
            .weight_decay = 0.1,
            .step = 7};
  }
  Floats all() const {
    Floats out = param;
    out.insert(out.end(), m.begin(), m.end());
    out.insert(out.end(), v.begin(), v.end());
    return out;
  }
};

TEST(AdamW, BitsDoNotDependOnSplitsThreadsOrInstructions) {
  constexpr int64_t kCount = 70003;
  const auto whole = [] {
    State s(kCount);
    adamw(s.args());
    return s.all();
  };
  const Floats base = whole();
  for (const int threads : {1, 2, 3}) {
    const ThreadScope scope(threads);
    EXPECT_TRUE(same_bits(whole(), base)) << threads;
  }
  State parts(kCount);
  const int64_t cuts[] = {0, 1, 17, 48, 16001, 70002, kCount};
  for (size_t i = 0; i + 1 < std::size(cuts); ++i) {
    AdamWArgs args = parts.args(cuts[i]);
    args.count = cuts[i + 1] - cuts[i];
    adamw(args);
  }
  EXPECT_TRUE(same_bits(parts.all(), base));
  expect_same_bits_on_targets(whole);
}

TEST(AdamW, NothingToDoChangesNothing) {
  State s(1);
  const Floats before = s.all();
  AdamWArgs args = s.args();
  args.count = 0;
  adamw(args);
  EXPECT_EQ(s.all(), before);
}

TEST(AdamW, GradScaleIsAProductBeforeTheStep) {
  State scaled(1000), multiplied(1000);
  adamw(scaled.args());
  for (float& g : multiplied.grad) g *= 0.37f;
  AdamWArgs args = multiplied.args();
  args.grad_scale = 1;
  adamw(args);
  EXPECT_TRUE(same_bits(scaled.all(), multiplied.all()));
}

TEST(AdamW, HalfCopyIsTheRoundedParameterInPanelOrder) {
  constexpr int64_t kCount = 3 * (1 << 14) + 192;
  for (const bool f16 : {false, true}) {
    const auto round = f16 ? float_to_half : float_to_bf16;
    State s(kCount), plain(kCount);
    std::vector<uint16_t> half(kCount, 0xffff);
    AdamWArgs args = s.args();
    (f16 ? args.f16 : args.bf16) = half.data();
    adamw(args);
    adamw(plain.args());
    EXPECT_TRUE(same_bits(s.all(), plain.all()));
    for (size_t pair = 0; pair < kCount; pair += 64) {  // Two k of 32 rows.
      for (size_t row = 0; row < 32; ++row) {
        ASSERT_EQ(half[pair + 2 * row], round(s.param[pair + row]));
        ASSERT_EQ(half[pair + 2 * row + 1], round(s.param[pair + 32 + row]));
      }
    }
  }
}

TEST(SumOfSquares, IsTheSumInDouble) {
  for (const int64_t n : {0, 1, 15, 16, 17, 4095, 4096, 4097, 100001}) {
    const Floats x = random_floats(n, 11, 3);
    double expected = 0;
    for (const float v : x) expected += double{v} * double{v};
    EXPECT_NEAR(sum_of_squares(x.data(), n), expected, 1e-6 * expected) << n;
  }
}

TEST(SumOfSquares, BlocksAddInOrderForAnyThreadsAndInstructions) {
  const Floats x = random_floats(300000, 12, 3);
  double expected = 0;
  for (int64_t at = 0; at < 300000; at += 4096) {
    expected += sum_of_squares(x.data() + at, std::min<int64_t>(4096, 300000 - at));
  }
  for (const int threads : {1, 2, 3}) {
    const ThreadScope scope(threads);
    EXPECT_EQ(sum_of_squares(x.data(), 300000), expected) << threads;
  }
  expect_same_bits_on_targets([&] {
    Floats out;
    for (const int64_t n : {33, 4096, 9999})
      out.push_back(static_cast<float>(sum_of_squares(x.data(), n)));
    return out;
  });
}

TEST(ClipFactor, HandWorked) {
  EXPECT_EQ(global_norm(std::vector<double>{9, 16}), 5);
  EXPECT_EQ(global_norm({}), 0);
  EXPECT_EQ(clip_factor(5, 2), 2 / 5.000001);
  EXPECT_EQ(clip_factor(5, 6), 1);
  EXPECT_EQ(clip_factor(5, 5), 5 / 5.000001);  // The bound itself is scaled, as in torch.
  EXPECT_EQ(clip_factor(0, 1), 1);
  EXPECT_EQ(clip_factor(1e300, 0), 1);  // 0: no clipping.
  EXPECT_TRUE(std::isnan(clip_factor(std::nan(""), 1)));
}

// With beta1 = 0 the first moment is the gradient that the step saw.
TEST(SumOfSquares, ClipsAsTorchDoes) {
  const auto golden = SafetensorsFile::open(golden_folder("optim") / "clip_grad_norm.safetensors");
  const auto cases = manifest("optim")["clip_grad_norm"];
  ASSERT_EQ(cases.size(), 5u);
  for (const auto& c : cases) {
    const std::string name = c["name"];
    std::vector<double> squares;
    for (const std::string p : {"matrix", "vector"}) {
      const Floats g = golden_floats(golden, name + "/in/" + p);
      squares.push_back(sum_of_squares(g.data(), std::ssize(g)));
    }
    const double norm = global_norm(squares);
    EXPECT_NEAR(norm, c["norm"].get<double>(), 1e-6 * norm) << name;
    const double scale = clip_factor(norm, c["max_norm"]);
    for (const std::string p : {"matrix", "vector"}) {
      const Floats grad = golden_floats(golden, name + "/in/" + p);
      Floats param(grad.size(), 0.0f), m = param, v = param;
      adamw({.param = param.data(),
             .grad = grad.data(),
             .exp_avg = m.data(),
             .exp_avg_sq = v.data(),
             .count = std::ssize(grad),
             .grad_scale = static_cast<float>(scale),
             .learning_rate = 1e-3,
             .beta1 = 0});
      expect_close(m, golden_floats(golden, name + "/out/" + p), name + "/out/" + p);
    }
  }
}

}  // namespace
}  // namespace temper::kernels
