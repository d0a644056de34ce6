// The scalar functions of math.cuh against the vector functions of cpu/math-inl.h: the same bits.
#include <gtest/gtest.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cuda_sim/math_sim_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>
#include <vector>

#include "cpu/lanes16-inl.h"
#include "cuda/math.cuh"
#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Exponential, logarithm, logistic function and hyperbolic tangent of n floats, n a multiple of
/// 16: y[4, n].
void ApplyAll(const float* x, float* y, int64_t n) {
  const D16 d;
  for (int64_t i = 0; i < n; i += 16) {
    store16(exp16(load16(x + i)), y + i);
    store16(sigmoid16(load16(x + i)), y + 2 * n + i);
    for (int64_t j = i; j < i + 16; j += kPartLanes) {
      hn::StoreU(vlog(d, hn::LoadU(d, x + j)), d, y + n + j);
      hn::StoreU(vtanh(d, hn::LoadU(d, x + j)), d, y + 3 * n + j);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(ApplyAll);

namespace {

/// Every 4099th float of all signs and exponents, and the edges.
std::vector<float> all_kinds_of_floats() {
  std::vector<float> x = {0.0f,   -0.0f,           1.0f,      -87.33f,
                          88.72f, INFINITY,        -INFINITY, NAN,
                          -NAN,   1.17549435e-38f, 1e-40f,    std::numeric_limits<float>::max()};
  for (const float edge : {-87.33f, 88.72f, 1.17549435e-38f, 1.0f, 0.70710678f, 1.41421356f}) {
    float below = edge, above = edge;
    for (int i = 0; i < 64; ++i) {
      x.push_back(below = std::nextafter(below, -INFINITY));
      x.push_back(above = std::nextafter(above, INFINITY));
    }
  }
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099) {
    x.push_back(sim::bit_copy<float>(static_cast<uint32_t>(bits)));
  }
  for (const float v : test::random_floats(1 << 16, 5, 90.0f)) x.push_back(v);
  x.resize((x.size() + 15) / 16 * 16, 0.5f);
  return x;
}

/// NaN is one value here: which NaN an operation makes differs between processors.
uint32_t bits(float v) {
  if (std::isnan(v)) v = NAN;
  return sim::bit_copy<uint32_t>(v);
}

TEST(MathSim, HasTheBitsOfTheVectorFunctions) {
  const std::vector<float> x = all_kinds_of_floats();
  const size_t n = x.size();
  std::vector<float> y(4 * n);
  HWY_DYNAMIC_DISPATCH(ApplyAll)(x.data(), y.data(), static_cast<int64_t>(n));
  int64_t exp_differs = 0, log_differs = 0, sigmoid_differs = 0, tanh_differs = 0;
  for (size_t i = 0; i < n; ++i) {
    exp_differs += bits(cuda::vexp(x[i])) != bits(y[i]);
    log_differs += bits(cuda::vlog(x[i])) != bits(y[n + i]);
    sigmoid_differs += bits(cuda::vsigmoid(x[i])) != bits(y[2 * n + i]);
    tanh_differs += bits(cuda::vtanh(x[i])) != bits(y[3 * n + i]);
  }
  EXPECT_EQ(exp_differs, 0);
  EXPECT_EQ(log_differs, 0);
  EXPECT_EQ(sigmoid_differs, 0);
  EXPECT_EQ(tanh_differs, 0);
}

TEST(MathSim, BfloatConversionsHaveTheBitsOfCore) {
  for (const float v : all_kinds_of_floats()) {
    ASSERT_EQ(cuda::float_to_bf16(v), float_to_bf16(v)) << v;
  }
  for (uint32_t b = 0; b < 65536; ++b) {
    ASSERT_EQ(sim::bit_copy<uint32_t>(cuda::bf16_to_float(static_cast<uint16_t>(b))), b << 16);
  }
  const uint32_t word = cuda::pack_bf16(1.5f, -2.0f);
  EXPECT_EQ(word, 0xc0003fc0u);  // -2 = 0xc000 above 1.5 = 0x3fc0.
  EXPECT_EQ(cuda::bf16_low(word), 1.5f);
  EXPECT_EQ(cuda::bf16_high(word), -2.0f);
}

// But for NaN, which is one number on the device.
TEST(MathSim, HalfConversionsHaveTheBitsOfCore) {
  for (const float v : all_kinds_of_floats()) {
    if (std::isnan(v)) continue;
    const uint32_t other = float_to_half(1.5f);
    ASSERT_EQ(cuda::pack_half(v, 1.5f), float_to_half(v) | other << 16) << v;
    ASSERT_EQ(cuda::pack_half(1.5f, v), other | static_cast<uint32_t>(float_to_half(v)) << 16) << v;
  }
  for (uint32_t b = 0; b < 65536; ++b) {
    const float want = half_to_float(static_cast<uint16_t>(b));
    const float low = cuda::HalfWords::low(0xabcd0000u | b);
    const float high = cuda::HalfWords::high(b << 16 | 0xabcdu);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(low) && std::isnan(high)) << b;
    } else {
      ASSERT_TRUE(bits(low) == bits(want) && bits(high) == bits(want)) << b;
    }
  }
}

}  // namespace
}  // namespace temper::kernels
#endif  // HWY_ONCE
