// Golden vectors: tests/golden/make_rl.py (torch's mean and unbiased variance). References sum in
// long double.
#include "temper/kernels/masked_stats.h"

#include <gtest/gtest.h>

#include <cmath>

#include "golden_numbers.h"
#include "kernel_test_util.h"
#include "ragged_case.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using namespace test;
using Floats = std::vector<float>;
using Mask = std::vector<uint8_t>;

struct Input {
  Floats x;
  Mask mask;
};

/// About 70 % active; NaN elsewhere.
Input input(int64_t n) {
  Input in{uniform_floats(n, 50, -1, 4), {}};
  const Floats draw = uniform_floats(n, 51, 0, 1);
  for (size_t i = 0; i < draw.size(); ++i) {
    in.mask.push_back(draw[i] < 0.7f ? 1 : 0);
    if (in.mask[i] == 0) in.x[i] = kNaNf;
  }
  return in;
}

Floats whitened(const Input& in, const MaskedStats& stats, bool shift_mean = true) {
  Floats y(in.x.size(), kNaNf);
  whiten({.x = in.x.data(),
          .mask = in.mask.data(),
          .count = std::ssize(in.x),
          .stats = &stats,
          .shift_mean = shift_mean,
          .y = y.data()});
  return y;
}

MaskedStats stats_of(const Input& in) {
  return masked_stats(in.x.data(), in.mask.data(), std::ssize(in.x));
}

TEST(MaskedStats, IsTheSumInLongDoubleForEverySize) {
  for (const int64_t n : {0, 1, 2, 31, 32, 33, 255, 1025, 4095, 4096, 4097, 100001}) {
    const Input in = input(n);
    long double sum = 0, squares = 0;
    int64_t count = 0;
    for (size_t i = 0; i < in.x.size(); ++i) {
      if (in.mask[i] == 0) continue;
      sum += in.x[i];
      ++count;
    }
    const long double mean = count > 0 ? sum / count : 0;
    for (size_t i = 0; i < in.x.size(); ++i) {
      if (in.mask[i] != 0) squares += (in.x[i] - mean) * (in.x[i] - mean);
    }
    const MaskedStats got = stats_of(in);
    EXPECT_EQ(got.count, count);
    EXPECT_NEAR(got.sum, static_cast<double>(sum), 1e-13 * static_cast<double>(n)) << n;
    EXPECT_NEAR(got.mean, static_cast<double>(mean), 1e-13) << n;
    const double variance = count > 1 ? static_cast<double>(squares / (count - 1)) : 0;
    EXPECT_NEAR(got.variance, variance, 1e-13) << n;
  }
}

TEST(MaskedStats, WithoutAMaskAllCount) {
  const Floats x = {1, 2, 3, 4};
  const MaskedStats got = masked_stats(x.data(), nullptr, 4);
  EXPECT_EQ(got.count, 4);
  EXPECT_EQ(got.sum, 10);
  EXPECT_EQ(got.mean, 2.5);
  EXPECT_DOUBLE_EQ(got.variance, 5.0 / 3);
}

TEST(MaskedStats, NoneOrOneActive) {
  const Floats x = {kNaNf, 7, kNaNf};
  Mask mask = {0, 0, 0};
  const MaskedStats none = masked_stats(x.data(), mask.data(), 3);
  EXPECT_EQ(none.count, 0);
  EXPECT_EQ(none.mean, 0);
  EXPECT_EQ(none.variance, 0);
  EXPECT_EQ(whitened({x, mask}, none), Floats(3, 0.0f));
  mask[1] = 1;
  const MaskedStats one = masked_stats(x.data(), mask.data(), 3);
  EXPECT_EQ(one.mean, 7);
  EXPECT_EQ(one.variance, 0);
  EXPECT_EQ(whitened({x, mask}, one), Floats(3, 0.0f));
}

// A variance as mean of squares minus square of mean would be off by 1e4 here in float.
TEST(MaskedStats, SurvivesALargeMean) {
  const Floats x = {16777216.0f, 16777218.0f, 16777220.0f};
  EXPECT_EQ(masked_stats(x.data(), nullptr, 3).variance, 4);
}

TEST(MaskedStats, ThreadsChangeNoBit) {
  const Input in = input(200003);
  const ThreadScope one(1);
  const MaskedStats base = stats_of(in);
  for (const int threads : {2, 3, 5}) {
    const ThreadScope scope(threads);
    const MaskedStats got = stats_of(in);
    EXPECT_EQ(got.sum, base.sum);
    EXPECT_EQ(got.variance, base.variance);
  }
}

TEST(MaskedStats, BlocksOfLanesAddInTheStatedOrder) {
  // A one that meets 2^53 alone is lost, in its lane (element 32) or by halving (lane 16); those
  // that joined others before (lanes 8 and 24, then 4, 12, 20, 28, ...) are not.
  Floats x(33, 1.0f);
  x[0] = 9007199254740992.0f;
  EXPECT_EQ(masked_stats(x.data(), nullptr, 33).sum, 9007199254740992.0 + 2 + 4 + 8 + 16);
  // The next block is added whole.
  Floats two(4096 + 2, 0.0f);
  two[0] = 9007199254740992.0f;
  two[4096] = two[4097] = 1.0f;
  EXPECT_EQ(masked_stats(two.data(), nullptr, 4098).sum, 9007199254740994.0);
}

TEST(Whiten, IsThatOfTorch) {
  const nlohmann::json golden = manifest("rl")["whiten"];
  Input in{golden["x"], golden["mask"]};
  for (size_t i = 0; i < in.x.size(); ++i) {
    if (in.mask[i] == 0) in.x[i] = kNaNf;
  }
  const MaskedStats stats = stats_of(in);
  EXPECT_NEAR(stats.mean, golden["mean"].get<double>(), 1e-14);
  EXPECT_NEAR(stats.variance, golden["variance"].get<double>(), 1e-13);
  for (const bool shift : {true, false}) {
    const Floats got = whitened(in, stats, shift);
    const std::vector<double> expected = golden[shift ? "whitened" : "whitened_keeping_mean"];
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], 6e-8 * std::abs(expected[i]) + 1e-15) << i;
    }
  }
}

TEST(Whiten, HandWorked) {
  const Floats a = {0.7505f, 0.59f, 0.40f, -0.576f, -0.28f};
  const MaskedStats stats = masked_stats(a.data(), nullptr, 5);
  EXPECT_NEAR(stats.mean, 0.1769, 1e-8);
  EXPECT_NEAR(stats.variance, 0.33126455, 1e-8);
  Floats y = a;
  whiten({.x = y.data(), .count = 5, .stats = &stats, .y = y.data()});  // In place.
  const double expected[] = {0.9966017714, 0.7177409201, 0.3876252706, -1.3081266975,
                             -0.7938412645};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(y[i], expected[i], 1e-7) << i;
}

TEST(Whiten, ResultHasMeanZeroAndVarianceOne) {
  Input in = input(1025);
  in.x = whitened(in, stats_of(in));
  const MaskedStats again = stats_of(in);
  EXPECT_NEAR(again.mean, 0, 1e-8);
  EXPECT_NEAR(again.variance, 1, 1e-6);
}

TEST(MaskedStats, BadArgumentsAreRefused) {
  EXPECT_THROW((void)masked_stats(nullptr, nullptr, -1), Error);
  EXPECT_THROW(whiten({.count = -1}), Error);
  whiten({});  // Nothing to do.
}

}  // namespace
}  // namespace temper::kernels
