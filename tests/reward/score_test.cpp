#include <gtest/gtest.h>

#include "reward_test_util.h"
#include "temper/reward/reward.h"

namespace temper {
namespace {

RewardFn constant(float value) {
  return per_completion([value](const Completion&) { return value; });
}

/// Text "boom" throws, "inf" and "nan" give those, anything else its length.
float moody(const Completion& c) {
  if (c.text == "boom") throw std::runtime_error("no such thing");
  if (c.text == "inf") return std::numeric_limits<float>::infinity();
  if (c.text == "-inf") return -std::numeric_limits<float>::infinity();
  if (c.text == "nan") return kNaN;
  return static_cast<float>(c.text.size());
}

TEST(Score, FillsRowMajorWithOneCallPerFunction) {
  int calls = 0;
  const std::vector<NamedReward> rewards = {{"length",
                                             [&calls](std::span<const Completion> rows) {
                                               ++calls;
                                               std::vector<float> out;
                                               for (const auto& c : rows)
                                                 out.push_back(static_cast<float>(c.text.size()));
                                               return out;
                                             }},
                                            {"two", constant(2), 0.5}};
  const RewardScores s = score(rewards, Batch().add("a").add("bcd").rows());
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(s.names, (std::vector<std::string>{"length", "two"}));
  EXPECT_EQ(s.values, (std::vector<float>{1, 2, 3, 2}));
  EXPECT_EQ(s.rows(), 2u);
  EXPECT_EQ(s.at(1, 0), 3);
  EXPECT_TRUE(s.problems.empty());
}

TEST(Score, WrongCountIsAnErrorThatNamesTheFunction) {
  const std::vector<NamedReward> rewards = {
      {"fine", constant(1)},
      {"short", [](std::span<const Completion>) { return std::vector<float>{1}; }}};
  Batch batch;
  batch.add("a").add("b");
  EXPECT_EQ(error_of([&] { (void)score(rewards, batch.rows()); }),
            "[score] reward \"short\" returned 1 scores for 2 completions: it must return one a "
            "completion, NaN for one it does not score");
}

TEST(Score, ThrowingExcludesOnlyTheGuiltyRows) {
  const std::vector<NamedReward> rewards = {{"moody", per_completion(moody)}, {"two", constant(2)}};
  const RewardScores s = score(rewards, Batch().add("a").add("boom").add("bcd").add("boom").rows());
  EXPECT_EQ(s.at(0, 0), 1);
  EXPECT_TRUE(std::isnan(s.at(1, 0)));
  EXPECT_EQ(s.at(2, 0), 3);
  EXPECT_TRUE(std::isnan(s.at(3, 0)));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(s.at(i, 1), 2);
  EXPECT_EQ(s.problems,
            (std::vector<std::string>{
                "reward \"moody\" threw on sample 1 (prompt id 1001), which is left out: no such "
                "thing",
                "reward \"moody\" threw on sample 3 (prompt id 1003), which is left out: no such "
                "thing"}));
}

TEST(Score, AThrowOfAnyTypeIsCaught) {
  const std::vector<NamedReward> rewards = {
      {"odd", [](std::span<const Completion>) -> std::vector<float> { throw 7; }}};
  const RewardScores s = score(rewards, Batch().add_ids({1}).rows());
  EXPECT_TRUE(std::isnan(s.at(0, 0)));
  EXPECT_EQ(s.problems,
            std::vector<std::string>{"reward \"odd\" threw on sample 0, which is left out: an "
                                     "exception that is no std::exception"});
}

TEST(Score, AThrowOfTheWholeBatchAloneIsReported) {
  const std::vector<NamedReward> rewards = {{"shy", [](std::span<const Completion> rows) {
                                               if (rows.size() > 1)
                                                 throw std::runtime_error("too many");
                                               return std::vector<float>{5};
                                             }}};
  const RewardScores s = score(rewards, Batch().add("a").add("b").rows());
  EXPECT_EQ(s.values, (std::vector<float>{5, 5}));
  EXPECT_EQ(s.problems,
            std::vector<std::string>{"reward \"shy\" threw for the whole batch but for none of its "
                                     "rows alone; the rows' own scores are used: too many"});
}

TEST(Score, NanAndInfinityAreLeftOutWithASentence) {
  const std::vector<NamedReward> rewards = {{"moody", per_completion(moody)}};
  const RewardScores s =
      score(rewards, Batch().add("nan").add("inf").add("ok").add("-inf").add("nan").rows());
  for (const size_t i : {0u, 1u, 3u, 4u}) EXPECT_TRUE(std::isnan(s.at(i, 0))) << i;
  EXPECT_EQ(s.at(2, 0), 2);
  EXPECT_EQ(s.problems,
            (std::vector<std::string>{
                "reward \"moody\" did not score 2 of 5 completions (NaN): sample 0 (prompt id "
                "1000), sample 4 (prompt id 1004)",
                "reward \"moody\" gave +infinity for sample 1 (prompt id 1001), which is left out",
                "reward \"moody\" gave -infinity for sample 3 (prompt id 1003), which is left "
                "out"}));
}

TEST(Score, ManyProblemsAreCounted) {
  Batch batch;
  for (int i = 0; i < 30; ++i) batch.add("boom");
  const std::vector<NamedReward> rewards = {{"moody", per_completion(moody)}};
  const RewardScores s = score(rewards, batch.rows());
  ASSERT_EQ(s.problems.size(), 9u);
  EXPECT_EQ(s.problems.back(), "reward \"moody\": 22 more like these");
  for (const float v : s.values) EXPECT_TRUE(std::isnan(v));
}

TEST(Score, EmptyBatchAndBadTables) {
  const std::vector<NamedReward> one = {{"two", constant(2)}};
  const RewardScores s = score(one, {});
  EXPECT_EQ(s.names.size(), 1u);
  EXPECT_EQ(s.rows(), 0u);
  EXPECT_EQ(error_of([] { (void)score({}, {}); }), "[score] at least one reward is needed");
  const std::vector<NamedReward> twins = {{"x", constant(1)}, {"x", constant(2)}};
  EXPECT_EQ(error_of([&] { (void)score(twins, {}); }),
            "[score] two rewards are called \"x\": give each a name of its own");
  const std::vector<NamedReward> nameless = {{"", constant(1)}};
  EXPECT_EQ(error_of([&] { (void)score(nameless, {}); }), "[score] a reward has no name");
  const std::vector<NamedReward> hollow = {{"h", nullptr}};
  EXPECT_EQ(error_of([&] { (void)score(hollow, {}); }), "[score] reward \"h\" has no function");
}

// By hand: 1*2 + 0.5*4 = 4; the NaN term is left out: 1*3; all NaN stays NaN.
TEST(TotalRewards, SkipsNanTermsAndKeepsRowsWithoutAny) {
  RewardScores s;
  s.names = {"a", "b"};
  s.values = {2, 4, 3, kNaN, kNaN, kNaN};
  const std::vector<double> weights = {1, 0.5};
  const std::vector<float> total = total_rewards(s, weights);
  EXPECT_EQ(total[0], 4);
  EXPECT_EQ(total[1], 3);
  EXPECT_TRUE(std::isnan(total[2]));
  EXPECT_EQ(error_of([&] { (void)total_rewards(s, std::vector<double>{1}); }),
            "[total_rewards] expected 2 weights, one a reward, got 1");
}

// A gold score that is only looked at does not stand in for the proxy that gave none.
TEST(TotalRewards, AWeightOfZeroScoresNoRow) {
  RewardScores s;
  s.names = {"proxy", "gold"};
  s.values = {kNaN, 7, 2, 7, 2, kNaN};
  const std::vector<float> total = total_rewards(s, std::vector<double>{1, 0});
  EXPECT_TRUE(std::isnan(total[0]));
  EXPECT_EQ(total[1], 2);
  EXPECT_EQ(total[2], 2);
}

}  // namespace
}  // namespace temper
