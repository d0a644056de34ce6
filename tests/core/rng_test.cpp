#include "temper/core/rng.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10 rounds).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32(0, {0, 0, 0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox4x32(0xffffffffffffffffull, {~0u, ~0u, ~0u, ~0u}),
            (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox4x32(0x299f31d0a4093822ull, {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}),
            (std::array<uint32_t, 4>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Philox, UniformIsInRangeAndCoversIt) {
  EXPECT_EQ(uniform_from_bits(0, 0), 0.0);
  EXPECT_LT(uniform_from_bits(~0u, ~0u), 1.0);
  double sum = 0;
  RngStream stream(7, RngPurpose::kTest, 3);
  for (int i = 0; i < 10000; ++i) sum += stream.next_uniform();
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);
}

TEST(Philox, EveryCoordinateMatters) {
  const auto base = keyed_random(1, RngPurpose::kSample, 2, 3, 4);
  EXPECT_EQ(base, keyed_random(1, RngPurpose::kSample, 2, 3, 4));
  EXPECT_NE(base, keyed_random(2, RngPurpose::kSample, 2, 3, 4));
  EXPECT_NE(base, keyed_random(1, RngPurpose::kTask, 2, 3, 4));
  EXPECT_NE(base, keyed_random(1, RngPurpose::kSample, 3, 3, 4));
  EXPECT_NE(base, keyed_random(1, RngPurpose::kSample, 2, uint64_t{3} << 32, 4));
  EXPECT_NE(base, keyed_random(1, RngPurpose::kSample, 2, 3, 5));
}

}  // namespace
}  // namespace temper
