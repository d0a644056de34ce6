#include "temper/reward/combinators.h"

#include <gtest/gtest.h>

#include "reward_test_util.h"

namespace temper {
namespace {

/// The number that the text spells; "nan" is NaN.
RewardFn spelled() {
  return per_completion([](const Completion& c) { return std::stof(c.text); });
}

Batch numbers() { return std::move(Batch().add("-2").add("0.5").add("3").add("nan")); }

void expect_scores(const RewardFn& fn, const std::vector<float>& want) {
  const std::vector<float> got = numbers().scored_by(fn);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i])) {
      EXPECT_TRUE(std::isnan(got[i])) << i;
    } else {
      EXPECT_FLOAT_EQ(got[i], want[i]) << i;
    }
  }
}

TEST(Combinators, ScaledAndClipped) {
  expect_scores(scaled(spelled(), 2, 1), {-3, 2, 7, kNaN});
  expect_scores(clipped(spelled(), -1, 1), {-1, 0.5, 1, kNaN});
  expect_scores(scaled(clipped(spelled(), 0, 10), -1), {0, -0.5, -3, kNaN});
  EXPECT_EQ(error_of([] { (void)clipped(spelled(), 1, 0); }),
            "[clipped] lo must not be above hi, got 1 and 0");
  EXPECT_EQ(error_of([] { (void)scaled(nullptr, 1); }),
            "[scaled] the inner reward has no function");
}

// By hand: 2 x - 1, the first term alone where it is the only one.
TEST(Combinators, WeightedLeavesNanTermsOut) {
  const RewardFn minus_one = per_completion([](const Completion&) { return -1.0f; });
  expect_scores(weighted({{2, spelled()}, {1, minus_one}}), {-5, 0, 5, -1});
  expect_scores(weighted({{2, spelled()}}), {-4, 1, 6, kNaN});
  EXPECT_EQ(error_of([] { (void)weighted({}); }), "[weighted] at least one term is needed");
  EXPECT_EQ(error_of([] {
              (void)weighted({{1.0, nullptr}});
            }),
            "[weighted] a term has no function");
}

TEST(Combinators, GatedCallsTheInnerRewardWithPassingRowsOnly) {
  std::vector<std::string> seen;
  const RewardFn inner = [&seen](std::span<const Completion> rows) {
    std::vector<float> out;
    for (const auto& c : rows) {
      seen.push_back(c.text);
      out.push_back(10);
    }
    return out;
  };
  expect_scores(gated(spelled(), inner, 0.4), {0, 10, 10, kNaN});
  EXPECT_EQ(seen, (std::vector<std::string>{"0.5", "3"}));
  // The threshold itself does not pass; with nothing passing the inner reward is not called.
  seen.clear();
  expect_scores(gated(spelled(), inner, 3), {0, 0, 0, kNaN});
  EXPECT_TRUE(seen.empty());
}

TEST(Combinators, InnerNanPassesTheGate) {
  const RewardFn open = per_completion([](const Completion&) { return 1.0f; });
  expect_scores(gated(open, spelled()), {-2, 0.5, 3, kNaN});
}

TEST(Combinators, AfterMarkShowsTheRest) {
  std::vector<std::string> seen;
  size_t tokens = 0;
  const RewardFn spy = per_completion([&](const Completion& c) {
    seen.push_back(c.text);
    tokens = c.ids.size();
    return 0.0f;
  });
  const RewardFn fn = after_mark("</think>", spy);
  (void)Batch().add("a</think>b</think>c", "", 9).add("open", "", 9).scored_by(fn);
  EXPECT_EQ(seen, (std::vector<std::string>{"c", ""}));
  EXPECT_EQ(tokens, 9u);
}

TEST(Combinators, NameTheOneWhoseInnerRewardMiscounts) {
  const RewardFn bad = [](std::span<const Completion>) { return std::vector<float>(2); };
  const RewardFn open = per_completion([](const Completion&) { return 1.0f; });
  const std::vector<std::pair<std::string, RewardFn>> cases = {
      {"scaled", scaled(bad, 1)},         {"clipped", clipped(bad, 0, 1)},
      {"weighted", weighted({{1, bad}})}, {"gated", gated(bad, open)},
      {"gated", gated(open, bad)},        {"after_mark", after_mark("x", bad)}};
  for (const auto& [name, fn] : cases) {
    EXPECT_EQ(error_of([&fn = fn] { (void)numbers().scored_by(fn); }),
              "[" + name + "] the inner reward returned 2 scores for 4 completions");
  }
}

TEST(Combinators, NamedKeepsNameAndWeight) {
  const NamedReward reward = named("n", spelled(), 0.25);
  EXPECT_EQ(reward.name, "n");
  EXPECT_EQ(reward.weight, 0.25);
  EXPECT_EQ(named("n", spelled()).weight, 1.0);
}

}  // namespace
}  // namespace temper
