// Oracles: the C library's long double logarithm; the order of floats; exact integers.
#include "logits_formula.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernel_test_util.h"

namespace temper::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// |natural_log(x) - ln x| in units of the last place of ln x.
double log_error(double x) {
  const long double exact = logl(static_cast<long double>(x));
  const double rounded = static_cast<double>(exact);
  const double ulp = std::nextafter(std::abs(rounded), kInfinity) - std::abs(rounded);
  return static_cast<double>(fabsl(static_cast<long double>(natural_log(x)) - exact)) / ulp;
}

TEST(NaturalLog, IsWithinOneUnitInTheLastPlace) {
  double worst = 0;
  uint64_t state = 1;
  for (int i = 0; i < 200000; ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    // All positive normal numbers, then those that sums of exponentials are.
    const double any = std::bit_cast<double>((state >> 1) % 0x7ff0000000000000ull);
    const double sum = 1 + std::ldexp(static_cast<double>(state >> 11), -53 + i % 20);
    worst = std::max({worst, log_error(any), log_error(sum), log_error(2 - sum / (1 << 20))});
  }
  EXPECT_LT(worst, 1.0);
  EXPECT_EQ(natural_log(1.0), 0.0);
  EXPECT_LT(log_error(5e-324), 1.0);
}

TEST(NaturalLog, HasTheLimitsOfTheLogarithm) {
  EXPECT_EQ(natural_log(0.0), -kInfinity);
  EXPECT_EQ(natural_log(-0.0), -kInfinity);
  EXPECT_EQ(natural_log(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(natural_log(-1.0)));
  EXPECT_TRUE(std::isnan(natural_log(std::nan(""))));
}

TEST(OrderedKey, HasTheOrderOfFloatsAndComesBack) {
  std::vector<float> z = test::random_floats(500, 1, 30);
  z.insert(z.end(), {-std::numeric_limits<float>::infinity(), -1e38f, -1e-45f, 0.0f, 1e-45f, 1.0f,
                     std::numeric_limits<float>::infinity()});
  for (const float a : z) {
    EXPECT_EQ(logit_of(ordered_key(a)), a);
    for (const float b : z) ASSERT_EQ(ordered_key(a) < ordered_key(b), a < b) << a << " " << b;
  }
  EXPECT_EQ(ordered_key(-0.0f), ordered_key(0.0f));
  EXPECT_EQ(ordered_key(-std::numeric_limits<float>::infinity()), kKeyOfMinusInfinity);
}

TEST(MassToRemove, IsTheComplementOfTopPAndLeavesTheLargest) {
  EXPECT_EQ(mass_of(1.0f), Mass{1} << 40);
  EXPECT_EQ(mass_of(0.0f), 0u);
  EXPECT_EQ(mass_to_remove(1000, 0.75f), 250u);
  EXPECT_EQ(mass_to_remove(1000, 1e-30f), 999u);  // 1 - p rounds to 1.
  EXPECT_EQ(mass_to_remove(1000, 1.0f), 0u);
}

TEST(RowFormulas, OfTwoEqualLogits) {
  const RowStats s{0, 2, 0};
  EXPECT_EQ(row_logprob(s, 0, 1), static_cast<float>(-std::log(2.0)));
  EXPECT_EQ(row_entropy(s), static_cast<float>(std::log(2.0)));
  EXPECT_EQ(row_log_sum(s), static_cast<float>(std::log(2.0)));
  EXPECT_EQ(row_kl_from(0, s, s), 0.0f);
  EXPECT_EQ(log_kept_mass({0, 1, 0}, s), static_cast<float>(-std::log(2.0)));
  EXPECT_EQ(penalized(3, 2), 1.5f);
  EXPECT_EQ(penalized(-3, 2), -6.0f);
}

}  // namespace
}  // namespace temper::kernels
