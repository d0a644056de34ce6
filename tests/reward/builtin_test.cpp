#include "temper/reward/builtin.h"

#include <gtest/gtest.h>

#include "reward_test_util.h"
#include "temper/core/config.h"

namespace temper {
namespace {

TEST(NormaliseText, FoldsWhatItIsTold) {
  EXPECT_EQ(normalise_text("  A  b\n", {}), "A b");
  EXPECT_EQ(normalise_text("  A  b\n", {false, false, false}), "  A  b\n");
  EXPECT_EQ(normalise_text("\xc3\x84 \xc3\x9f!", {true, true, true}), "\xc3\xa4 ss");
  EXPECT_EQ(normalise_text("A\xff", {true, true, false}), "A\xff");  // Invalid: case stays.
  EXPECT_EQ(normalise_text("a . b", {false, true, true}), "a b");
}

TEST(ExactMatch, ComparesWithTheAnswer) {
  EXPECT_EQ(score_text(exact_match(), " yes ", "yes"), 1);
  EXPECT_EQ(score_text(exact_match(), "Yes", "yes"), 0);
  EXPECT_EQ(score_text(exact_match({true, true, true}), "Yes.", "yes"), 1);
  EXPECT_TRUE(std::isnan(score_text(exact_match(), "yes", "")));
  EXPECT_TRUE(std::isnan(Batch().add_ids({1}).scored_by(exact_match()).at(0)));
}

TEST(NumericAnswer, ComparesExactlyOrWithTolerance) {
  EXPECT_EQ(score_text(numeric_answer(), "so it is 1,000.0.", "#### 1000"), 1);
  EXPECT_EQ(score_text(numeric_answer(), "\\boxed{72}", "x\n#### 72"), 1);
  EXPECT_EQ(score_text(numeric_answer(), "73", "72"), 0);
  EXPECT_EQ(score_text(numeric_answer(), "no idea", "72"), 0);
  EXPECT_TRUE(std::isnan(score_text(numeric_answer(), "72", "unknown")));
  EXPECT_TRUE(std::isnan(score_text(numeric_answer(), "72", "")));
  EXPECT_TRUE(std::isnan(Batch().add_ids({1}).scored_by(numeric_answer()).at(0)));
  EXPECT_EQ(score_text(numeric_answer(), "0.333", "1/3"), 0);
  EXPECT_EQ(score_text(numeric_answer(0.001), "0.333", "1/3"), 1);
  EXPECT_EQ(error_of([] { (void)numeric_answer(-1); }),
            "[numeric_answer] tolerance must not be negative, got -1");
}

TEST(Words, OneOfAndContains) {
  EXPECT_EQ(score_text(one_of({"yes", "no"}), "no"), 1);
  EXPECT_EQ(score_text(one_of({"yes", "no"}), "no way"), 0);
  EXPECT_EQ(score_text(contains({"yes", "no"}), "no way"), 1);
  EXPECT_EQ(score_text(contains({"yes"}), "YES"), 0);
  EXPECT_EQ(score_text(contains({"yes"}, {true, true, false}), "oh YES"), 1);
  EXPECT_EQ(error_of([] { (void)one_of({}); }),
            "[one_of] at least one word is needed (reward.words)");
  EXPECT_EQ(error_of([] {
              (void)contains({"!"}, {false, true, true});
            }),
            "[contains] the word \"!\" is empty as it is compared and would match anything");
}

TEST(RegexFormat, SearchesAndReportsRunawayRows) {
  EXPECT_EQ(score_text(regex_format("<a>\\d+</a>"), "x <a>12</a>"), 1);
  EXPECT_EQ(score_text(regex_format("\\A\\d+\\z"), "12 "), 0);
  EXPECT_EQ(error_of([] { (void)regex_format(""); }),
            "[regex_format] a pattern is needed (reward.pattern)");
  // A row on which the match gives up is left out, the others are not.
  const std::vector<NamedReward> rewards = {{"format", regex_format("^(a+)+$")}};
  const RewardScores s = score(rewards, Batch().add("aa").add(std::string(60, 'a') + "b").rows());
  EXPECT_EQ(s.at(0, 0), 1);
  EXPECT_TRUE(std::isnan(s.at(1, 0)));
  ASSERT_EQ(s.problems.size(), 1u);
  EXPECT_TRUE(s.problems[0].starts_with("reward \"format\" threw on sample 1")) << s.problems[0];
}

TEST(TagCount, CountsTagsThatOccurOnce) {
  EXPECT_EQ(score_text(tag_count(), "<think>a</think>"), 1);
  EXPECT_EQ(score_text(tag_count(), "<think>a"), 0.5);
  EXPECT_EQ(score_text(tag_count(), "<think><think></think>"), 0.5);
  EXPECT_EQ(score_text(tag_count({"a", "b", "c", "d"}), "abcc"), 0.5);
  EXPECT_EQ(score_text(tag_count({"aa"}), "aaa"), 1);  // Occurrences do not overlap.
  EXPECT_EQ(score_text(tag_count({"aa"}), "aaaa"), 0);
  EXPECT_EQ(error_of([] { (void)tag_count({}); }),
            "[tag_count] at least one tag is needed (reward.tags)");
  EXPECT_EQ(error_of([] { (void)tag_count({""}); }), "[tag_count] a tag is empty");
}

TEST(LengthRewards, HandWorkedValues) {
  const auto at = [](const RewardFn& fn, size_t n) { return score_text(fn, "", "", n); };
  EXPECT_EQ(at(length_penalty(8), 0), 0);
  EXPECT_EQ(at(length_penalty(8), 2), -0.25);
  EXPECT_EQ(at(length_penalty(8), 8), -1);
  EXPECT_EQ(at(length_penalty(8), 80), -1);
  EXPECT_EQ(at(length_target(10, 4), 10), 1);
  EXPECT_EQ(at(length_target(10, 4), 9), 0.75);
  EXPECT_EQ(at(length_target(10, 4), 13), 0.25);
  EXPECT_EQ(at(length_target(10, 4), 14), 0);
  EXPECT_EQ(at(length_target(10, 4), 0), 0);
  EXPECT_EQ(at(soft_overlong(100, 20), 90), -0.5);
}

TEST(LengthRewards, RefuseBadSettings) {
  EXPECT_EQ(error_of([] { (void)length_penalty(0); }),
            "[length_penalty] max_tokens must be at least 1, got 0");
  EXPECT_EQ(error_of([] { (void)length_target(0, 1); }),
            "[length_target] target and width must be at least 1, got 0 and 1");
  EXPECT_EQ(error_of([] { (void)soft_overlong(0, 0); }),
            "[soft_overlong] max_tokens must be at least 1, got 0");
  EXPECT_EQ(error_of([] { (void)soft_overlong(10, 11); }),
            "[soft_overlong] cache must be in [0, max_tokens = 10], got 11");
  EXPECT_EQ(error_of([] { (void)repetition(0); }), "[repetition] ngram must be at least 1, got 0");
  EXPECT_EQ(error_of([] { (void)repetition(3, 1); }),
            "[repetition] max_penalty must not be above 0, got 1");
  EXPECT_EQ(error_of([] { (void)cosine_scaled(nullptr, 1); }),
            "[cosine_scaled] the inner reward has no function");
  EXPECT_EQ(error_of([] { (void)cosine_scaled(exact_match(), 0); }),
            "[cosine_scaled] max_tokens must be at least 1, got 0");
}

// Equal n-grams at any distance are one: 1 2 1 2 has (1,2) (2,1) (1,2) -> 1 - 2/3.
TEST(Repetition, CountsByContent) {
  EXPECT_FLOAT_EQ(Batch().add_ids({1, 2, 1, 2}).scored_by(repetition(2, -3))[0], -1);
}

TEST(Table, EveryRewardHasADocAndCanBeMade) {
  RewardConfig config;
  config.words = {"w"};
  config.pattern = "p";
  config.target_tokens = 4;
  for (const auto& builtin : builtin_rewards()) {
    EXPECT_FALSE(builtin.doc.empty()) << builtin.name;
    config.functions.push_back(builtin.name);
  }
  const auto rewards = make_rewards(config, 64);
  ASSERT_EQ(rewards.size(), builtin_rewards().size());
  // Every one gives a finite score on an ordinary row.
  const RewardScores s = score(rewards, Batch().add("w p 3", "3", 5).rows());
  for (size_t k = 0; k < s.names.size(); ++k) EXPECT_TRUE(std::isfinite(s.at(0, k))) << s.names[k];
  EXPECT_TRUE(s.problems.empty());
  EXPECT_LE(config_fields(config).size(), 15u);
}

TEST(Table, SettingsReachTheRewards) {
  RewardConfig config;
  config.functions = {"soft_overlong", "length_target", "exact_match", "repetition"};
  config.weights = {1, 0.5, 2, -1};
  config.target_tokens = 10;
  config.ngram = 1;
  config.max_penalty = -2;
  const auto rewards = make_rewards(config, 80);
  EXPECT_EQ(rewards[1].weight, 0.5);
  EXPECT_EQ(rewards[3].weight, -1);
  EXPECT_EQ(score_text(rewards[0].fn, "", "", 75), -0.5);  // The cache is 80 / 8 = 10.
  EXPECT_EQ(score_text(rewards[1].fn, "", "", 5), 0.5);    // The width is the target.
  EXPECT_EQ(score_text(rewards[2].fn, "Paris!", "paris"), 1);
  EXPECT_EQ(score_text(rewards[3].fn, "", "", 4), -1.5);  // -2 (1 - 1/4)
  EXPECT_EQ(make_rewards([] {
              RewardConfig c;
              c.functions = {"numeric_answer"};
              return c;
            }())[0]
                .weight,
            1.0);
}

TEST(Table, CosineUsesTheNamedRewardForCorrectness) {
  RewardConfig config;
  config.functions = {"cosine_scaled"};
  config.cosine_correct = "exact_match";
  const auto rewards = make_rewards(config, 100);
  EXPECT_FLOAT_EQ(score_text(rewards[0].fn, "yes", "yes", 50), 0.75);
  EXPECT_FLOAT_EQ(score_text(rewards[0].fn, "no", "yes", 50), -0.75);
  EXPECT_TRUE(std::isnan(score_text(rewards[0].fn, "no", "", 50)));
}

std::string table_error(RewardConfig config) {
  return error_of([&] { (void)make_rewards(std::move(config)); });
}

TEST(Table, WrongConfigsAreNamed) {
  RewardConfig config;
  EXPECT_EQ(table_error(config), "[reward] reward.functions names no reward");
  config.functions = {"numeric_answr"};
  EXPECT_TRUE(table_error(config).starts_with(
      "[reward] unknown reward \"numeric_answr\"; did you mean \"numeric_answer\"? Rewards: "
      "numeric_answer, exact_match, "))
      << table_error(config);
  config.functions = {"numeric_answer"};
  config.weights = {1, 2};
  EXPECT_EQ(table_error(config),
            "[reward] reward.weights must have one weight a reward (1) or none, got 2");
  config.weights = {};
  config.functions = {"soft_overlong"};
  EXPECT_EQ(table_error(config),
            "[reward] soft_overlong needs a token limit: set reward.max_tokens to at least 1, got "
            "0");
  config.functions = {"cosine_scaled"};
  config.cosine_correct = "cosine_scaled";
  EXPECT_EQ(table_error(config),
            "[reward] reward.cosine_correct must be another reward than cosine_scaled");
}

}  // namespace
}  // namespace temper
