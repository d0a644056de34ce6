// Identities and edge cases of the estimators over tokens; values are in ppo_hand_test and
// ppo_golden_test.
#include <gtest/gtest.h>

#include <cmath>

#include "ppo_case.h"
#include "temper/objective/gae.h"
#include "temper/objective/reinforce_pp.h"
#include "temper/objective/remax.h"
#include "temper/objective/running_scale.h"

namespace temper {
namespace {

constexpr float kNaNFloat = std::numeric_limits<float>::quiet_NaN();

GaeConfig plain(double gamma, double lambda) {
  GaeConfig config;
  config.gamma = gamma;
  config.lambda = lambda;
  config.whiten = false;
  return config;
}

/// The tokens' rewards: without a critic, and with lambda 0.
std::vector<float> rewards_of(TokenCase c) {
  c.tokens.values.assign(c.tokens.values.size(), 0.0F);
  return Gae(plain(1, 0))(c.table()).tokens;
}

TEST(Gae, LambdaOneIsTheRewardToGo) {
  const TokenCase c = random_case({5, 1, 7, 3});
  const Advantages a = Gae(plain(1, 1))(c.table());
  const std::vector<float> r = rewards_of(c);
  for (size_t row = 0; row < 4; ++row) {
    double to_go = 0;
    for (int64_t i = c.tokens.offsets[row + 1] - 1; i >= c.tokens.offsets[row]; --i) {
      const auto t = static_cast<size_t>(i);
      to_go += double{r[t]};
      EXPECT_NEAR(double{a.returns[t]}, to_go, 1e-6);
      EXPECT_NEAR(double{a.tokens[t]} + double{c.tokens.values[t]}, to_go, 1e-6);
    }
  }
}

TEST(Gae, LambdaZeroIsTheTemporalDifference) {
  const TokenCase c = random_case({5, 1, 7, 3});
  const Advantages a = Gae(plain(0.9, 0))(c.table());
  const std::vector<float> r = rewards_of(c);
  for (size_t row = 0; row < 4; ++row) {
    const auto end = static_cast<size_t>(c.tokens.offsets[row + 1]);
    for (auto t = static_cast<size_t>(c.tokens.offsets[row]); t < end; ++t) {
      const double next = t + 1 < end ? double{c.tokens.values[t + 1]} : 0;
      EXPECT_NEAR(double{a.tokens[t]}, double{r[t]} + 0.9 * next - double{c.tokens.values[t]},
                  1e-6);
    }
  }
}

TEST(Gae, ABootstrapValueOfZeroIsTermination) {
  TokenCase c = random_case({5, 1, 7, 3});
  GaeConfig config = plain(0.95, 0.9);
  const Advantages ended = Gae(config)(c.table());
  config.bootstrap_truncated = true;
  c.tokens.truncated = {1, 0, 1, 1};
  c.tokens.bootstrap_values.assign(4, 0.0F);
  const Advantages cut = Gae(config)(c.table());
  EXPECT_EQ(ended.tokens, cut.tokens);
  EXPECT_EQ(ended.returns, cut.returns);
  c.tokens.bootstrap_values = {0.0F, 5.0F, 1.0F, 0.0F};  // Row 1 was not cut.
  const Advantages raised = Gae(config)(c.table());
  for (size_t t = 0; t < 6; ++t) EXPECT_EQ(raised.tokens[t], ended.tokens[t]);
  for (size_t t = 6; t < 13; ++t) EXPECT_GT(raised.tokens[t], ended.tokens[t]);
}

TEST(TokenAdvantages, AMaskedTokenMightAsWellNotBeThere) {
  TokenCase whole = random_case({4, 5});
  TokenCase cut = random_case({4, 5});
  // Token 2 of the second row is masked in one, left out of the other.
  whole.tokens.mask.assign(9, 1);
  whole.tokens.mask[6] = 0;
  whole.tokens.old_logprobs[6] = whole.tokens.ref_logprobs[6] = whole.tokens.values[6] = kNaNFloat;
  for (auto* x : {&cut.tokens.old_logprobs, &cut.tokens.ref_logprobs, &cut.tokens.values}) {
    x->erase(x->begin() + 6);
  }
  cut.tokens.offsets[2] = 8;
  for (const AdvantageEntry& entry : token_estimators()) {
    SCOPED_TRACE(entry.name);
    const Advantages a = entry.estimator(whole.table()), b = entry.estimator(cut.table());
    EXPECT_EQ(a.tokens[6], 0);
    for (size_t t = 0; t < 8; ++t) {
      EXPECT_NEAR(a.tokens[t < 6 ? t : t + 1], b.tokens[t], 1e-6);
    }
    EXPECT_NEAR(a.values[1], b.values[1], 1e-6);
    EXPECT_EQ(a.kl_sums, b.kl_sums);
    EXPECT_EQ(a.shaped_rewards, b.shaped_rewards);
  }
}

TEST(TokenAdvantages, ARaisedScoreRaisesItsRowAlone) {
  const TokenCase c = random_case({4, 6, 1, 3});
  TokenCase raised = c;
  raised.scores[1] += 1;
  const Advantages a = Gae(plain(1, 0.95))(c.table()), b = Gae(plain(1, 0.95))(raised.table());
  const Advantages x = ReMax()(c.table()), y = ReMax()(raised.table());
  for (size_t t = 0; t < a.tokens.size(); ++t) {
    const bool own = t >= 4 && t < 10;
    EXPECT_EQ(b.tokens[t] > a.tokens[t], own) << t;
    EXPECT_EQ(y.tokens[t] > x.tokens[t], own) << t;
  }
}

TEST(TokenAdvantages, WhitenedOnesHaveMeanZeroAndSpreadOne) {
  TokenCase c = random_case({40, 1, 17, 33});
  c.tokens.mask.assign(91, 1);
  c.tokens.mask[3] = c.tokens.mask[60] = 0;
  for (const AdvantageEntry& entry : token_estimators()) {
    if (entry.name == "remax") continue;
    const Advantages a = entry.estimator(c.table());
    double sum = 0, squares = 0;
    for (const float x : a.tokens) sum += double{x};
    for (const float x : a.tokens) squares += double{x} * double{x};
    EXPECT_NEAR(sum / 89, 0, 1e-6) << entry.name;
    EXPECT_NEAR(squares / 88, 1, 1e-5) << entry.name;
  }
}

TEST(TokenAdvantages, PermutingGroupsPermutesThem) {
  const TokenCase c = random_case({4, 4, 4, 4, 4, 4});
  TokenCase p = c;
  const std::vector<size_t> order = {2, 0, 1};
  for (size_t g = 0; g < 3; ++g) {
    const auto move = [&](auto& to, const auto& from, size_t n) {
      std::copy_n(from.begin() + static_cast<long>(order[g] * n), n,
                  to.begin() + static_cast<long>(g * n));
    };
    move(p.tokens.old_logprobs, c.tokens.old_logprobs, 8);
    move(p.tokens.ref_logprobs, c.tokens.ref_logprobs, 8);
    move(p.tokens.values, c.tokens.values, 8);
    move(p.tokens.greedy_scores, c.tokens.greedy_scores, 1);
    move(p.scores, c.scores, 2);
  }
  for (const AdvantageEntry& entry : token_estimators()) {
    const Advantages a = entry.estimator(c.table()), b = entry.estimator(p.table());
    for (size_t t = 0; t < 24; ++t) {
      EXPECT_NEAR(b.tokens[t], a.tokens[order[t / 8] * 8 + t % 8], 1e-6) << entry.name;
    }
  }
}

TEST(TokenAdvantages, AnUnscoredRowIsZeroAndPoisonsNothing) {
  TokenCase c = random_case({4, 6, 1, 3});
  c.group_size = 1;
  c.tokens.greedy_scores = {0.1, 0.2, 0.3, 0.4};
  c.scores[1] = kUnscored;
  const TokenCase rest = without_row(c, 1);
  for (const AdvantageEntry& entry : token_estimators()) {
    SCOPED_TRACE(entry.name);
    const Advantages a = entry.estimator(c.table()), b = entry.estimator(rest.table());
    for (size_t t = 0; t < 14; ++t) {
      const bool unscored = t >= 4 && t < 10;
      if (unscored) {
        EXPECT_EQ(a.tokens[t], 0) << t;
        if (!a.returns.empty()) {
          EXPECT_EQ(a.returns[t], c.tokens.values[t]);
        }
      } else {
        EXPECT_NEAR(a.tokens[t], b.tokens[t < 4 ? t : t - 6], 1e-6) << t;
      }
    }
    EXPECT_EQ(a.values[1], 0);
    EXPECT_TRUE(a.dead_groups[1]);
    EXPECT_TRUE(std::isnan(a.rewards[1]) && std::isnan(a.shaped_rewards[1]));
    EXPECT_TRUE(std::isfinite(a.kl_sums[1])) << "its KL was measured all the same";
    EXPECT_DOUBLE_EQ(a.reward_mean, b.reward_mean);
  }
}

TEST(TokenAdvantages, NothingScoredEverythingMaskedNothingAtAll) {
  TokenCase unscored = random_case({4, 6, 1, 3});
  unscored.scores.assign(4, kUnscored);
  TokenCase masked = random_case({4, 6, 1, 3});
  masked.tokens.mask.assign(14, 0);
  TokenCase empty;
  empty.tokens.offsets = {0};
  for (const AdvantageEntry& entry : token_estimators()) {
    SCOPED_TRACE(entry.name);
    for (const TokenCase* c : {&unscored, &masked}) {
      const Advantages a = entry.estimator(c->table());
      EXPECT_EQ(a.tokens, std::vector<float>(14, 0.0F));
      EXPECT_EQ(a.values, std::vector<double>(4, 0.0));
      EXPECT_EQ(a.dead_groups, (std::vector<bool>{true, true}));
    }
    EXPECT_TRUE(entry.estimator(empty.table()).tokens.empty());
  }
}

TEST(TokenAdvantages, OneTokenRowsAndOneRow) {
  const TokenCase ones = random_case({1, 1, 1, 1});
  TokenCase one = random_case({1});
  one.group_size = 1;
  one.tokens.greedy_scores = {0.5};
  for (const AdvantageEntry& entry : token_estimators()) {
    SCOPED_TRACE(entry.name);
    const Advantages a = entry.estimator(ones.table());
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_TRUE(std::isfinite(a.tokens[i]));
      EXPECT_EQ(a.values[i], double{a.tokens[i]});
    }
    // One number has no spread: whitening leaves 0 of it.
    const Advantages b = entry.estimator(one.table());
    if (entry.name != "remax") {
      EXPECT_EQ(b.tokens[0], 0);
    }
  }
}

TEST(TokenAdvantages, EqualScoresOfAGroupAreNoDeadGroupForACritic) {
  TokenCase c = random_case({2, 2});
  c.scores = {1, 1};
  c.tokens.kl_coef = 0;
  EXPECT_FALSE(Gae()(c.table()).dead_groups[0]);
  EXPECT_TRUE(ReinforcePpBaseline()(c.table()).dead_groups[0]) << "exactly 0 for every token";
  EXPECT_EQ(ReinforcePpBaseline()(c.table()).tokens, std::vector<float>(4, 0.0F));
}

TEST(TokenAdvantages, PenaltyScaleAndClipComeInThisOrder) {
  TokenCase c = random_case({2, 3});
  c.tokens.kl_coef = 0;
  c.scores = {3, -1};
  c.tokens.truncated = {1, 0};
  c.tokens.reward_scale = 0.5;
  c.tokens.values.assign(5, 0.0F);
  GaeConfig config = plain(1, 0);
  config.missing_eos_penalty = 1;
  EXPECT_EQ(Gae(config)(c.table()).tokens, (std::vector<float>{0, 1, 0, 0, -0.5}));
  config.reward_clip = 0.75;
  const Advantages a = Gae(config)(c.table());
  EXPECT_EQ(a.tokens, (std::vector<float>{0, 0.75, 0, 0, -0.5}));
  EXPECT_EQ(a.rewards, c.scores) << "reported as they came";
  EXPECT_EQ(a.shaped_rewards, (std::vector<double>{0.75, -0.5}));
  c.tokens.greedy_scores = {4};
  EXPECT_EQ(ReMax({.missing_eos_penalty = 1, .reward_clip = 0.75})(c.table()).tokens,
            (std::vector<float>{0, 0, -1.25, -1.25, -1.25}));
}

TEST(ReMax, AGroupWithoutAGreedyScoreTeachesNothing) {
  TokenCase c = random_case({2, 3, 1, 2});
  const Advantages whole = ReMax()(c.table());
  c.tokens.greedy_scores[0] = kUnscored;
  const Advantages a = ReMax()(c.table());
  for (size_t t = 0; t < 8; ++t) EXPECT_EQ(a.tokens[t], t < 5 ? 0 : whole.tokens[t]);
  EXPECT_EQ(a.dead_groups, (std::vector<bool>{true, false}));
}

TEST(LeaveOneOut, AKlOfCoefficientZeroChangesNoBit) {
  TokenCase c = random_case({4, 6, 1, 3});
  RewardTable bare = c.table();
  bare.tokens = nullptr;
  const Advantages without = LeaveOneOutAdvantage{}(bare);
  const Advantages with = LeaveOneOutAdvantage{}(c.table());
  EXPECT_NE(without.values, with.values);
  c.tokens.kl_coef = 0;
  EXPECT_EQ(without.values, LeaveOneOutAdvantage{}(c.table()).values);
  // Equal scores, different KL: something to learn after all.
  c.scores = {1, 1, 0, 1};
  c.tokens.kl_coef = 0.1;
  const Advantages equal = LeaveOneOutAdvantage{}(c.table());
  EXPECT_EQ(equal.dead_groups, (std::vector<bool>{false, false}));
  EXPECT_NEAR(equal.values[0], -0.1 * (equal.kl_sums[0] - equal.kl_sums[1]), 1e-14);
}

TEST(TokenAdvantages, MistakesAreNamed) {
  TokenCase c = random_case({2, 3});
  RewardTable bare = c.table();
  bare.tokens = nullptr;
  EXPECT_EQ(error_of([&] { (void)Gae()(bare); }),
            "[gae] this estimator needs the rollout's tokens (RewardTable::tokens)");
  const auto run = [](const TokenCase& x) { return error_of([&] { (void)Gae()(x.table()); }); };
  TokenCase x = c;
  x.tokens.values.clear();
  EXPECT_EQ(run(x), "[gae] this estimator needs a critic's values (TokenTable::values)");
  x = c;
  x.tokens.values.pop_back();
  EXPECT_EQ(run(x), "[tokens] values must have 5 entries or none, got 4");
  x = c;
  x.tokens.offsets[1] = 6;
  EXPECT_EQ(run(x), "[tokens] offsets must ascend from 0");
  x = c;
  x.tokens.values[3] = kNaNFloat;
  EXPECT_EQ(run(x), "[gae] the value at token 3 of the rollout is nan");
  x = c;
  x.tokens.old_logprobs[3] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(run(x), "[advantage] the reward of token 1 of row 1 is inf; its log-probabilities may "
                    "be infinite");
  x = c;
  x.tokens.kl_coef = -1;
  EXPECT_EQ(run(x), "[tokens] kl_coef must be finite and at least 0, got -1");
  x = c;
  x.tokens.truncated[0] = 1;
  x.tokens.bootstrap_values.clear();
  GaeConfig config;
  config.bootstrap_truncated = true;
  EXPECT_EQ(error_of([&] { (void)Gae(config)(x.table()); }),
            "[gae] bootstrap_truncated needs the values behind the last tokens "
            "(TokenTable::bootstrap_values)");
  config.trl_compat = true;
  EXPECT_EQ(error_of([&] { (void)Gae(config); }),
            "[gae] trl_compat has no bootstrap: set bootstrap_truncated to false");
  EXPECT_EQ(error_of([] { (void)Gae(plain(1.5, 0)); }), "[gae] gamma must be in [0, 1], got 1.5");
  x = c;
  x.tokens.greedy_scores.clear();
  EXPECT_EQ(error_of([&] { (void)ReMax()(x.table()); }),
            "[remax] this estimator needs each prompt's greedy score (TokenTable::greedy_scores)");
}

TEST(AdvantageTable, SaysWhatAnEstimatorReads) {
  EXPECT_EQ(advantage_names(), (std::vector<std::string>{"group", "batch", "none", "gdpo", "rloo",
                                                         "rloo_normalized"}));
  EXPECT_EQ(all_advantage_names().size(), advantage_names().size() + 4);
  const AdvantageEntry& gae = find_advantage_entry("gae");
  EXPECT_TRUE(gae.needs_tokens && gae.needs_values && gae.needs_reference);
  EXPECT_TRUE(find_advantage_entry("remax").needs_greedy);
  EXPECT_FALSE(find_advantage_entry("rloo").needs_tokens);
  EXPECT_TRUE(find_advantage_entry("rloo").needs_reference);
  EXPECT_FALSE(find_advantage_entry("group").needs_reference);
}

TEST(RunningScale, IsTheSpreadOfAllThatWasSeen) {
  const std::vector<double> values = {1e6 + 1, 1e6 + 2, kUnscored, 1e6 + 4, 1e6 + 7};
  RunningScale parts;
  parts.update(std::span(values).first(2));
  parts.update(std::span(values).subspan(2));
  EXPECT_EQ(parts.count, 4);
  EXPECT_NEAR(parts.mean, 1e6 + 3.5, 1e-9);
  EXPECT_NEAR(parts.std(), std::sqrt(21.0 / 3), 1e-9);
  EXPECT_NEAR(parts.factor(), 1 / std::sqrt(7.0), 1e-10);
  RunningScale whole;
  whole.update(values);
  EXPECT_EQ(whole.m2, parts.m2) << "parts add nothing of their own";
  RunningScale equal;
  equal.update(std::vector<double>{2, 2, 2});
  EXPECT_EQ(equal.factor(), 1) << "no spread to divide by";
}

}  // namespace
}  // namespace temper
