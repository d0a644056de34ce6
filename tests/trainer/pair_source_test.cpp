// Where a round's rows come from: files, the policy, mixtures, earlier rounds.
#include "temper/trainer/pair_source.h"

#include <gtest/gtest.h>

#include <set>

#include "preference_util.h"

namespace temper::testing_trainer {
namespace {

using Json = nlohmann::ordered_json;

/// Given pairs whose lines are 1, 2, ...
TokenizedAnswers numbered_pairs(uint64_t count) {
  TokenizedAnswers out;
  out.source = "numbers";
  for (uint64_t i = 1; i <= count; ++i) {
    out.groups.push_back({.prompt = {5}, .answers = {{{6}, {}}, {{7}, {}}}, .line = i});
  }
  out.hash = count;
  return out;
}

std::vector<uint64_t> lines_of(const PairRows& rows) {
  std::vector<uint64_t> out;
  for (const AnswerGroup& g : rows.groups) out.push_back(g.line);
  return out;
}

/// Marks by the first token, so that what is preferred can be told from the ids.
Labeler by_first_id() {
  return {.name = "first_id", .scores = per_completion([](const Completion& c) {
            return static_cast<float>(c.ids[0]);
          })};
}

TEST(PairSource, AFileIsGivenInEpochs) {
  FilePairs file(numbered_pairs(5), 2, 3);
  std::multiset<uint64_t> seen;
  for (int i = 0; i < 5; ++i) {
    for (const uint64_t line : lines_of(file.next({i, i}))) seen.insert(line);
  }
  for (uint64_t line = 1; line <= 5; ++line) EXPECT_EQ(seen.count(line), 2u);
  EXPECT_EQ(file.epoch(), 2);
  FilePairs again(numbered_pairs(5), 2, 3);
  again.restore(file.state());
  EXPECT_EQ(lines_of(again.next({5, 5})), lines_of(file.next({5, 5})));
  FilePairs other(numbered_pairs(6), 2, 3);
  EXPECT_NE(error_of([&] { other.restore(file.state()); }).find("not those of the checkpoint"),
            std::string::npos);
  auto single = numbered_pairs(2);
  single.groups[1].answers.pop_back();
  EXPECT_NE(error_of([&] { FilePairs(single, 1, 3); }).find("line 2 of numbers"), std::string::npos);
}

TEST(PairSource, AMixtureHasTheRowsOfAll) {
  const auto make = [] {
    std::vector<std::unique_ptr<PairSource>> parts;
    parts.push_back(std::make_unique<FilePairs>(numbered_pairs(4), 1, 1));
    parts.push_back(std::make_unique<FilePairs>(numbered_pairs(7), 3, 1));
    return MixedPairs(std::move(parts));
  };
  MixedPairs mixed = make();
  EXPECT_EQ(mixed.next({0, 0}).groups.size(), 4u);
  MixedPairs again = make();
  again.restore(mixed.state());
  EXPECT_EQ(lines_of(again.next({1, 1})), lines_of(mixed.next({1, 1})));
  EXPECT_EQ(mixed.epoch(), 0.5);
}

TEST(PairSource, ReplayForgetsWhatIsTooOld) {
  const auto make = [] {
    return ReplayedPairs(std::make_unique<FilePairs>(numbered_pairs(100), 2, 1), {3, 4}, 9);
  };
  ReplayedPairs replay = make();
  std::vector<std::set<uint64_t>> fresh;
  for (int64_t round = 0; round < 6; ++round) {
    const int64_t step = 2 * round;
    if (round == 3) {  // As a resumed run does.
      const Json state = Json::parse(replay.state().dump());
      replay = make();
      replay.restore(state);
    }
    const PairRows rows = replay.next({round, step});
    const auto lines = lines_of(rows);
    fresh.emplace_back(lines.begin(), lines.begin() + 2);
    // Rounds are 2 steps apart, so those of the last two are at most 4 steps old.
    std::set<uint64_t> allowed;
    for (int64_t r = std::max<int64_t>(0, round - 2); r < round; ++r) {
      allowed.insert(fresh[static_cast<size_t>(r)].begin(), fresh[static_cast<size_t>(r)].end());
    }
    EXPECT_EQ(lines.size() - 2, std::min<size_t>(3, allowed.size())) << round;
    const std::set<uint64_t> old(lines.begin() + 2, lines.end());
    EXPECT_EQ(old.size(), lines.size() - 2) << "drawn twice";
    for (const uint64_t line : old) EXPECT_TRUE(allowed.contains(line)) << round << " " << line;
    EXPECT_EQ(rows.metrics.at("replay/rows"), static_cast<double>(old.size()));
    EXPECT_EQ(rows.metrics.at("replay/kept"), static_cast<double>(allowed.size() + 2));
  }
}

TEST(PairSource, AReplayThatIsResumedGoesOnAlike) {
  const auto make = [] {
    return ReplayedPairs(std::make_unique<FilePairs>(numbered_pairs(9), 2, 1), {2, 100}, 9);
  };
  ReplayedPairs whole = make(), broken = make();
  for (int64_t r = 0; r < 3; ++r) {
    (void)whole.next({r, r});
    (void)broken.next({r, r});
  }
  ReplayedPairs resumed = make();
  resumed.restore(Json::parse(broken.state().dump()));
  for (int64_t r = 3; r < 6; ++r) EXPECT_EQ(lines_of(resumed.next({r, r})), lines_of(whole.next({r, r})));
  EXPECT_NE(error_of([&] { resumed.restore(Json{{"kept", Json::array()}}); }).find("[resume]"),
            std::string::npos);
}

TEST(SampledPairs, TheBestMeetsTheWorst) {
  PolicyModel policy = tiny_policy();
  SampledPairs source(policy, sampled_parts(by_first_id(), 5));
  const PairRows rows = source.next({0, 0});
  ASSERT_EQ(rows.groups.size(), 4u);
  double margin = 0, gap = 0;
  for (const AnswerGroup& g : rows.groups) {
    ASSERT_EQ(g.answers.size(), 2u);
    EXPECT_GT(g.answers[0].ids[0], g.answers[1].ids[0]);
    margin += (g.answers[0].ids[0] - g.answers[1].ids[0]) / 4.0;
    gap += static_cast<double>(g.answers[0].ids.size()) / 4 -
           static_cast<double>(g.answers[1].ids.size()) / 4;
  }
  // No answer that was sampled is better than the one preferred.
  ASSERT_EQ(rows.samples.size(), 20u);
  const auto preferred = [](const SampleCompletion& s) { return s.advantage == 1; };
  EXPECT_EQ(std::count_if(rows.samples.begin(), rows.samples.end(), preferred), 4);
  for (size_t p = 0; p < 4; ++p) {
    double best = -1, chosen = -2;
    for (size_t i = p; i < 20; i += 4) {
      best = std::max(best, rows.samples[i].rewards[0].second);
      if (preferred(rows.samples[i])) chosen = rows.samples[i].rewards[0].second;
    }
    EXPECT_EQ(best, chosen) << p;
  }
  EXPECT_NEAR(rows.metrics.at("objective/scores_margin"), margin, 1e-12);
  EXPECT_NEAR(rows.metrics.at("pairs/length_gap"), gap, 1e-12);
  EXPECT_EQ(rows.metrics.at("pairs/made"), 4);
}

TEST(SampledPairs, InTurnEveryAnswerMeetsItsNeighbour) {
  PolicyModel policy = tiny_policy();
  auto parts = sampled_parts(by_first_id(), 6);
  parts.config.pairing = "in_turn";
  const PairRows rows = SampledPairs(policy, std::move(parts)).next({0, 0});
  EXPECT_EQ(rows.metrics.at("pairs/made") + rows.metrics.at("pairs/tied"), 12);
  EXPECT_GT(rows.groups.size(), 8u);
}

TEST(SampledPairs, AnswersAreTheTokensThatWereDrawn) {
  PolicyModel policy = tiny_policy();
  auto parts = sampled_parts(by_first_id(), 2);
  RolloutRequest request{.group_size = 2, .seed = parts.seed, .step = 7};
  const Dataset prompts = parts.prompts;
  const RolloutConfig rollout = parts.rollout;
  SampledPairs source(policy, std::move(parts));
  PromptSampler order(prompts.examples.size(), request.seed);
  for (const size_t row : order.next(4)) {
    request.prompts.push_back(encode_prompt(prompts.examples[row], policy.text()).ids);
  }
  const auto drawn = RolloutEngine(policy.lm(), policy.text(), rollout).generate(request);
  std::set<std::vector<int32_t>> expected, got;
  for (const Sample& s : drawn) expected.insert(s.ids);
  for (const AnswerGroup& g : source.next({7, 0}).groups) {
    for (const TokenAnswer& a : g.answers) {
      EXPECT_TRUE(expected.contains(a.ids));
      EXPECT_TRUE(a.mask.empty());
    }
  }
}

TEST(SampledPairs, TiesAndUnlabelledAnswersAreCounted) {
  PolicyModel policy = tiny_policy();
  const auto counts = [&](float value, double margin = 0) {
    auto parts = sampled_parts(
        {.name = "odd", .scores = per_completion([value](const Completion& c) {
           return value < 0 ? static_cast<float>(c.ids[0]) / 1000 : value;
         })},
        3);
    parts.config.min_margin = margin;
    return SampledPairs(policy, std::move(parts)).next({0, 0});
  };
  const PairRows ties = counts(2);
  EXPECT_TRUE(ties.groups.empty());
  EXPECT_EQ(ties.metrics.at("pairs/tied"), 4);
  EXPECT_EQ(ties.metrics.at("frac_reward_zero_std"), 1);
  const PairRows none = counts(std::nanf(""));
  EXPECT_TRUE(none.groups.empty());
  EXPECT_EQ(none.metrics.at("pairs/unlabelled"), 4);
  EXPECT_EQ(none.metrics.at("frac_reward_nan"), 1);
  EXPECT_FALSE(none.metrics.contains("objective/scores"));
  const PairRows close = counts(-1, 1);
  EXPECT_TRUE(close.groups.empty());
  EXPECT_EQ(close.metrics.at("pairs/close"), 4);
  EXPECT_EQ(counts(-1, 0).groups.size(), 4u);
}

TEST(SampledPairs, EqualTokensMakeNoPair) {
  PolicyModel policy = tiny_policy();
  int calls = 0;
  auto parts = sampled_parts({.name = "fickle", .scores = [&](std::span<const Completion> c) {
                                std::vector<float> out;
                                for (size_t i = 0; i < c.size(); ++i) {
                                  out.push_back(static_cast<float>(++calls));
                                }
                                return out;
                              }},
                             2);
  parts.rollout.top_k = 1;
  const PairRows rows = SampledPairs(policy, std::move(parts)).next({0, 0});
  EXPECT_TRUE(rows.groups.empty());
  EXPECT_EQ(rows.metrics.at("pairs/equal"), 4);
}

TEST(SampledPairs, AnOpponentsAnswersAreTheReferences) {
  PolicyModel policy = tiny_policy();
  auto parts = sampled_parts(by_first_id(), 2);
  EXPECT_NE(error_of([&] {
              auto p = parts;
              p.opponent = Opponent::kReference;
              SampledPairs(policy, std::move(p));
            }).find("none was given"),
            std::string::npos);
  parts.opponent = Opponent::kReference;
  parts.reference = ReferenceModel::copy_of(policy);
  const PairRows rows = SampledPairs(policy, parts).next({0, 0});
  int own = 0;
  for (const AnswerGroup& g : rows.groups) {
    EXPECT_TRUE(g.label == 0 || g.label == 1);
    own += g.label == 1 ? 1 : 0;
  }
  ASSERT_EQ(rows.samples.size(), 8u);
  // Samples come over the prompts first: 0..3 are the policy's, 4..7 the reference's.
  int won = 0;
  for (size_t p = 0; p < 4; ++p) {
    won += rows.samples[p].rewards[0].second > rows.samples[p + 4].rewards[0].second ? 1 : 0;
  }
  EXPECT_EQ(own, won);
  EXPECT_TRUE(rows.metrics.contains("objective/ref_scores"));
  parts.opponent = Opponent::kMixture;
  parts.labeler.link = bradley_terry;
  const PairRows single = SampledPairs(policy, parts).next({0, 0});
  ASSERT_EQ(single.groups.size(), 4u);
  for (size_t p = 0; p < 4; ++p) {
    const double gap = single.samples[p].rewards[0].second - single.samples[p + 4].rewards[0].second;
    EXPECT_EQ(single.groups[p].answers.size(), 1u);
    EXPECT_NEAR(single.groups[p].label, 1 / (1 + std::exp(-gap)), 1e-12);
  }
}

}  // namespace
}  // namespace temper::testing_trainer
