// Golden vectors: tests/golden/make_rl.py (torch, autograd in float64). References are the formulas
// in long double.
#include "temper/kernels/kl_penalty.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "golden_numbers.h"
#include "kernel_test_util.h"
#include "ragged_case.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using namespace test;
using Floats = std::vector<float>;

struct Kl {
  Floats value, slope;
};

Kl run(const Floats& lp, const Floats& ref, KlEstimator estimator, const uint8_t* mask = nullptr,
       const float* exact = nullptr) {
  Kl out{Floats(lp.size(), kNaNf), Floats(lp.size(), kNaNf)};
  kl_penalty({.logprobs = lp.data(),
              .ref_logprobs = ref.data(),
              .exact = exact,
              .mask = mask,
              .tokens = std::ssize(lp),
              .estimator = estimator,
              .kl = out.value.data(),
              .dlogprobs = out.slope.data()});
  return out;
}

const std::array kSampled = {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3,
                             KlEstimator::kAbsolute};

TEST(KlPenalty, ValuesAndSlopesAreTorchs) {
  const nlohmann::json golden = manifest("rl")["kl"];
  const Floats lp = golden["logprobs"], ref = golden["ref"];
  ASSERT_EQ(lp.size(), 40u);
  const std::array<std::string, 4> names = {"k1", "k2", "k3", "abs"};
  for (size_t k = 0; k < names.size(); ++k) {
    const Kl got = run(lp, ref, kSampled[k]);
    const std::vector<double> values = golden["values"][names[k]];
    const std::vector<double> slopes = golden["slopes"][names[k]];
    for (size_t t = 0; t < lp.size(); ++t) {
      // float64 itself loses digits of k3 near 0: 1e-16 of the terms that cancel.
      EXPECT_NEAR(got.value[t], values[t], 6e-8 * std::abs(values[t]) + 3e-16) << names[k] << t;
      EXPECT_NEAR(got.slope[t], slopes[t], 6e-8 * std::abs(slopes[t]) + 3e-16) << names[k] << t;
    }
  }
}

TEST(KlPenalty, HandWorked) {
  const Floats lp = {-1.0f, -1.0f, -1.0f}, ref = {-1.5f, -0.5f, -1.0f};
  EXPECT_EQ(run(lp, ref, KlEstimator::kK1).value, (Floats{0.5f, -0.5f, 0.0f}));
  EXPECT_EQ(run(lp, ref, KlEstimator::kK2).value, (Floats{0.125f, 0.125f, 0.0f}));
  EXPECT_EQ(run(lp, ref, KlEstimator::kAbsolute).slope, (Floats{1.0f, -1.0f, 0.0f}));
  const Kl k3 = run(lp, ref, KlEstimator::kK3);
  EXPECT_FLOAT_EQ(k3.value[0], 0.1065306597f);  // e^-0.5 - 1 + 0.5
  EXPECT_FLOAT_EQ(k3.value[1], 0.1487212707f);  // e^0.5 - 1 - 0.5
  EXPECT_FLOAT_EQ(k3.slope[0], 0.3934693403f);  // 1 - e^-0.5
  EXPECT_EQ(k3.value[2], 0.0f);
  EXPECT_EQ(k3.slope[2], 0.0f);
}

// At d = 1e-6 the plain formula in double has lost half of its digits, in float all of them.
TEST(KlPenalty, K3KeepsItsDigitsFromTheSmallestToTheLargest) {
  for (const double size : {1e-7, 1e-6, 1e-4, 1e-2, 0.3, 0.346, 0.347, 0.4, 1.0, 5.0, 19.99}) {
    for (const double sign : {1.0, -1.0}) {
      const Floats lp = {static_cast<float>(sign * size)};
      const Kl got = run(lp, {0.0f}, KlEstimator::kK3);
      const long double d = lp[0];
      long double term = d * d / 2, value = 0;  // The series of e^-d - 1 + d.
      for (int k = 3; std::abs(term) > 1e-24L * std::abs(value); ++k) {
        value += term;
        term *= -d / k;
      }
      EXPECT_NEAR(got.value[0], static_cast<double>(value), 6e-8 * static_cast<double>(value)) << d;
      const auto slope = static_cast<double>(-std::expm1(-d));
      EXPECT_NEAR(got.slope[0], slope, 6e-8 * std::abs(slope)) << d;
    }
  }
}

TEST(KlPenalty, K3IsBoundedBeyondTheLargestRatio) {
  const Kl got = run({-500.0f, 500.0f, -20.0f, 20.0f}, {0, 0, 0, 0}, KlEstimator::kK3);
  EXPECT_FLOAT_EQ(got.value[0], static_cast<float>(std::exp(20.0) - 21));
  EXPECT_EQ(got.value[0], got.value[2]);
  EXPECT_EQ(got.slope[0], got.slope[2]);
  EXPECT_FLOAT_EQ(got.value[1], 19.0f);
  EXPECT_EQ(got.value[1], got.value[3]);
  EXPECT_FLOAT_EQ(got.slope[1], 1.0f);
}

TEST(KlPenalty, SlopeIsTheFiniteDifferenceOfTheValue) {
  constexpr double kStep = 1.0 / 1024;  // Exact in float next to multiples of it.
  for (const KlEstimator e : kSampled) {
    for (const float d : {-3.5f, -0.25f, 0.125f, 2.75f}) {
      const auto at = [&](double shift) {
        return double{run({static_cast<float>(d + shift)}, {0.0f}, e).value[0]};
      };
      const double slope = run({d}, {0.0f}, e).slope[0];
      EXPECT_NEAR(slope, (at(kStep) - at(-kStep)) / (2 * kStep), 2e-3 * (1 + std::abs(slope)));
    }
  }
}

TEST(KlPenalty, MaskedTokensAreZeroAndReachNothing) {
  const RaggedCase c = ragged_case();
  for (const KlEstimator e : {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3,
                              KlEstimator::kAbsolute, KlEstimator::kExact}) {
    const Kl got = run(c.logprobs, c.ref, e, c.mask.data(), c.exact.data());
    for (int64_t t = 0; t < c.tokens(); ++t) {
      const auto i = static_cast<size_t>(t);
      ASSERT_TRUE(std::isfinite(got.value[i]) && std::isfinite(got.slope[i])) << t;
      if (!c.active(t)) {
        ASSERT_EQ(got.value[i], 0.0f);
        ASSERT_EQ(got.slope[i], 0.0f);
      } else if (e == KlEstimator::kExact) {
        ASSERT_EQ(got.value[i], c.exact[i]);
        ASSERT_EQ(got.slope[i], 0.0f);
      } else if (e == KlEstimator::kK1) {
        ASSERT_EQ(got.value[i], c.logprobs[i] - c.ref[i]);
      }
    }
  }
}

TEST(KlPenalty, ExactReadsNeitherLogprobs) {
  const Floats exact = {0.25f, 0.5f};
  Floats kl(2);
  kl_penalty(
      {.exact = exact.data(), .tokens = 2, .estimator = KlEstimator::kExact, .kl = kl.data()});
  EXPECT_EQ(kl, exact);
  EXPECT_THROW(kl_penalty({.tokens = 2, .estimator = KlEstimator::kExact, .kl = kl.data()}), Error);
  EXPECT_THROW(kl_penalty({.tokens = -1}), Error);
  kl_penalty({});  // Nothing to do.
}

TEST(KlPenalty, ThreadsChangeNoBit) {
  const Floats lp = uniform_floats(70001, 8, -5, 0), ref = uniform_floats(70001, 9, -5, 0);
  const ThreadScope one(1);
  const Kl base = run(lp, ref, KlEstimator::kK3);
  const ThreadScope three(3);
  const Kl again = run(lp, ref, KlEstimator::kK3);
  EXPECT_TRUE(same_bits(again.value, base.value) && same_bits(again.slope, base.slope));
}

// -------- shape_rewards

// KL of the samples [0.1 -0.1 0 | 0.1 -0.2], coefficient 0.1, scores 1 and -0.5.
TEST(ShapeRewards, HandWorked) {
  const Floats lp = {-1.0f, -0.8f, -1.5f, -2.0f, -1.2f}, ref = {-1.1f, -0.7f, -1.5f, -2.1f, -1.0f};
  const Kl kl = run(lp, ref, KlEstimator::kK1);
  const int64_t offsets[] = {0, 3, 5};
  const Floats scores = {1.0f, -0.5f};
  Floats r(5);
  shape_rewards({.kl = kl.value.data(),
                 .scores = scores.data(),
                 .offsets = offsets,
                 .sequences = 2,
                 .kl_coef = 0.1,
                 .rewards = r.data()});
  const double expected[] = {-0.01, 0.01, 1.0, -0.01, -0.48};
  for (size_t t = 0; t < 5; ++t) EXPECT_NEAR(r[t], expected[t], 1e-7);
}

TEST(ShapeRewards, ScoreStandsAtTheLastActiveTokenClamped) {
  const std::vector<uint8_t> mask = {1, 1, 0, 0, /**/ 0, 0, /**/ 0, 1, 0, 1, /**/ 1};
  const int64_t offsets[] = {0, 4, 6, 10, 10, 11};
  const Floats kl = {1, 2, kNaNf, kNaNf, kNaNf, kNaNf, kNaNf, 3, kNaNf, 4, 5};
  const Floats scores = {10, 20, -30, 40, 0.5f};
  Floats r(11, kNaNf);
  shape_rewards({.kl = kl.data(),
                 .scores = scores.data(),
                 .mask = mask.data(),
                 .offsets = offsets,
                 .sequences = 5,
                 .kl_coef = 0.5,
                 .score_clip = 8,
                 .rewards = r.data()});
  EXPECT_EQ(r, (Floats{-0.5f, -1 + 8.0f, 0, 0, 0, 0, 0, -1.5f, 0, -2 - 8.0f, -2.5f + 0.5f}));
}

TEST(ShapeRewards, NanScoreIsPassedOnToItsSequenceAlone) {
  const int64_t offsets[] = {0, 2, 4};
  const Floats scores = {kNaNf, 1.0f};
  Floats r(4);
  shape_rewards({.scores = scores.data(),
                 .offsets = offsets,
                 .sequences = 2,
                 .score_clip = 1,
                 .rewards = r.data()});
  EXPECT_EQ(r[0], 0.0f);
  EXPECT_TRUE(std::isnan(r[1]));
  EXPECT_EQ(r[2], 0.0f);
  EXPECT_EQ(r[3], 1.0f);
}

TEST(ShapeRewards, SumOfASequenceIsItsScoreMinusItsPenalty) {
  const RaggedCase c = ragged_case();
  const Kl kl = run(c.logprobs, c.ref, KlEstimator::kK3, c.mask.data());
  Floats r(c.mask.size(), kNaNf);
  shape_rewards({.kl = kl.value.data(),
                 .scores = c.scores.data(),
                 .mask = c.mask.data(),
                 .offsets = c.offsets.data(),
                 .sequences = c.sequences(),
                 .kl_coef = 0.05,
                 .rewards = r.data()});
  for (size_t i = 0; i + 1 < c.offsets.size(); ++i) {
    double sum = 0, penalty = 0;
    bool any = false;
    for (int64_t t = c.offsets[i]; t < c.offsets[i + 1]; ++t) {
      sum += r[static_cast<size_t>(t)];
      penalty += kl.value[static_cast<size_t>(t)];
      any = any || c.active(t);
    }
    EXPECT_NEAR(sum, any ? c.scores[i] - 0.05 * penalty : 0, 1e-5) << i;
  }
}

TEST(ShapeRewards, BadArgumentsAreRefused) {
  const int64_t descending[] = {2, 1};
  EXPECT_THROW(shape_rewards({.offsets = descending, .sequences = 1}), Error);
  EXPECT_THROW(shape_rewards({.sequences = -1}), Error);
  EXPECT_THROW(shape_rewards({.score_clip = -1}), Error);
  shape_rewards({});  // Nothing to do.
}

}  // namespace
}  // namespace temper::kernels
