// The reference is the definition: A_t = sum over later active tokens of (gamma lambda)^k delta.
#include "temper/kernels/gae.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernel_test_util.h"
#include "ragged_case.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using namespace test;
using Floats = std::vector<float>;

struct Result {
  Floats advantages, returns;
};

GaeArgs args_of(const RaggedCase& c, double gamma, double lambda) {
  return {.rewards = c.rewards.data(),
          .values = c.values.data(),
          .mask = c.mask.data(),
          .offsets = c.offsets.data(),
          .sequences = c.sequences(),
          .bootstrap_values = c.bootstrap.data(),
          .truncated = c.truncated.data(),
          .gamma = gamma,
          .lambda = lambda};
}

Result run(GaeArgs a) {
  const auto n = static_cast<size_t>(a.sequences > 0 ? a.offsets[a.sequences] : 0);
  Result out{Floats(n, kNaNf), Floats(n, kNaNf)};
  a.advantages = out.advantages.data();
  a.returns = out.returns.data();
  gae(a);
  return out;
}

/// Advantages of one sequence's active tokens, in double.
std::vector<double> reference(const RaggedCase& c, size_t sequence, double gamma, double lambda) {
  std::vector<double> r, v;
  for (int64_t t = c.offsets[sequence]; t < c.offsets[sequence + 1]; ++t) {
    if (!c.active(t)) continue;
    r.push_back(c.rewards[static_cast<size_t>(t)]);
    v.push_back(c.values[static_cast<size_t>(t)]);
  }
  v.push_back(c.truncated[sequence] != 0 ? c.bootstrap[sequence] : 0.0);
  std::vector<double> a(r.size());
  for (size_t t = 0; t < r.size(); ++t) {
    for (size_t s = t; s < r.size(); ++s) {
      const double decay = std::pow(gamma * lambda, static_cast<double>(s - t));
      a[t] += decay * (r[s] + gamma * v[s + 1] - v[s]);
    }
  }
  return a;
}

TEST(Gae, HandWorked) {
  const Floats r = {-0.01f, 0.01f, 1.0f, -0.01f, -0.48f}, v = {0.2f, 0.4f, 0.6f, 0.1f, -0.2f};
  const int64_t offsets[] = {0, 3, 5};
  GaeArgs a{.rewards = r.data(), .values = v.data(), .offsets = offsets, .sequences = 2};
  const auto expect = [](const Floats& got, const std::vector<double>& wanted) {
    for (size_t t = 0; t < wanted.size(); ++t) EXPECT_NEAR(got[t], wanted[t], 1e-7) << t;
  };
  const Result plain = run(a);
  expect(plain.advantages, {0.7505, 0.59, 0.40, -0.576, -0.28});
  expect(plain.returns, {0.9505, 0.99, 1.0, -0.476, -0.48});
  // The first sequence cut by length, with 0.7 behind it.
  const Floats bootstrap = {0.7f, kNaNf};
  const std::vector<uint8_t> truncated = {1, 0};
  a.bootstrap_values = bootstrap.data();
  a.truncated = truncated.data();
  expect(run(a).advantages, {1.38225, 1.255, 1.1, -0.576, -0.28});
  // Its second token an observation.
  const std::vector<uint8_t> mask = {1, 0, 1, 1, 1};
  a.mask = mask.data();
  a.truncated = nullptr;
  expect(run(a).advantages, {0.77, 0, 0.40, -0.576, -0.28});
}

TEST(Gae, IsTheDefinitionOnRaggedMaskedSequences) {
  const RaggedCase c = ragged_case();
  for (const double gamma : {1.0, 0.99, 0.5}) {
    for (const double lambda : {0.95, 0.3}) {
      const Result got = run(args_of(c, gamma, lambda));
      for (size_t i = 0; i + 1 < c.offsets.size(); ++i) {
        const std::vector<double> expected = reference(c, i, gamma, lambda);
        size_t at = 0;
        for (int64_t t = c.offsets[i]; t < c.offsets[i + 1]; ++t) {
          const auto k = static_cast<size_t>(t);
          const double a = c.active(t) ? expected[at++] : 0;
          const double v = c.active(t) ? c.values[k] : 0;
          ASSERT_NEAR(got.advantages[k], a, 2e-7 * (1 + std::abs(a))) << i << " " << t;
          ASSERT_NEAR(got.returns[k], a + v, 2e-7 * (1 + std::abs(a + v))) << i << " " << t;
        }
      }
    }
  }
}

TEST(Gae, LambdaZeroIsTheTemporalDifference) {
  const Floats r = {0.5f, -1.0f, 2.0f}, v = {0.25f, 0.75f, -0.5f};
  const int64_t offsets[] = {0, 3};
  const Result got = run({.rewards = r.data(),
                          .values = v.data(),
                          .offsets = offsets,
                          .sequences = 1,
                          .gamma = 0.5,
                          .lambda = 0});
  EXPECT_EQ(got.advantages, (Floats{0.5f + 0.375f - 0.25f, -1.0f - 0.25f - 0.75f, 2.0f + 0.5f}));
}

TEST(Gae, LambdaOneIsTheReturnToGoMinusTheValue) {
  RaggedCase c = ragged_case();
  const Result got = run(args_of(c, 1.0, 1.0));
  for (size_t i = 0; i + 1 < c.offsets.size(); ++i) {
    double to_go = c.truncated[i] != 0 ? c.bootstrap[i] : 0.0;
    for (int64_t t = c.offsets[i + 1] - 1; t >= c.offsets[i]; --t) {
      if (!c.active(t)) continue;
      to_go += c.rewards[static_cast<size_t>(t)];
      ASSERT_NEAR(got.returns[static_cast<size_t>(t)], to_go, 1e-5) << i << " " << t;
    }
  }
}

TEST(Gae, MaskedGapEqualsTheSequenceWithoutIt) {
  const RaggedCase c({257});
  RaggedCase dense({0});
  int64_t kept = 0;
  dense.rewards.clear();
  dense.values.clear();
  for (int64_t t = 0; t < c.tokens(); ++t) {
    if (!c.active(t)) continue;
    ++kept;
    dense.rewards.push_back(c.rewards[static_cast<size_t>(t)]);
    dense.values.push_back(c.values[static_cast<size_t>(t)]);
  }
  dense.offsets = {0, kept};
  dense.mask.assign(static_cast<size_t>(kept), 1);
  ASSERT_LT(kept, 257);
  const Result gaps = run(args_of(c, 0.9, 0.8)), whole = run(args_of(dense, 0.9, 0.8));
  size_t at = 0;
  for (int64_t t = 0; t < c.tokens(); ++t) {
    if (c.active(t)) {
      ASSERT_EQ(gaps.advantages[static_cast<size_t>(t)], whole.advantages[at++]) << t;
    }
  }
}

TEST(Gae, BootstrapOfZeroIsATermination) {
  RaggedCase c({33, 31});
  c.bootstrap = {0.0f, 0.0f};
  c.truncated = {1, 1};
  const Result cut = run(args_of(c, 1.0, 0.95));
  c.truncated = {0, 0};
  EXPECT_TRUE(same_bits(run(args_of(c, 1.0, 0.95)).advantages, cut.advantages));
}

TEST(Gae, ASequenceAloneAndOtherThreadCountsHaveTheSameBits) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 300; ++i) lengths.push_back(i % 97);
  const RaggedCase c(lengths);
  const ThreadScope one(1);
  const Result base = run(args_of(c, 0.99, 0.95));
  {
    const ThreadScope three(3);
    const Result again = run(args_of(c, 0.99, 0.95));
    EXPECT_TRUE(same_bits(again.advantages, base.advantages) &&
                same_bits(again.returns, base.returns));
  }
  GaeArgs alone = args_of(c, 0.99, 0.95);
  alone.offsets += 95;
  alone.bootstrap_values += 95;
  alone.truncated += 95;
  alone.sequences = 1;
  const Result got = run(alone);
  for (int64_t t = c.offsets[95]; t < c.offsets[96]; ++t) {
    EXPECT_EQ(got.advantages[static_cast<size_t>(t)], base.advantages[static_cast<size_t>(t)]);
  }
}

TEST(Gae, BadArgumentsAreRefusedAndNothingIsNothing) {
  const RaggedCase c({3});
  EXPECT_THROW(run(args_of(c, 1.5, 0.9)), Error);
  EXPECT_THROW(run(args_of(c, 1.0, -0.1)), Error);
  GaeArgs no_value = args_of(c, 1.0, 0.9);
  no_value.bootstrap_values = nullptr;
  EXPECT_THROW(run(no_value), Error);
  const int64_t descending[] = {5, 4};
  EXPECT_THROW(gae({.offsets = descending, .sequences = 1}), Error);
  EXPECT_THROW(gae({.sequences = -1}), Error);
  gae({});
}

}  // namespace
}  // namespace temper::kernels
