#include "temper/kernels/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_test_util.h"

namespace temper::kernels {
namespace {

using test::random_floats;
using test::same_bits;

std::vector<float> run(const std::vector<float>& gate_up, int64_t width) {
  std::vector<float> y(gate_up.size() / 2);
  swiglu(gate_up.data(), y.data(), std::ssize(gate_up) / (2 * width), width);
  return y;
}

std::vector<float> run_backward(const std::vector<float>& dy, const std::vector<float>& gate_up,
                                int64_t width) {
  std::vector<float> d(gate_up.size());
  swiglu_backward(dy.data(), gate_up.data(), d.data(), std::ssize(gate_up) / (2 * width), width);
  return d;
}

double silu(double g) { return g / (1 + std::exp(-g)); }

TEST(Swiglu, MatchesDoubleFormula) {
  for (const int64_t width : {1, 31, 32, 33, 1025}) {
    const auto x = random_floats(3 * 2 * width, 1, 20.0f);
    const auto y = run(x, width);
    for (int64_t row = 0; row < 3; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const double g = x[row * 2 * width + i], u = x[row * 2 * width + width + i];
        const double want = silu(g) * u;
        ASSERT_NEAR(y[row * width + i], want, 4e-7 * std::fabs(want) + 1e-30) << g << " " << u;
      }
    }
  }
}

TEST(Swiglu, SaturatesAtTheEnds) {
  const auto y = run({0.0f, 200.0f, -200.0f, NAN, 3.0f, 3.0f, 3.0f, 3.0f}, 4);
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], 600.0f);
  EXPECT_EQ(y[2], 0.0f);
  EXPECT_TRUE(std::isnan(y[3]));
}

TEST(Swiglu, GradientMatchesFiniteDifferencesInDouble) {
  const int64_t width = 37;
  const auto x = random_floats(2 * 2 * width, 2, 4.0f);
  const auto dy = random_floats(2 * width, 3);
  const auto d = run_backward(dy, x, width);
  const double h = 1e-5;
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      const double g = x[row * 2 * width + i], u = x[row * 2 * width + width + i];
      const double slope = (silu(g + h) - silu(g - h)) / (2 * h);
      ASSERT_NEAR(d[row * 2 * width + i], dy[row * width + i] * u * slope, 2e-6);
      ASSERT_NEAR(d[row * 2 * width + width + i], dy[row * width + i] * silu(g), 2e-6);
    }
  }
}

TEST(Swiglu, RowAloneThreadsAndTargetsGiveTheSameBits) {
  const int64_t rows = 65, width = 1000;
  const auto x = random_floats(rows * 2 * width, 4, 5.0f);
  const auto dy = random_floats(rows * width, 5);
  const auto y = run(x, width);
  const std::vector<float> one(x.begin() + 40 * 2 * width, x.begin() + 41 * 2 * width);
  EXPECT_TRUE(same_bits(run(one, width), {y.begin() + 40 * width, y.begin() + 41 * width}));
  const auto d = run_backward(dy, x, width);
  for (const int threads : {1, 2, 3}) {
    const test::ThreadScope scope(threads);
    EXPECT_TRUE(same_bits(run(x, width), y));
    EXPECT_TRUE(same_bits(run_backward(dy, x, width), d));
  }
  test::expect_same_bits_on_targets([&] { return run(x, width); });
  test::expect_same_bits_on_targets([&] { return run_backward(dy, x, width); });
}

TEST(AddInplace, AddsEveryElement) {
  for (const int64_t n : {0, 1, 15, 16, 17, 70001}) {
    const auto x = random_floats(n, 6), y = random_floats(n, 7);
    std::vector<float> sum = x;
    add_inplace(sum.data(), y.data(), n);
    for (size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], x[i] + y[i]);
  }
}

}  // namespace
}  // namespace temper::kernels
