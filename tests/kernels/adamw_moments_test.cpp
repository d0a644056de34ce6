// Moments in bfloat16. Expectations: values worked by hand, the exact moments of the float32 update,
// and laws of large numbers with their bounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/adamw.h"

namespace temper::kernels {
namespace {

using namespace test;
using Floats = std::vector<float>;
using Halves = std::vector<uint16_t>;

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

// 1 is 0x3f80 and 1 + 2^-7 is 0x3f81; 1 + 2^-9 is a quarter of the way, so a quarter of all 2^16
// draws takes it up.
TEST(RoundMoment, HandWorked) {
  const float quarter = 1.0f + 0x1p-9f;
  EXPECT_EQ(round_moment(quarter, 0x0000), 0x3f80);
  EXPECT_EQ(round_moment(quarter, 0xbfff), 0x3f80);
  EXPECT_EQ(round_moment(quarter, 0xc000), 0x3f81);
  EXPECT_EQ(round_moment(quarter, 0xffff), 0x3f81);
  EXPECT_EQ(round_moment(quarter, 0xabcd0000), 0x3f80) << "only the low half counts";
  EXPECT_EQ(round_moment(-quarter, 0xbfff), 0xbf80) << "magnitudes are rounded";
  EXPECT_EQ(round_moment(-quarter, 0xc000), 0xbf81);
  EXPECT_EQ(round_moment(1.0f, 0xffff), 0x3f80) << "what bfloat16 holds stays";
  EXPECT_EQ(round_moment(0.0f, 0xffff), 0);
  EXPECT_EQ(round_moment(from_bits(0x3fffc000), 0x4000), 0x4000) << "to the next power of 2";
  EXPECT_EQ(round_moment(from_bits(0x00000001), 0xffff), 1) << "the smallest subnormal";
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(round_moment(infinity, 0xffff), 0x7f80);
  EXPECT_EQ(round_moment(-infinity, 0xffff), 0xff80);
  for (const uint32_t nan : {0x7fffffffu, 0xffffffffu, 0x7f800001u}) {
    EXPECT_TRUE(std::isnan(bf16_to_float(round_moment(from_bits(nan), 0xffff)))) << nan;
  }
}

TEST(RoundMoment, EveryDrawTogetherGivesTheValue) {
  for (const float value : {0.3f, -1.7f, 3e-20f, 12345.678f}) {
    double sum = 0;
    for (uint32_t random = 0; random < 0x10000; ++random) {
      sum += double{bf16_to_float(round_moment(value, random))};
    }
    EXPECT_NEAR(sum / 0x10000, value, 1e-12 * std::abs(value));  // Exact but for the double sum.
  }
}

constexpr int64_t kDraws = 1 << 20;
constexpr uint64_t kKey = 0x0123456789abcdefull;

/// A draw's halves as numbers in [-0.5, 0.5).
std::array<double, 2> centred(uint32_t draw) {
  return {(draw & 0xffffu) / 65536.0 - 0.5, (draw >> 16) / 65536.0 - 0.5};
}

// 256 bins of 4096 expected: chi squared has mean 255 and deviation sqrt(510) = 22.6.
TEST(MomentDraw, HalvesAreUniform) {
  for (const uint64_t key : {uint64_t{0}, uint64_t{1}, kKey}) {
    for (const int shift : {8, 24}) {  // The upper bytes of both halves, which decide the most.
      std::array<double, 256> bins{};
      for (int64_t i = 0; i < kDraws; ++i) bins[moment_draw(key, i) >> shift & 0xffu]++;
      double chi = 0;
      for (const double n : bins) chi += (n - 4096) * (n - 4096) / 4096;
      EXPECT_NEAR(chi, 255, 5 * 22.6) << key << " " << shift;
    }
  }
}

// Of independent uniform numbers a correlation has deviation 1 / sqrt(n).
TEST(MomentDraw, NeighboursKeysAndHalvesAreIndependent) {
  const auto correlation = [](const auto& pair) {
    double sum = 0;
    for (int64_t i = 0; i < kDraws; ++i) {
      const auto [a, b] = pair(i);
      sum += a * b;
    }
    return 12 * sum / kDraws * std::sqrt(kDraws);
  };
  const auto draw = [](uint64_t key, int64_t i, size_t half) {
    return centred(moment_draw(key, i))[half];
  };
  for (const size_t half : {size_t{0}, size_t{1}}) {
    for (const int64_t apart : {1, 2, 32, 64, 4096}) {
      EXPECT_LT(std::abs(correlation([&](int64_t i) {
                  return std::pair(draw(kKey, i, half), draw(kKey, i + apart, half));
                })), 5) << apart;
    }
    for (const uint64_t other : {kKey + 1, kKey ^ (uint64_t{1} << 32), kKey ^ (uint64_t{1} << 63)}) {
      EXPECT_LT(std::abs(correlation([&](int64_t i) {
                  return std::pair(draw(kKey, i, half), draw(other, i, half));
                })), 5) << other;
    }
  }
  EXPECT_LT(std::abs(correlation([&](int64_t i) {
              return std::pair(draw(kKey, i, 0), draw(kKey, i, 1));
            })), 5);
}

/// Parameters whose moments bfloat16 holds, in both types.
struct State {
  Floats param, grad, m, v;
  Halves m16, v16;

  explicit State(int64_t n)
      : param(random_floats(n, 1)), grad(random_floats(n, 2, 0.1f)) {
    for (const float x : random_floats(n, 3, 0.1f)) m16.push_back(float_to_bf16(x));
    for (const float x : random_floats(n, 4, 0.01f)) v16.push_back(float_to_bf16(std::abs(x)));
    for (const uint16_t x : m16) m.push_back(bf16_to_float(x));
    for (const uint16_t x : v16) v.push_back(bf16_to_float(x));
  }
  AdamWArgs args(bool rounded, int64_t begin = 0) {
    AdamWArgs a{.param = param.data() + begin, .grad = grad.data() + begin,
                .count = std::ssize(param) - begin, .grad_scale = 0.37f, .learning_rate = 3e-3,
                .beta2 = 0.99, .weight_decay = 0.1, .step = 7, .rounding_key = kKey, .first = begin};
    if (rounded) {
      a.exp_avg_bf16 = m16.data() + begin;
      a.exp_avg_sq_bf16 = v16.data() + begin;
    } else {
      a.exp_avg = m.data() + begin;
      a.exp_avg_sq = v.data() + begin;
    }
    return a;
  }
  Floats all() const {
    Floats out = param;
    for (const auto* moments : {&m16, &v16}) {
      for (const uint16_t x : *moments) out.push_back(bf16_to_float(x));
    }
    return out;
  }
};

TEST(AdamWMoments, AreThoseOfFloat32RoundedByTheirDraws) {
  for (const int64_t n : {1, 15, 16, 17, 1025}) {
    State rounded(n), exact(n);
    adamw(rounded.args(true));
    adamw(exact.args(false));
    EXPECT_TRUE(same_bits(rounded.param, exact.param)) << "the step takes the moments unrounded";
    for (size_t i = 0; i < rounded.m16.size(); ++i) {
      const uint32_t draw = moment_draw(kKey, static_cast<int64_t>(i));
      ASSERT_EQ(rounded.m16[i], round_moment(exact.m[i], draw)) << i;
      ASSERT_EQ(rounded.v16[i], round_moment(exact.v[i], draw >> 16)) << i;
    }
  }
}

TEST(AdamWMoments, BitsDoNotDependOnSplitsThreadsOrInstructions) {
  constexpr int64_t kCount = 70003;
  const auto whole = [] {
    State s(kCount);
    adamw(s.args(true));
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
    AdamWArgs args = parts.args(true, cuts[i]);
    args.count = cuts[i + 1] - cuts[i];
    adamw(args);
  }
  EXPECT_TRUE(same_bits(parts.all(), base));
  expect_same_bits_on_targets(whole);
}

// v = 1 decays to 0.999, less than half of the 2^-8 below 1: rounded to nearest it would stay at 1
// for ever. Of n elements the mean of what is stored has deviation 2^-8 sqrt(p (1 - p) / n).
TEST(AdamWMoments, MoveInExpectationWhereNearestWouldStay) {
  constexpr int64_t kCount = 200000;
  constexpr int kSteps = 20;
  Floats param(kCount, 0.0f), grad(kCount, 0.0f);
  Halves m(kCount, float_to_bf16(0.5f)), v(kCount, float_to_bf16(1.0f));
  EXPECT_EQ(float_to_bf16(0.999f), float_to_bf16(1.0f));
  double m_exact = 0.5, v_exact = 1;
  for (int step = 1; step <= kSteps; ++step) {
    adamw({.param = param.data(), .grad = grad.data(), .count = kCount, .beta1 = 0.998,
           .step = step, .exp_avg_bf16 = m.data(), .exp_avg_sq_bf16 = v.data(),
           .rounding_key = kKey + static_cast<uint64_t>(step) * 0x9e3779b97f4a7c15ull});
    m_exact *= 0.998;
    v_exact *= 0.999;
    double m_sum = 0, v_sum = 0;
    for (const uint16_t x : m) m_sum += double{bf16_to_float(x)};
    for (const uint16_t x : v) v_sum += double{bf16_to_float(x)};
    // Errors of earlier steps are kept, so variances add up to at most step / 4 of a place's square.
    const double deviation = 0x1p-8 * std::sqrt(step / 4.0 / kCount);
    EXPECT_NEAR(m_sum / kCount, m_exact, 5 * deviation / 2) << step;
    EXPECT_NEAR(v_sum / kCount, v_exact, 5 * deviation) << step;
  }
  EXPECT_LT(v_exact, 0.981);
}

}  // namespace
}  // namespace temper::kernels
