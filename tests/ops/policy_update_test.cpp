// The ops around a policy update against plain ATen, over the cases that devices are held to.
#include "kernels/rl_cases.h"
#include "ops_test_util.h"

namespace temper::test_ops {
namespace {

/// Both compute in float64; what is stored as float32 may be rounded the other way.
void expect_near(double got, double want, double relative) {
  if (std::isnan(want) || std::isinf(want)) {
    EXPECT_EQ(std::isnan(got), std::isnan(want));
    EXPECT_TRUE(std::isnan(want) || got == want) << got << " against " << want;
  } else {
    EXPECT_NEAR(got, want, relative * std::max(1e-6, std::abs(want)));
  }
}
void expect_near(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) expect_near(double{got[i]}, double{want[i]}, 2 * kEps);
}
void expect_near(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) expect_near(got[i], want[i], 1e-9);
}
void expect_near(const std::vector<kernels::MaskedStats>& got,
                 const std::vector<kernels::MaskedStats>& want) {
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].count, want[0].count);
  expect_near(got[0].sum, want[0].sum, 1e-12);
  expect_near(got[0].mean, want[0].mean, 1e-12);
  expect_near(got[0].variance, want[0].variance, 1e-12);
}
template <class... T>
void expect_near(const std::tuple<T...>& got, const std::tuple<T...>& want) {
  std::apply(
      [&](const auto&... g) {
        std::apply([&](const auto&... w) { (expect_near(g, w), ...); }, want);
      },
      got);
}

/// Runs a case on the CPU kernels and on the reference ones.
struct Compare {
  template <class Run>
  void operator()(const Run& run) const {
    const auto got = run.template operator()<test::HostOps>();
    const ops::KernelScope scope("reference");
    expect_near(got, run.template operator()<test::HostOps>());
  }
};

TEST(PolicyUpdate, KlPenaltyIsThatOfATen) { test::kl_penalty_cases(Compare()); }
TEST(PolicyUpdate, ShapedRewardsAreThoseOfATen) { test::shape_rewards_cases(Compare()); }
TEST(PolicyUpdate, GaeIsThatOfATen) { test::gae_cases(Compare()); }
TEST(PolicyUpdate, GroupAdvantagesAreThoseOfATen) { test::group_advantages_cases(Compare()); }
TEST(PolicyUpdate, MaskedStatsAreThoseOfATen) { test::masked_stats_cases(Compare()); }

}  // namespace
}  // namespace temper::test_ops
