// The parts of examples/restaurant_dpo: measures, splits, pairs, baselines, scores of cards.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "baselines.h"
#include "card_scores.h"
#include "ranking.h"
#include "recommender.h"
#include "split.h"
#include "temper/core/rng.h"
#include "trainer/tiny_model.h"

namespace restaurant {
namespace {

using temper::RngPurpose;
using temper::RngStream;
using temper::error_of;
using temper::testing_trainer::tiny_policy;

// ---- Measures: worked by hand. ----

TEST(Ranking, OfDistinctScores) {
  const std::vector<double> scores{0.5, 0.9, 0.1, 0.7, 0.2};  // Third of five.
  const Standing s = standing_of(scores);
  EXPECT_EQ(s.above, 2);
  EXPECT_EQ(s.equal, 0);
  EXPECT_EQ(s.below, 2);
  EXPECT_EQ(s.hit_rate(1), 0);
  EXPECT_EQ(s.hit_rate(2), 0);
  EXPECT_EQ(s.hit_rate(3), 1);
  EXPECT_EQ(s.ndcg(2), 0);
  EXPECT_DOUBLE_EQ(s.ndcg(3), 0.5);   // 1 / log2(4)
  EXPECT_DOUBLE_EQ(s.ndcg(10), 0.5);
  EXPECT_DOUBLE_EQ(s.auc(), 0.5);
  const Standing first = standing_of(std::vector<double>{3, 1, 2});
  EXPECT_EQ(first.hit_rate(1), 1);
  EXPECT_EQ(first.ndcg(1), 1);
  EXPECT_EQ(first.auc(), 1);
}

TEST(Ranking, OfEqualScoresIsTheMeanOverTheirOrders) {
  const Standing s = standing_of(std::vector<double>{1, 2, 1, 1, 0});  // Ranks 2, 3 or 4.
  EXPECT_EQ(s.hit_rate(1), 0);
  EXPECT_DOUBLE_EQ(s.hit_rate(2), 1.0 / 3);
  EXPECT_DOUBLE_EQ(s.hit_rate(3), 2.0 / 3);
  EXPECT_DOUBLE_EQ(s.hit_rate(5), 1);
  EXPECT_DOUBLE_EQ(s.ndcg(3), (1 / std::log2(3.0) + 1 / std::log2(4.0)) / 3);
  EXPECT_DOUBLE_EQ(s.auc(), (1 + 0.5 * 2) / 4);
  // All alike is chance: k of n.
  const Standing chance = standing_of(std::vector<double>(100, 7.0));
  EXPECT_DOUBLE_EQ(chance.hit_rate(10), 0.1);
  EXPECT_DOUBLE_EQ(chance.auc(), 0.5);
}

TEST(Ranking, RefusesWhatCannotBeRanked) {
  EXPECT_NE(error_of([] { (void)standing_of(std::vector<double>{1}); }), "");
  EXPECT_NE(error_of([] { (void)standing_of(std::vector<double>{1, std::nan("")}); }), "");
}

TEST(Ranking, BootstrapHasTheWidthOfTheNormalInterval) {
  std::vector<double> values;
  for (int i = 0; i < 400; ++i) values.push_back(i % 4 == 0 ? 1 : 0);
  const Estimate e = bootstrap(values, 1);
  EXPECT_DOUBLE_EQ(e.mean, 0.25);
  const double half = 1.96 * std::sqrt(0.25 * 0.75 / 400);  // 0.042
  EXPECT_NEAR(e.mean - e.low, half, 0.01);
  EXPECT_NEAR(e.high - e.mean, half, 0.01);
  const Estimate same = bootstrap(std::vector<double>(5, 0.5), 1);
  EXPECT_DOUBLE_EQ(same.low, 0.5);
  EXPECT_DOUBLE_EQ(same.high, 0.5);
}

// ---- Splits and pairs. ----

/// `guests` x `places`, about a third rated.
Survey made_survey(size_t guests, size_t places) {
  Survey s;
  s.guests.resize(guests);
  s.places.resize(places);
  RngStream rng(1, RngPurpose::kTest, 0);
  for (size_t g = 0; g < guests; ++g) {
    for (size_t p = 0; p < places; ++p) {
      if (rng.next_below(3) == 0) s.ratings.push_back({g, p, static_cast<int>(rng.next_below(3))});
    }
  }
  return s;
}

TEST(Split, NothingOfAHeldOutOpinionReachesTraining) {
  const Survey s = made_survey(40, 25);
  const Split split = leave_one_out(s, {.validation = 0.3, .rivals = 5, .seed = 4});
  std::set<std::pair<size_t, size_t>> rated, held;
  for (const Rating& r : s.ratings) rated.insert({r.guest, r.place});
  for (const auto* trials : {&split.validation, &split.test}) {
    for (const Trial& t : *trials) {
      ASSERT_EQ(t.places.size(), 6u);
      EXPECT_TRUE(held.insert({t.guest, t.places[0]}).second);
      EXPECT_TRUE(rated.contains({t.guest, t.places[0]}));
      for (size_t i = 1; i < t.places.size(); ++i) {
        EXPECT_FALSE(rated.contains({t.guest, t.places[i]}));
      }
    }
  }
  EXPECT_GT(split.validation.size(), 5u);
  EXPECT_GT(split.test.size(), split.validation.size());
  EXPECT_EQ(split.train.size() + held.size(), s.ratings.size());
  for (const Rating& r : split.train) EXPECT_FALSE(held.contains({r.guest, r.place}));
  for (const Preference& p : rated_pairs(split.train)) {
    EXPECT_FALSE(held.contains({p.guest, p.better}));
    EXPECT_FALSE(held.contains({p.guest, p.worse}));
  }
  for (const Preference& p : unrated_pairs(split.train, s.places.size(), 3, 1)) {
    EXPECT_FALSE(held.contains({p.guest, p.better}));
  }
  // What guests said of held-out places cannot change what is trained on: take it back.
  Survey without = s;
  std::erase_if(without.ratings,
                [&](const Rating& r) { return held.contains({r.guest, r.place}); });
  EXPECT_EQ(without.ratings, split.train);
  EXPECT_EQ(rated_pairs(without.ratings), rated_pairs(split.train));
  EXPECT_EQ(unrated_pairs(without.ratings, 25, 3, 1), unrated_pairs(split.train, 25, 3, 1));
}

TEST(Split, DependsOnTheSeedAlone) {
  const Survey s = made_survey(20, 15);
  const auto places = [&](uint64_t seed) {
    std::vector<std::vector<size_t>> out;
    for (const Trial& t : leave_one_out(s, {.seed = seed}).test) out.push_back(t.places);
    return out;
  };
  EXPECT_EQ(places(1), places(1));
  EXPECT_NE(places(1), places(2));
}

TEST(Split, PairsOfRatings) {
  const std::vector<Rating> train{{0, 0, 2}, {0, 1, 0}, {0, 2, 2}, {1, 0, 1}, {1, 3, 0}, {2, 1, 2}};
  const std::vector<Preference> expected{{0, 0, 1}, {0, 2, 1}, {1, 0, 3}};
  EXPECT_EQ(rated_pairs(train), expected);
  // Guest 0 likes two of places 0 to 4 and has not rated 3 and 4; guest 2 not 0, 2, 3, 4.
  const auto drawn = unrated_pairs(train, 5, 2, 9);
  ASSERT_EQ(drawn.size(), 6u);
  for (const Preference& p : drawn) {
    EXPECT_NE(p.guest, 1u);  // Likes nothing.
    EXPECT_TRUE(p.guest == 0 ? p.worse >= 3 : p.worse != 1);
  }
  EXPECT_TRUE(unrated_pairs(train, 5, 0, 9).empty());
}

// ---- Baselines. ----

TEST(Baselines, PopularityCountsLikes) {
  const std::vector<Rating> train{{0, 0, 2}, {1, 0, 2}, {2, 0, 1}, {0, 2, 2}, {1, 1, 0}};
  EXPECT_EQ(popularity(train, 3), (std::vector<double>{2, 0, 1}));
}

TEST(Baselines, OneStepOfBprIsItsGradient) {
  // Without factors only biases move: x = 0, so each by rate * sigmoid(0) = 0.1 / 2.
  BprModel biases(1, 2, {.factors = 0, .rate = 0.1, .decay = 0.5});
  EXPECT_DOUBLE_EQ(biases.epoch(std::vector<Preference>{{0, 0, 1}}), std::log(2.0));
  EXPECT_DOUBLE_EQ(biases.score(0, 0), 0.05);
  EXPECT_DOUBLE_EQ(biases.score(0, 1), -0.05);
  // And again: x = 0.1, and the decay takes 0.1 * 0.5 * 0.05.
  (void)biases.epoch(std::vector<Preference>{{0, 0, 1}});
  EXPECT_DOUBLE_EQ(biases.score(0, 0), 0.05 + 0.1 * (1 / (1 + std::exp(0.1)) - 0.5 * 0.05));
}

TEST(Baselines, BprFindsPlantedFactorsThatPopularityCannot) {
  // Two kinds of guests and of places; each kind likes its own, so all places are as popular.
  constexpr size_t kGuests = 30, kPlaces = 20;
  std::vector<Preference> train;
  RngStream rng(5, RngPurpose::kTest, 0);
  for (size_t g = 0; g < kGuests; ++g) {
    for (int i = 0; i < 15; ++i) {
      const size_t own = 2 * rng.next_below(kPlaces / 2) + g % 2;
      const size_t other = 2 * rng.next_below(kPlaces / 2) + 1 - g % 2;
      train.push_back({g, own, other});
    }
  }
  BprModel model(kGuests, kPlaces, {.factors = 4});
  double loss = 0;
  for (int epoch = 0; epoch < 60; ++epoch) loss = model.epoch(train);
  EXPECT_LT(loss, 0.1);
  int right = 0;
  for (size_t g = 0; g < kGuests; ++g) {
    for (size_t p = 0; p < kPlaces; p += 2) {
      right += model.score(g, p + g % 2) > model.score(g, p + 1 - g % 2) ? 1 : 0;
    }
  }
  EXPECT_GT(right, 290);  // Of 300.
}

// ---- Cards. ----

TEST(Cards, ATreeGivesTheBitsOfEachCardByItself) {
  const temper::PolicyModel policy = tiny_policy();
  const std::vector<int32_t> prompt{40, 41, 42, 50};
  const std::vector<std::vector<int32_t>> cards{{20, 21, 22, 23, 1}, {20, 21, 30, 1}, {25, 1}, {1},
                                                {20, 21, 22, 23, 1}, {20, 21, 22, 24, 31, 1}};
  std::vector<const std::vector<int32_t>*> all;
  for (const auto& c : cards) all.push_back(&c);
  const CardTree tree = card_tree(prompt, all);
  EXPECT_EQ(tree.batch.rows(), 4 + 8);  // 20 21, 22, 23, 24 31, 30, 25; an end has no row.
  const auto together = score_cards(policy.lm(), tree);
  ASSERT_EQ(together.size(), cards.size());
  for (size_t i = 0; i < cards.size(); ++i) {
    const auto alone = score_cards(policy.lm(), card_tree(prompt, std::span(&all[i], 1)));
    EXPECT_EQ(alone[0], together[i]) << i;
    EXPECT_EQ(together[i].tokens, std::ssize(cards[i]));
    EXPECT_LT(together[i].sum, 0);
  }
  EXPECT_EQ(together[0], together[4]);
  const std::vector<int32_t> cut{20, 21};
  all.push_back(&cut);
  EXPECT_NE(error_of([&] { (void)card_tree(prompt, all); }).find("beginning"), std::string::npos);
}

TEST(Cards, RulesOfRanking) {
  const std::vector<CardScore> policy{{-6, 3}, {-8, 8}}, base{{-9, 3}, {-8, 8}};
  EXPECT_EQ(ranked_by(Rule::kSum, policy, base), (std::vector<double>{-6, -8}));
  EXPECT_EQ(ranked_by(Rule::kMean, policy, base), (std::vector<double>{-2, -1}));
  EXPECT_EQ(ranked_by(Rule::kLift, policy, base), (std::vector<double>{3, 0}));
  EXPECT_EQ(ranked_by(Rule::kMeanLift, policy, base), (std::vector<double>{1, 0}));
}

}  // namespace
}  // namespace restaurant
