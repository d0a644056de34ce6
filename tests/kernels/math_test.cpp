// The polynomials of src/kernels/cpu/math-inl.h against the double functions of the C++ library.
#include <gtest/gtest.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/math_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>
#include <vector>

#include "cpu/lanes16-inl.h"
#include "kernels/kernel_test_util.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

void ApplyExp(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) store16(exp16(load16(x + i)), y + i);
}

void ApplyLog(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = log1(x[i]);
}

void ApplyTanh(const float* x, float* y, int64_t n) {
  const hn::CappedTag<float, 16> d;
  for (int64_t i = 0; i < n; i += 16) {
    for (size_t j = 0; j < 16; j += hn::Lanes(d)) {
      hn::StoreU(vtanh(d, hn::LoadU(d, x + i + j)), d, y + i + j);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(ApplyExp);
HWY_EXPORT(ApplyLog);
HWY_EXPORT(ApplyTanh);

namespace {

double ulps(float got, double want) {
  const float near = std::fabs(static_cast<float>(want));
  const double ulp = static_cast<double>(std::nextafter(near, HUGE_VALF)) - near;
  return std::fabs(got - want) / ulp;
}

std::vector<float> exp_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(ApplyExp)(x.data(), y.data(), static_cast<int64_t>(x.size()));
  return y;
}

std::vector<float> log_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(ApplyLog)(x.data(), y.data(), static_cast<int64_t>(x.size()));
  return y;
}

TEST(Math, ExpIsWithinTwoUlp) {
  std::vector<float> x;
  for (int i = 0; i < 1 << 20; ++i) x.push_back(-87.3f + static_cast<float>(i) * 1.678e-4f);
  const std::vector<float> y = exp_of(x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] <= 88.7f) worst = std::max(worst, ulps(y[i], std::exp(static_cast<double>(x[i]))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_GT(worst, 0.1);
}

TEST(Math, ExpAtTheEdges) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0.0f, -0.0f, -inf, -1e30f, -87.34f, -104.0f, inf, 89.0f, 1e30f, NAN};
  x.resize(16);
  const std::vector<float> y = exp_of(x);
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  for (int i = 2; i < 6; ++i) EXPECT_EQ(y[static_cast<size_t>(i)], 0.0f) << i;
  for (int i = 6; i < 9; ++i) EXPECT_EQ(y[static_cast<size_t>(i)], inf) << i;
  EXPECT_TRUE(std::isnan(y[9]));
}

TEST(Math, LogIsWithinTwoUlp) {
  std::vector<float> x;
  for (float v = 1.2e-38f; v < 3e38f; v *= 1.00021f) x.push_back(v);
  for (int i = -20000; i < 20000; ++i) x.push_back(1.0f + static_cast<float>(i) * 1.1e-5f);
  const std::vector<float> y = log_of(x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] != 1.0f) worst = std::max(worst, ulps(y[i], std::log(static_cast<double>(x[i]))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_GT(worst, 0.1);
}

TEST(Math, LogAtTheEdges) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> y = log_of({1.0f, 0.0f, -0.0f, inf, -1.0f, NAN, -inf});
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], -inf);
  EXPECT_EQ(y[2], -inf);
  EXPECT_EQ(y[3], inf);
  for (int i = 4; i < 7; ++i) EXPECT_TRUE(std::isnan(y[static_cast<size_t>(i)])) << i;
}

std::vector<float> tanh_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(ApplyTanh)(x.data(), y.data(), static_cast<int64_t>(x.size()));
  return y;
}

TEST(Math, TanhIsWithinTwoUlp) {
  std::vector<float> x;
  for (int i = 0; i < 1 << 20; ++i) x.push_back(static_cast<float>(i - (1 << 19)) * 2e-5f);
  for (float v = 1.2e-38f; v < 0.7f; v *= 1.001f) x.push_back(v);
  x.resize(x.size() / 16 * 16);
  const std::vector<float> y = tanh_of(x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, ulps(y[i], std::tanh(static_cast<double>(x[i]))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_GT(worst, 0.1);
}

TEST(Math, TanhAtTheEdges) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0.0f, -0.0f, inf, -inf, 50.0f, -50.0f, 0.625f, NAN};
  x.resize(16);
  const std::vector<float> y = tanh_of(x);
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_TRUE(std::signbit(y[1]));
  EXPECT_EQ(y[2], 1.0f);
  EXPECT_EQ(y[3], -1.0f);
  EXPECT_EQ(y[4], 1.0f);
  EXPECT_EQ(y[5], -1.0f);
  EXPECT_FLOAT_EQ(y[6], std::tanh(0.625f));
  EXPECT_TRUE(std::isnan(y[7]));
}

TEST(Math, SameBitsOnAllTargets) {
  std::vector<float> x = test::random_floats(4096, 3, 90.0f);
  test::expect_same_bits_on_targets([&] { return tanh_of(x); });
  test::expect_same_bits_on_targets([&] { return exp_of(x); });
  for (float& v : x) v = std::fabs(v) + 1e-6f;
  test::expect_same_bits_on_targets([&] { return log_of(x); });
}

}  // namespace
}  // namespace temper::kernels
#endif  // HWY_ONCE
