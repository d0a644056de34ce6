#include "ops_test_util.h"
#include "temper/kernels/adamw.h"

namespace temper::test_ops {
namespace {

TEST(AdamW, ThreeStepsAreThoseOfATen) {
  for (const int64_t n : {1, 31, 33, 1025}) {
    const auto run = [&](auto op) {
      Floats p = random_floats(n, 61), m(p.size()), v(p.size());
      for (int64_t step = 1; step <= 3; ++step) {
        const Floats g = random_floats(n, 62 + static_cast<uint32_t>(step), 0.1f);
        op(kernels::AdamWArgs{.param = p.data(),
                              .grad = g.data(),
                              .exp_avg = m.data(),
                              .exp_avg_sq = v.data(),
                              .count = n,
                              .grad_scale = 0.5f,
                              .learning_rate = 1e-2,
                              .weight_decay = 0.1,
                              .step = step});
      }
      p.insert(p.end(), m.begin(), m.end());
      p.insert(p.end(), v.begin(), v.end());
      return p;
    };
    // Parameters below 1, first moments below 0.05, second ones below 0.0025.
    expect_within(run(kernels::adamw), run(reference().adamw), 1.0, 8, std::to_string(n));
  }
}

// Both round by the same draws, so where their moments differ by a rounding of float32 a stored one
// differs by at most a place, and that for few.
TEST(AdamW, Bfloat16MomentsAreThoseOfATen) {
  for (const int64_t n : {1, 31, 33, 1025}) {
    const auto run = [&](auto op, std::vector<uint16_t>& moments) {
      Floats p = random_floats(n, 71);
      std::vector<uint16_t> m(p.size()), v(p.size());
      for (int64_t step = 1; step <= 3; ++step) {
        const Floats g = random_floats(n, 72 + static_cast<uint32_t>(step), 0.1f);
        op(kernels::AdamWArgs{.param = p.data(),
                              .grad = g.data(),
                              .count = n,
                              .grad_scale = 0.5f,
                              .learning_rate = 1e-2,
                              .weight_decay = 0.1,
                              .step = step,
                              .exp_avg_bf16 = m.data(),
                              .exp_avg_sq_bf16 = v.data(),
                              .rounding_key = static_cast<uint64_t>(step)});
      }
      moments = m;
      moments.insert(moments.end(), v.begin(), v.end());
      return p;
    };
    std::vector<uint16_t> got, want;
    // A place of a moment moves a step of 0.01 by a hundredth of it.
    expect_within(run(kernels::adamw, got), run(reference().adamw, want), 1.0, 1 << 12,
                  std::to_string(n));
    int64_t different = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      different += got[i] != want[i];
      ASSERT_LE(std::abs(got[i] - want[i]), 1) << i;
    }
    EXPECT_LE(different, n / 100) << n;
  }
}

TEST(AdamW, WritesTheRoundedCopyBack) {
  const int64_t n = 64 * 3;
  for (const auto op : {kernels::adamw, reference().adamw}) {
    for (const bool f16 : {false, true}) {
      Floats p = random_floats(n, 66), m(p.size()), v(p.size());
      std::vector<uint16_t> half(p.size()), expected(p.size());
      const Floats g = random_floats(n, 67);
      op(kernels::AdamWArgs{.param = p.data(),
                            .grad = g.data(),
                            .exp_avg = m.data(),
                            .exp_avg_sq = v.data(),
                            .bf16 = f16 ? nullptr : half.data(),
                            .f16 = f16 ? half.data() : nullptr,
                            .count = n,
                            .learning_rate = 1e-3});
      (f16 ? kernels::panels_to_f16 : kernels::panels_to_bf16)(p.data(), n, expected.data());
      EXPECT_EQ(half, expected);
    }
  }
}

TEST(SumOfSquares, IsThatOfATen) {
  for (const int64_t n : {0, 1, 31, 33, 1025, 9000}) {
    for (const float scale : {1e-10f, 1.0f, 1e10f}) {
      const Floats x = random_floats(n, 68, scale);
      const double want = reference().sum_of_squares(x.data(), n);
      EXPECT_NEAR(kernels::sum_of_squares(x.data(), n), want, 16 * kEps * want) << n;
    }
  }
}

}  // namespace
}  // namespace temper::test_ops
