#include "temper/kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_test_util.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using test::random_floats;
using test::same_bits;

struct Golden {
  int64_t head_dim;
  double theta;
  int64_t position;
  float cos[5], sin[5];  // At i = 0, 1, 5, head_dim / 4, head_dim / 2 - 1.
};

// Made with torch 2.11: inv = 1 / theta ** (arange(0, d, 2).float() / d); cos and sin of p * inv.
constexpr Golden kGolden[] = {
    {64,
     1e5,
     1,
     {0.540302336f, 0.766237974f, 0.986339092f, 0.999994993f, 1.0f},
     {0.841470957f, 0.642556906f, 0.164727464f, 0.00316227251f, 1.43301268e-05f}},
    {64,
     1e5,
     777,
     {-0.517718196f, -0.285590678f, -0.974567354f, -0.774733543f, 0.999938011f},
     {-0.855551183f, 0.958351672f, 0.224094808f, 0.63228786f, 0.011134278f}},
    {64,
     1e5,
     8191,
     {-0.646390498f, -0.196372911f, -0.136233762f, 0.718274891f, 0.993119121f},
     {-0.763006806f, -0.980529308f, -0.990676701f, 0.695759416f, 0.117108725f}},
    {128,
     1e6,
     5,
     {0.2836622f, -0.631260931f, -0.127956092f, 0.999987483f, 1.0f},
     {-0.958924294f, -0.775570512f, 0.991779804f, 0.0049999794f, 6.20468882e-06f}},
    {128,
     1e6,
     4095,
     {-0.0659759939f, 0.313858807f, -0.987344682f, -0.578907907f, 0.999987066f},
     {-0.997821212f, 0.949469686f, 0.158588961f, -0.815392911f, 0.0050816182f}},
    {128,
     1e6,
     32000,
     {0.965674281f, 0.725750804f, -0.348873526f, 0.83422333f, 0.999211669f},
     {-0.259755939f, 0.687957704f, -0.93716979f, 0.551426709f, 0.0396995731f}},
};

TEST(Rope, TableMatchesGoldenValues) {
  for (const Golden& g : kGolden) {
    const RopeTable t = make_rope_table(g.head_dim, g.position + 1, g.theta);
    ASSERT_EQ(t.half, g.head_dim / 2);
    const int64_t columns[] = {0, 1, 5, g.head_dim / 4, g.head_dim / 2 - 1};
    for (size_t c = 0; c < 5; ++c) {
      const auto at = static_cast<size_t>(g.position * t.half + columns[c]);
      EXPECT_NEAR(t.cos[at], g.cos[c], 1e-6) << g.position << " " << columns[c];
      EXPECT_NEAR(t.sin[at], g.sin[c], 1e-6) << g.position << " " << columns[c];
    }
  }
}

TEST(Rope, Llama3ScalingMatchesGoldenValues) {
  // Made with transformers 5.23, rope_type llama3 of head_dim 64, theta 5e5; sin at position 5000.
  constexpr float kSin[32] = {-0.987966418f, 0.465770811f,   0.410901219f,    -0.29415974f,
                              0.9079476f,    0.556032181f,   -0.267788291f,   0.568552077f,
                              -0.448787302f, -0.774965167f,  0.900448263f,    -0.99954325f,
                              -0.944407046f, -0.804976463f,  -0.342208892f,   0.16874364f,
                              0.83810991f,   0.466574878f,   0.0971546993f,   0.0645289719f,
                              0.0428381674f, 0.0284323301f,  0.0188691523f,   0.0125220092f,
                              0.0083097415f, 0.0055143903f,  0.00365936663f,  0.00242836331f,
                              0.0016114657f, 0.00106937089f, 0.000709635962f, 0.000470915285f};
  const Llama3Scaling scaling{32.0, 1.0, 4.0, 8192};
  const RopeTable t = make_rope_table(64, 5001, 5e5, &scaling);
  for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(t.sin[5000 * 32 + i], kSin[i], 1e-6) << i;
}

TEST(Rope, RotatesHalvesOfEveryHead) {
  for (const int64_t head_dim : {8, 64, 72}) {
    const int64_t heads = 3, half = head_dim / 2, stride = heads * head_dim + 5;
    const RopeTable t = make_rope_table(head_dim, 100, 1e4);
    const std::vector<int32_t> positions = {0, 99, 7, 7};
    const auto x = random_floats(4 * stride, 1);
    auto y = x;
    rope(y.data(), stride, positions, heads, t, false);
    for (int64_t row = 0; row < 4; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        for (int64_t i = 0; i < half; ++i) {
          const int64_t at = row * stride + head * head_dim + i;
          const double angle = positions[row] * std::pow(1e4, -2.0 * i / head_dim);
          const double c = std::cos(angle), s = std::sin(angle);
          ASSERT_NEAR(y[at], x[at] * c - x[at + half] * s, 1e-5);
          ASSERT_NEAR(y[at + half], x[at + half] * c + x[at] * s, 1e-5);
        }
      }
      for (int64_t i = heads * head_dim; i < stride; ++i) {
        EXPECT_EQ(y[row * stride + i], x[row * stride + i]);
      }
    }
    rope(y.data(), stride, positions, heads, t, true);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], x[i], 1e-6);
  }
}

TEST(Rope, RowAloneThreadsAndTargetsGiveTheSameBits) {
  const int64_t heads = 9, head_dim = 64, rows = 65, width = heads * head_dim;
  const RopeTable t = make_rope_table(head_dim, 2000, 1e5);
  std::vector<int32_t> positions;
  for (int32_t row = 0; row < rows; ++row) positions.push_back(row * 29);
  const auto x = random_floats(rows * width, 2);
  const auto run = [&] {
    auto y = x;
    rope(y.data(), width, positions, heads, t, false);
    return y;
  };
  const auto want = run();
  for (const int threads : {1, 2, 3}) {
    const test::ThreadScope scope(threads);
    EXPECT_TRUE(same_bits(run(), want));
  }
  std::vector<float> one(x.begin() + 50 * width, x.begin() + 51 * width);
  rope(one.data(), width, std::span(positions).subspan(50, 1), heads, t, false);
  EXPECT_TRUE(same_bits(one, {want.begin() + 50 * width, want.begin() + 51 * width}));
  test::expect_same_bits_on_targets(run);
}

TEST(Rope, RefusesPositionsOutsideTheTable) {
  const RopeTable t = make_rope_table(8, 10, 1e4);
  std::vector<float> x(8);
  const std::vector<int32_t> far = {10}, negative = {-1};
  EXPECT_THROW(rope(x.data(), 8, far, 1, t, false), Error);
  EXPECT_THROW(rope(x.data(), 8, negative, 1, t, false), Error);
  EXPECT_THROW((void)make_rope_table(7, 10, 1e4), Error);
  EXPECT_THROW((void)make_rope_table(8, 10, 0.0), Error);
}

}  // namespace
}  // namespace temper::kernels
