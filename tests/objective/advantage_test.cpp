// Identities and edge cases of the advantage estimators; values are in hand_test and golden_test.
#include "temper/objective/advantage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "error_of.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

RewardTable random_table(int64_t groups, int64_t group_size, int64_t functions) {
  RngStream rng(5, RngPurpose::kTest, 0);
  RewardTable t{.values = {}, .functions = functions, .group_size = group_size, .weights = {}};
  for (int64_t i = 0; i < groups * group_size * functions; ++i) {
    t.values.push_back(rng.next_uniform());
  }
  return t;
}

/// The estimators that need nothing but rewards.
std::vector<AdvantageEntry> row_estimators() {
  std::vector<AdvantageEntry> out;
  for (const AdvantageEntry& entry : advantage_estimators()) {
    if (!entry.needs_tokens) out.push_back(entry);
  }
  return out;
}

TEST(Advantage, LeaveOneOutIsTheCentredRewardScaled) {
  const RewardTable t = random_table(5, 7, 1);
  const Advantages rloo = LeaveOneOutAdvantage{}(t);
  const Advantages none = CenteredAdvantage{}(t);
  for (size_t i = 0; i < t.values.size(); ++i) {
    EXPECT_NEAR(rloo.values[i], 7.0 / 6.0 * (t.values[i] - none.group_means[i / 7]), 1e-15);
    EXPECT_NEAR(none.values[i], rloo.values[i] * 6.0 / 7.0, 1e-15);
    const double others = (none.group_means[i / 7] * 7 - t.values[i]) / 6;
    EXPECT_NEAR(rloo.values[i], t.values[i] - others, 1e-14);
  }
}

TEST(Advantage, EveryGroupSumsToZero) {
  const RewardTable t = random_table(6, 4, 1);
  for (const std::string name : {"group", "batch", "none", "rloo"}) {
    const Advantages a = find_advantage(name)(t);
    for (size_t g = 0; g < 6; ++g) {
      EXPECT_NEAR(std::accumulate(a.values.begin() + static_cast<long>(4 * g),
                                  a.values.begin() + static_cast<long>(4 * g + 4), 0.0), 0, 1e-12)
          << name;
    }
  }
}

TEST(Advantage, PermutingGroupsPermutesAdvantages) {
  const RewardTable t = random_table(4, 3, 2);
  RewardTable p = t;
  const std::vector<size_t> order = {2, 0, 3, 1};
  for (size_t g = 0; g < 4; ++g) {
    std::copy_n(t.values.begin() + static_cast<long>(order[g] * 6), 6,
                p.values.begin() + static_cast<long>(g * 6));
  }
  for (const AdvantageEntry& entry : row_estimators()) {
    const Advantages a = entry.estimator(t), b = entry.estimator(p);
    for (size_t i = 0; i < 12; ++i) {
      EXPECT_NEAR(b.values[i], a.values[order[i / 3] * 3 + i % 3], 1e-13) << entry.name;
    }
  }
}

TEST(Advantage, EqualRewardsGiveExactlyZeroAndADeadGroup) {
  // 0.1 has no exact sum: a mean that rounds would leave noise, which 1/epsilon then magnifies.
  RewardTable t{.values = std::vector<double>(14, 0.1), .functions = 1, .group_size = 7,
                .weights = {}};
  t.values[13] = 1.0;
  for (const AdvantageEntry& entry : row_estimators()) {
    const Advantages a = entry.estimator(t);
    EXPECT_EQ(a.dead_groups, (std::vector<bool>{true, false})) << entry.name;
    if (entry.name == "gdpo" || entry.name == "rloo_normalized") continue;
    for (size_t i = 0; i < 7; ++i) EXPECT_EQ(a.values[i], 0) << entry.name;
  }
  EXPECT_DOUBLE_EQ(GroupAdvantage{}(t).frac_reward_zero_std, 0.5);
  EXPECT_DOUBLE_EQ(BatchAdvantage{}(t).frac_reward_zero_std, 0);
}

TEST(Advantage, UnscoredRowsAreLeftOut) {
  const RewardTable t{.values = {1, kNaN, 3, kNaN, kNaN, 5, kNaN, kNaN, kNaN}, .functions = 1,
                      .group_size = 3, .weights = {}};
  for (const AdvantageEntry& entry : row_estimators()) {
    const Advantages a = entry.estimator(t);
    EXPECT_EQ(a.dead_groups, (std::vector<bool>{false, true, true})) << entry.name;
    EXPECT_LT(a.values[0], 0) << entry.name;
    EXPECT_GT(a.values[2], 0) << entry.name;
    for (const size_t i : {1u, 3u, 4u, 6u, 7u, 8u}) EXPECT_EQ(a.values[i], 0) << entry.name;
    EXPECT_TRUE(std::isnan(a.rewards[1]));
    EXPECT_DOUBLE_EQ(a.reward_mean, 3);
    EXPECT_TRUE(std::isnan(a.group_means[2]));
  }
  EXPECT_DOUBLE_EQ(CenteredAdvantage{}(t).values[2], 1);
  EXPECT_DOUBLE_EQ(LeaveOneOutAdvantage{}(t).values[2], 2);
}

TEST(Advantage, AFunctionThatSkipsARowIsLeftOutOfItsSum) {
  const RewardTable t{.values = {1, 10, 2, kNaN}, .functions = 2, .group_size = 2,
                      .weights = {1, 0.5}};
  const Advantages a = CenteredAdvantage{}(t);
  EXPECT_EQ(a.rewards, (std::vector<double>{6, 2}));
  EXPECT_EQ(a.values, (std::vector<double>{2, -2}));
  EXPECT_EQ(a.function_means, (std::vector<double>{1.5, 10}));
  EXPECT_TRUE(std::isnan(a.function_stds[1])) << "one value has no spread";
}

TEST(Advantage, AFunctionOfWeightZeroScoresNoRow) {
  const RewardTable t{.values = {kNaN, 10, 1, 10, 3, kNaN}, .functions = 2, .group_size = 3,
                      .weights = {1, 0}};
  const Advantages a = CenteredAdvantage{}(t);
  EXPECT_TRUE(std::isnan(a.rewards[0]));
  EXPECT_EQ(a.values, (std::vector<double>{0, -1, 1}));
  EXPECT_EQ(a.function_means, (std::vector<double>{2, 10})) << "it is still reported";
}

TEST(Advantage, NothingScoredAndNothingAtAll) {
  for (const AdvantageEntry& entry : row_estimators()) {
    const Advantages none = entry.estimator({.values = std::vector<double>(6, kNaN),
                                             .functions = 1, .group_size = 3, .weights = {}});
    EXPECT_EQ(none.values, std::vector<double>(6, 0.0)) << entry.name;
    EXPECT_TRUE(std::isnan(none.reward_mean));
    const Advantages empty =
        entry.estimator({.values = {}, .functions = 1, .group_size = 3, .weights = {}});
    EXPECT_TRUE(empty.values.empty());
    EXPECT_EQ(empty.frac_reward_zero_std, 0) << entry.name;
  }
}

TEST(Advantage, OneCompletionAPromptGivesZero) {
  for (const std::string name : {"group", "none", "rloo"}) {
    const Advantages a = find_advantage(name)(
        {.values = {1, 2}, .functions = 1, .group_size = 1, .weights = {}});
    EXPECT_EQ(a.values, (std::vector<double>{0, 0})) << name;
    EXPECT_EQ(a.dead_groups, (std::vector<bool>{true, true}));
  }
}

TEST(Advantage, DecoupledGroupIsDeadOnlyIfEveryFunctionIs) {
  // Totals are equal (3), yet each function alone tells the rows apart.
  const RewardTable t{.values = {1, 2, 2, 1}, .functions = 2, .group_size = 2, .weights = {}};
  EXPECT_TRUE(GroupAdvantage{}(t).dead_groups[0]);
  EXPECT_FALSE(DecoupledAdvantage{}(t).dead_groups[0]);
}

TEST(RewardTable, IsBuiltFromOneListAFunction) {
  const std::vector<std::vector<float>> lists = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  const RewardTable t = reward_table(lists, 2, {1, 2});
  EXPECT_EQ(t.values, (std::vector<double>{1, 5, 2, 6, 3, 7, 4, 8}));
  EXPECT_EQ(t.rows(), 4);
  EXPECT_EQ(t.functions, 2);
  EXPECT_EQ(error_of([&] { (void)reward_table(std::vector<std::vector<float>>{{1, 2}, {1}}, 2); }),
            "[advantage] reward function 1 returned 1 rewards for 2 completions");
}

TEST(RewardTable, MistakesAreNamed) {
  const auto run = [](RewardTable t) { return error_of([&] { (void)GroupAdvantage{}(t); }); };
  EXPECT_EQ(run({.values = {1, 2, 3}, .functions = 1, .group_size = 2, .weights = {}}),
            "[advantage] 3 rewards do not fill groups of 2 rows with 1 rewards each");
  EXPECT_EQ(run({.values = {1, 2}, .functions = 1, .group_size = 2, .weights = {1, 1}}),
            "[advantage] 1 reward functions and 2 weights");
  EXPECT_EQ(run({.values = {1, std::numeric_limits<double>::infinity()}, .functions = 1,
                 .group_size = 2, .weights = {}}),
            "[advantage] reward function 0 returned an infinity for row 1; return NaN for \"not "
            "scored\"");
  EXPECT_EQ(error_of([] { (void)find_advantage("grup"); }),
            "[advantage] unknown estimator \"grup\"; did you mean \"group\"?");
}

}  // namespace
}  // namespace temper
