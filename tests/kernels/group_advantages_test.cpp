// Golden vectors: tests/golden/make_rl.py (TRL's nanstd, and what its trainers make of it).
#include "temper/kernels/group_advantages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "golden_numbers.h"
#include "kernel_test_util.h"
#include "ragged_case.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using namespace test;
using Doubles = std::vector<double>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Groups {
  Doubles rewards;
  std::vector<int64_t> offsets{0};
};

Groups flat(const std::vector<Doubles>& groups) {
  Groups out;
  for (const Doubles& g : groups) {
    out.rewards.insert(out.rewards.end(), g.begin(), g.end());
    out.offsets.push_back(std::ssize(out.rewards));
  }
  return out;
}

struct Result {
  Doubles advantages;
  std::vector<GroupStat> stats;
};

Result run(const Groups& g, GroupRule rule, double eps = 1e-4) {
  Result out{Doubles(g.rewards.size(), kNaN), std::vector<GroupStat>(g.offsets.size() - 1)};
  group_advantages({.rewards = g.rewards.data(),
                    .offsets = g.offsets.data(),
                    .groups = std::ssize(g.offsets) - 1,
                    .rule = rule,
                    .eps = eps,
                    .advantages = out.advantages.data(),
                    .stats = out.stats.data()});
  return out;
}

double number(const nlohmann::json& j) { return j.is_null() ? kNaN : j.get<double>(); }

TEST(GroupAdvantages, RaggedGroupsAreTrls) {
  const nlohmann::json golden = manifest("rl")["groups"];
  std::vector<Doubles> rewards;
  for (const auto& group : golden["rewards"]) {
    rewards.emplace_back();
    for (const auto& r : group) rewards.back().push_back(number(r));
  }
  ASSERT_EQ(rewards.size(), 7u);
  const Groups groups = flat(rewards);
  const Result standard = run(groups, GroupRule::kStandardized);
  const Result others = run(groups, GroupRule::kLeaveOneOut);
  size_t row = 0;
  for (size_t g = 0; g < rewards.size(); ++g) {
    EXPECT_NEAR(standard.stats[g].mean, number(golden["means"][g]), 1e-15) << g;
    const double std = number(golden["stds"][g]);
    EXPECT_EQ(std::isnan(standard.stats[g].std), std::isnan(std)) << g;
    if (!std::isnan(std)) {
      EXPECT_NEAR(standard.stats[g].std, std, 1e-15) << g;
    }
    for (size_t i = 0; i < rewards[g].size(); ++i, ++row) {
      EXPECT_NEAR(standard.advantages[row], number(golden["standardized"][g][i]), 1e-12) << row;
      EXPECT_NEAR(others.advantages[row], number(golden["leave_one_out"][g][i]), 1e-14) << row;
    }
  }
}

TEST(GroupAdvantages, HandWorked) {
  const Groups g = flat({{1, 0, 0.5}, {2, 2, 1}});
  const auto expect = [&](GroupRule rule, const Doubles& expected) {
    const Result got = run(g, rule);
    for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(got.advantages[i], expected[i], 1e-10) << i;
  };
  expect(GroupRule::kStandardized,
         {0.9998000400, -0.9998000400, 0, 0.5772502865, 0.5772502865, -1.1545005730});
  expect(GroupRule::kCentered, {0.5, -0.5, 0, 1.0 / 3, 1.0 / 3, -2.0 / 3});
  expect(GroupRule::kLeaveOneOut, {0.75, -0.75, 0, 0.5, 0.5, -1.0});
}

TEST(GroupAdvantages, GroupsWithNothingToCompare) {
  // One row; one scored of two; none scored; empty; equal numbers that no binary fraction holds.
  const Groups g = flat({{3}, {kNaN, 4}, {kNaN, kNaN}, {}, {0.1, 0.1, 0.1, kNaN}});
  for (const GroupRule rule :
       {GroupRule::kCentered, GroupRule::kStandardized, GroupRule::kLeaveOneOut}) {
    const Result got = run(g, rule);
    EXPECT_EQ(got.advantages, Doubles(9, 0.0));
    EXPECT_EQ(got.stats[0].std, 0);
    EXPECT_TRUE(got.stats[0].equal);
    EXPECT_EQ(got.stats[1].mean, 4);
    EXPECT_TRUE(std::isnan(got.stats[1].std));
    EXPECT_EQ(got.stats[1].count, 1);
    for (const size_t none : {2u, 3u}) {
      EXPECT_TRUE(std::isnan(got.stats[none].mean) && std::isnan(got.stats[none].std));
      EXPECT_FALSE(got.stats[none].equal);
      EXPECT_EQ(got.stats[none].count, 0);
    }
    EXPECT_EQ(got.stats[4].mean, 0.1);
    EXPECT_EQ(got.stats[4].std, 0);
    EXPECT_TRUE(got.stats[4].equal);
    EXPECT_EQ(got.stats[4].count, 3);
  }
}

TEST(GroupAdvantages, StandardizedHasMeanZeroAndSpreadOneForEverySize) {
  for (const int64_t n : {2, 31, 32, 33, 255, 1025}) {
    const std::vector<float> draw = uniform_floats(n, 40, -2, 5);
    const Groups g = flat({Doubles(draw.begin(), draw.end())});
    const Result got = run(g, GroupRule::kStandardized, 0.0);
    double sum = 0, squares = 0;
    for (const double a : got.advantages) {
      sum += a;
      squares += a * a;
    }
    EXPECT_NEAR(sum, 0, 1e-11 * static_cast<double>(n)) << n;
    EXPECT_NEAR(squares / static_cast<double>(n - 1), 1, 1e-12) << n;
  }
}

TEST(GroupAdvantages, ThreadsAndTheOtherGroupsChangeNoBit) {
  std::vector<Doubles> groups;
  for (size_t g = 0; g < 3000; ++g) {
    const std::vector<float> draw = uniform_floats(static_cast<int64_t>(g % 9), g, 0, 1);
    groups.emplace_back(draw.begin(), draw.end());
  }
  const ThreadScope one(1);
  const Result base = run(flat(groups), GroupRule::kStandardized);
  {
    const ThreadScope three(3);
    EXPECT_EQ(run(flat(groups), GroupRule::kStandardized).advantages, base.advantages);
  }
  std::vector<Doubles> reversed(groups.rbegin(), groups.rend());
  Result turned = run(flat(reversed), GroupRule::kStandardized);
  const Groups order = flat(groups), back = flat(reversed);
  for (size_t g = 0; g < groups.size(); ++g) {
    const int64_t from = back.offsets[groups.size() - 1 - g];
    for (int64_t i = 0; i < std::ssize(groups[g]); ++i) {
      ASSERT_EQ(turned.advantages[static_cast<size_t>(from + i)],
                base.advantages[static_cast<size_t>(order.offsets[g] + i)]);
    }
  }
}

TEST(GroupAdvantages, InPlaceStatsAloneAndBadArguments) {
  Groups g = flat({{1, 2, 4}});
  const Result apart = run(g, GroupRule::kCentered);
  std::vector<GroupStat> stats(1);
  group_advantages({.rewards = g.rewards.data(),
                    .offsets = g.offsets.data(),
                    .groups = 1,
                    .stats = stats.data()});
  EXPECT_EQ(stats[0].count, 3);
  EXPECT_EQ(g.rewards, (Doubles{1, 2, 4}));
  group_advantages({.rewards = g.rewards.data(),
                    .offsets = g.offsets.data(),
                    .groups = 1,
                    .rule = GroupRule::kCentered,
                    .advantages = g.rewards.data()});
  EXPECT_EQ(g.rewards, apart.advantages);
  const int64_t descending[] = {3, 1};
  EXPECT_THROW(group_advantages({.offsets = descending, .groups = 1}), Error);
  EXPECT_THROW(group_advantages({.groups = -1}), Error);
  group_advantages({});  // Nothing to do.
}

}  // namespace
}  // namespace temper::kernels
