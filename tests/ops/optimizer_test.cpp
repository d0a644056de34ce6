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
