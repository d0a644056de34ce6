#include "temper/trainer/online.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "temper/core/threads.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Weights = std::vector<std::vector<float>>;

struct Trained {
  Weights weights;
  std::vector<Metrics> metrics;
};

Trained train(const GrpoConfig& grpo, OnlineTrainer::Parts parts,
              WeightDType dtype = WeightDType::kFloat32) {
  PolicyModel policy = tiny_policy(dtype);
  GrpoTrainer trainer(policy, grpo, std::move(parts));
  Trained out;
  while (trainer.steps_done() < trainer.total_steps()) out.metrics.push_back(trainer.step().metrics);
  out.weights = weights_of(policy);
  return out;
}

void set(GrpoConfig& grpo, const std::string& assignment) {
  config_set(config_fields(grpo), assignment);
}

// --- The first update ------------------------------------------------------------------------------

class FirstUpdate : public testing::TestWithParam<std::tuple<WeightDType, double, double, int>> {};

TEST_P(FirstUpdate, RatioIsExactlyOneAndTheLossIsTheClosedForm) {
  const auto [dtype, temperature, top_p, top_k] = GetParam();
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.rollout.temperature = temperature;
  parts.rollout.top_p = top_p;
  parts.rollout.top_k = top_k;
  PolicyModel policy = tiny_policy(dtype);
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  const Rollout r = trainer.step();

  double weighted = 0, tokens = 0, trained = 0;
  std::set<size_t> lengths;
  for (size_t i = 0; i < r.samples.size(); ++i) {
    const double n = static_cast<double>(r.samples[i].ids.size());
    lengths.insert(r.samples[i].ids.size());
    weighted += r.advantages.values[i] * n;
    tokens += n;
    if (r.advantages.values[i] != 0) trained += n;
  }
  EXPECT_GT(lengths.size(), 3u) << "the case is too regular";
  ASSERT_GT(trained, 0);
  EXPECT_EQ(r.metrics.at("sampling/mismatched_tokens"), 0);
  EXPECT_EQ(r.metrics.at("sampling/compared_tokens"), trained);
  EXPECT_EQ(r.metrics.at("clip_ratio/low_mean"), 0);
  EXPECT_EQ(r.metrics.at("clip_ratio/high_mean"), 0);
  EXPECT_EQ(r.metrics.at("clip_ratio/region_mean"), 0);
  EXPECT_NEAR(r.metrics.at("loss"), -weighted / tokens, 1e-6);
  if (top_p < 1 || top_k > 0) {
    EXPECT_LT(r.metrics.at("sampling/kept_mass"), 0.999);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Settings, FirstUpdate,
    testing::Combine(testing::Values(WeightDType::kFloat32, WeightDType::kBfloat16,
                                     WeightDType::kBfloat16Dot, WeightDType::kFloat16),
                     testing::Values(0.7, 1.3), testing::Values(1.0, 0.9), testing::Values(0, 9)));

TEST(FirstUpdates, GrpoLossIsMinusTheMeanAdvantage) {
  const Trained t = train(tiny_grpo("grpo"), tiny_parts(1));
  EXPECT_NEAR(t.metrics[0].at("loss"), 0.0, 1e-6);  // Advantages of a group add up to 0.
}

TEST(FirstUpdates, LaterPassesAreOffPolicyAndNotCompared) {
  GrpoConfig grpo = tiny_grpo();
  grpo.online.iterations = 3;
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.schedule.learning_rate = 0.05;
  const Trained once = train(tiny_grpo(), parts);
  const Trained thrice = train(grpo, parts);
  EXPECT_EQ(thrice.metrics[0].at("sampling/compared_tokens"),
            once.metrics[0].at("sampling/compared_tokens"));
  EXPECT_EQ(thrice.metrics[0].at("sampling/mismatched_tokens"), 0);
  EXPECT_GT(thrice.metrics[0].at("clip_ratio/region_mean"), 0);
}

// --- E1, E7: the split, threads and recomputation do not change the weights -------------------------

TEST(Split, EveryLossIsFiniteAndTheSameForAnyMicroBatch) {
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    GrpoConfig grpo = tiny_grpo(entry.name);
    grpo.online.iterations = 2;
    grpo.online.prompts_per_step = 4;
    grpo.online.minibatches = 2;
    grpo.online.micro_batch_tokens = 1 << 20;
    const Trained whole = train(grpo, tiny_parts());
    for (const Metrics& m : whole.metrics) {
      EXPECT_TRUE(std::isfinite(m.at("loss"))) << entry.name;
      EXPECT_GT(m.at("grad_norm"), 0) << entry.name;
    }
    grpo.online.micro_batch_tokens = 128;  // More than a group of 4 x 16 tokens, less than two.
    const Trained cut = train(grpo, tiny_parts());
    EXPECT_EQ(cut.weights, whole.weights) << entry.name;
    EXPECT_NEAR(cut.metrics.back().at("loss"), whole.metrics.back().at("loss"), 1e-12) << entry.name;
  }
}

TEST(Split, GroupsThatFitAreNeverCut) {
  // Limits around one, two and three groups: wherever a group would straddle, it moves as a whole.
  GrpoConfig grpo = tiny_grpo();
  grpo.online.prompts_per_step = 5;
  grpo.online.micro_batch_tokens = 1 << 20;
  const Trained whole = train(grpo, tiny_parts(2));
  for (const int64_t limit : {100, 117, 131, 150, 173, 200, 230}) {
    grpo.online.micro_batch_tokens = limit;
    EXPECT_EQ(train(grpo, tiny_parts(2)).weights, whole.weights) << limit;
  }
}

TEST(Split, CutGroupsDifferByRoundingAlone) {
  GrpoConfig grpo = tiny_grpo();
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.optimizer.eps = 1e-2;  // Adam's first step is a sign otherwise: rounding would show as 2 lr.
  const Trained whole = train(grpo, parts);
  for (const int64_t limit : {1, 30, 45}) {
    grpo.online.micro_batch_tokens = limit;
    const Trained cut = train(grpo, parts);
    EXPECT_LT(largest_difference(cut.weights, whole.weights), 1e-5) << limit;
    EXPECT_EQ(cut.metrics[0].at("sampling/mismatched_tokens"), 0) << limit;
    EXPECT_NEAR(cut.metrics[0].at("loss"), whole.metrics[0].at("loss"), 1e-12) << limit;
  }
}

TEST(Split, ThreadsAndRecomputationChangeNoBit) {
  GrpoConfig grpo = tiny_grpo();
  grpo.online.micro_batch_tokens = 128;
  const int before = num_threads();
  set_num_threads(1);
  const Trained expected = train(grpo, tiny_parts());
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    EXPECT_EQ(train(grpo, tiny_parts()).weights, expected.weights) << threads << " threads";
  }
  set_num_threads(before);
  grpo.online.gradient_checkpointing = true;
  const Trained recomputed = train(grpo, tiny_parts());
  EXPECT_EQ(recomputed.weights, expected.weights);
  EXPECT_EQ(lasting(recomputed.metrics.back()), lasting(expected.metrics.back()));
}

TEST(Determinism, TwentyStepsHaveTheSameBitsAtAnyNumberOfThreads) {
  const int before = num_threads();
  for (const WeightDType dtype :
       {WeightDType::kFloat32, WeightDType::kBfloat16, WeightDType::kBfloat16Dot}) {
    set_num_threads(1);
    const Trained expected = train(tiny_grpo(), tiny_parts(20), dtype);
    const Trained again = train(tiny_grpo(), tiny_parts(20), dtype);
    set_num_threads(2);
    const Trained two = train(tiny_grpo(), tiny_parts(20), dtype);
    EXPECT_EQ(again.weights, expected.weights) << weight_dtype_name(dtype);
    EXPECT_EQ(two.weights, expected.weights) << weight_dtype_name(dtype);
    for (const Metrics& m : two.metrics) EXPECT_EQ(m.at("sampling/mismatched_tokens"), 0);
  }
  set_num_threads(before);
}

TEST(Split, MaskedAndDeadRowsKeepTheDivisor) {
  // With a KL term dead groups are computed; their split must not matter either.
  GrpoConfig grpo = tiny_grpo();
  set(grpo, "loss.kl_coef=0.1");
  set(grpo, "loss.entropy_coef=0.01");
  grpo.online.mask_truncated = true;
  grpo.online.top_entropy_quantile = 0.5;
  grpo.online.micro_batch_tokens = 1 << 20;
  const Trained whole = train(grpo, tiny_parts());
  grpo.online.micro_batch_tokens = 100;
  EXPECT_EQ(train(grpo, tiny_parts()).weights, whole.weights);
  EXPECT_EQ(whole.metrics[0].at("kl"), 0) << "the reference is the policy at the first step";
  EXPECT_GT(whole.metrics[2].at("kl"), 0);
}

// --- The parts of a step ---------------------------------------------------------------------------

TEST(OwnLoop, EqualsStep) {
  const Trained stepped = train(tiny_grpo(), tiny_parts());
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), tiny_parts());
  for (int64_t i = 0; i < trainer.total_steps(); ++i) {
    Rollout r = trainer.rollout();
    trainer.score(r);
    trainer.estimate_advantages(r);
    trainer.update(r);
    EXPECT_EQ(lasting(r.metrics), lasting(stepped.metrics[static_cast<size_t>(i)]));
  }
  EXPECT_EQ(weights_of(policy), stepped.weights);
  EXPECT_EQ(trainer.steps_done(), 3);
  EXPECT_NE(stepped.weights, weights_of(tiny_policy())) << "nothing was trained";
}

TEST(OwnLoop, DescribesTheFirstOfEveryGroupFirst) {
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), tiny_parts());
  const Rollout r = trainer.step();
  const auto shown = trainer.describe(r, 5);
  ASSERT_EQ(shown.size(), 5u);
  const std::vector<size_t> expected{0, 4, 8, 1, 5};  // 3 groups of 4.
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(shown[i].completion, r.samples[expected[i]].text);
    EXPECT_EQ(shown[i].prompt, r.prompt_texts[i % 3]);
    EXPECT_EQ(shown[i].advantage, r.advantages.values[expected[i]]);
    EXPECT_EQ(shown[i].rewards[0].second, double{r.scores.at(expected[i], 0)});
  }
  EXPECT_EQ(trainer.describe(r, 100).size(), 12u);
}

// --- Rewards that fail, groups that teach nothing ---------------------------------------------------

TEST(BadRewards, RowsWithoutAScoreAreLeftOut) {
  OnlineTrainer::Parts parts = tiny_parts(1);
  const auto inner = parts.rewards[0].fn;
  // NaN for every fourth row; a throw for the batch that holds row 1.
  parts.rewards = {{"holes", [](std::span<const Completion> c) {
    std::vector<float> out;
    for (size_t i = 0; i < c.size(); ++i) {
      out.push_back(i % 4 == 3 ? std::numeric_limits<float>::quiet_NaN()
                               : static_cast<float>(i % 4) / 2.0f);
    }
    return out;
  }}};
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  const Rollout r = trainer.step();
  for (size_t i = 3; i < 12; i += 4) EXPECT_EQ(r.advantages.values[i], 0) << i;
  EXPECT_DOUBLE_EQ(r.metrics.at("frac_reward_nan"), 0.25);
  EXPECT_DOUBLE_EQ(r.metrics.at("reward"), 0.5);
  ASSERT_FALSE(r.scores.problems.empty());
  EXPECT_NE(r.scores.problems[0].find("holes"), std::string::npos) << r.scores.problems[0];
  for (const auto& w : weights_of(policy)) {
    for (const float v : w) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST(BadRewards, AThrowOnOneRowCostsThatRow) {
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.rewards = {{"picky", per_completion([](const Completion& c) {
    if (c.ids.size() > 10) throw std::runtime_error("too long for me");
    return static_cast<float>(c.ids.size());
  })}};
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  const Rollout r = trainer.step();
  int64_t long_ones = 0;
  for (size_t i = 0; i < r.samples.size(); ++i) {
    const bool is_long = r.samples[i].ids.size() > 10;
    EXPECT_EQ(std::isnan(r.scores.at(i, 0)), is_long);
    long_ones += is_long ? 1 : 0;
  }
  ASSERT_GT(long_ones, 0);
  ASSERT_FALSE(r.scores.problems.empty());
  EXPECT_NE(r.scores.problems[0].find("too long for me"), std::string::npos);
}

TEST(BadRewards, NoScoreAtAllIsAnErrorAndTrainsNothing) {
  OnlineTrainer::Parts parts = tiny_parts();
  parts.rewards = {{"never", per_completion([](const Completion&) {
    return std::numeric_limits<float>::quiet_NaN();
  })}};
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  const std::string error = error_of([&] { (void)trainer.step(); });
  EXPECT_NE(error.find("step 1"), std::string::npos) << error;
  EXPECT_NE(error.find("never"), std::string::npos) << error;
  EXPECT_EQ(weights_of(policy), weights_of(tiny_policy()));
  EXPECT_EQ(trainer.steps_done(), 0);
}

TEST(DeadGroups, LeaveWeightsAndMomentsAlone) {
  OnlineTrainer::Parts parts = tiny_parts(3);
  int64_t step = 0;
  // Equal rewards in the first two steps: no optimizer step, so the third is the optimizer's first.
  parts.rewards = {{"late", [&](std::span<const Completion> c) {
    std::vector<float> out(c.size(), 1.0f);
    if (++step == 3) {
      for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(i % 2);
    }
    return out;
  }}};
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  for (int i = 0; i < 2; ++i) {
    const Rollout r = trainer.step();
    EXPECT_EQ(r.metrics.at("frac_reward_zero_std"), 1);
    EXPECT_EQ(r.metrics.at("loss"), 0);
    EXPECT_EQ(r.metrics.at("grad_norm"), 0);
    EXPECT_EQ(r.metrics.at("sampling/compared_tokens"), 0);
    EXPECT_EQ(weights_of(policy), weights_of(tiny_policy()));
  }
  (void)trainer.step();
  // Adam's first step moves a weight by the rate at most, by nearly the rate where its gradient is
  // not tiny; a counter of 3 would scale that by (1-b1)/(1-b1^3) * sqrt((1-b2^3)/(1-b2)) = 0.64.
  EXPECT_NEAR(largest_difference(weights_of(policy), weights_of(tiny_policy())), 0.01, 1e-4);
}

TEST(DeadGroups, ComputingThemChangesNothing) {
  GrpoConfig grpo = tiny_grpo();
  OnlineTrainer::Parts parts = tiny_parts(2);
  parts.rewards = {{"first_group", [](std::span<const Completion> c) {
    std::vector<float> out(c.size(), 0.5f);
    out[0] = 1;
    return out;
  }}};
  const Trained skipped = train(grpo, parts);
  grpo.online.skip_dead_groups = false;
  const Trained computed = train(grpo, parts);
  EXPECT_EQ(skipped.weights, computed.weights);
  EXPECT_EQ(skipped.metrics[1].at("loss"), computed.metrics[1].at("loss"));
  EXPECT_LT(skipped.metrics[0].at("sampling/compared_tokens"),
            computed.metrics[0].at("sampling/compared_tokens"));
}

// --- Errors -----------------------------------------------------------------------------------------

TEST(OnlineErrors, ALossThatIsNoNumberLeavesNoTrace) {
  PolicyModel policy = tiny_policy();
  OnlineTrainer::Parts parts = tiny_parts();
  GrpoConfig grpo = tiny_grpo();
  grpo.online.micro_batch_tokens = 128;
  parts.algorithm = temper::grpo(grpo);
  parts.config = grpo.online;
  const RolloutObjective good = parts.algorithm.objective;
  int calls = 0;
  parts.algorithm.objective = [&](const RolloutBatch& b) {
    LossOutput out = good(b);
    if (++calls == 2) out.loss = out.loss * std::numeric_limits<double>::quiet_NaN();
    return out;
  };
  OnlineTrainer trainer(policy, parts);
  Rollout r = trainer.rollout();
  trainer.score(r);
  trainer.estimate_advantages(r);
  const std::string error = error_of([&] { trainer.update(r); });
  EXPECT_NE(error.find("step 1"), std::string::npos) << error;
  EXPECT_EQ(weights_of(policy), weights_of(tiny_policy()));
  EXPECT_EQ(trainer.steps_done(), 0);
  // The same rollout again, now with a loss that is fine, gives what a first attempt would have.
  trainer.update(r);
  EXPECT_EQ(weights_of(policy), train(grpo, tiny_parts(1)).weights);
}

TEST(OnlineErrors, SettingsAreCheckedBeforeAnythingIsSampled) {
  PolicyModel policy = tiny_policy();
  const auto error = [&](auto change) {
    GrpoConfig grpo = tiny_grpo();
    OnlineTrainer::Parts parts = tiny_parts();
    change(grpo, parts);
    return error_of([&] { GrpoTrainer(policy, grpo, parts); });
  };
  using G = GrpoConfig;
  using P = OnlineTrainer::Parts;
  EXPECT_NE(error([](G& g, P&) { g.online.group_size = 1; }).find("grpo.group_size"), std::string::npos);
  EXPECT_NE(error([](G& g, P&) { g.online.minibatches = 4; }).find("grpo.minibatches"), std::string::npos);
  EXPECT_NE(error([](G& g, P&) { g.online.ref_sync_mix = 0; }).find("ref_sync_mix"), std::string::npos);
  EXPECT_NE(error([](G&, P& p) { p.rollout.temperature = 0; }).find("temperature"), std::string::npos);
  EXPECT_NE(error([](G&, P& p) { p.schedule.learning_rate = -1; }).find("learning_rate"), std::string::npos);
  EXPECT_NE(error([](G&, P& p) { p.rewards.clear(); }).find("reward"), std::string::npos);
  EXPECT_NE(error([](G&, P& p) { p.prompts.examples.clear(); }).find("count"), std::string::npos);
  EXPECT_NE(error([](G&, P& p) { p.optimizer.beta1 = 1; }).find("optimizer.beta1"), std::string::npos);
}

TEST(OnlineErrors, APromptWithoutTokensIsNamed) {
  PolicyModel policy = tiny_policy();
  OnlineTrainer::Parts parts = tiny_parts();
  parts.prompts.examples.resize(1);
  parts.prompts.examples[0] = {};
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  EXPECT_NE(error_of([&] { (void)trainer.rollout(); }).find("prompt"), std::string::npos);
}

TEST(OnlineErrors, AMovingReferenceNeedsFloat32) {
  PolicyModel policy = tiny_policy(WeightDType::kBfloat16);
  GrpoConfig grpo = tiny_grpo();
  set(grpo, "loss.kl_coef=0.1");
  grpo.online.ref_sync_every = 2;
  EXPECT_NE(error_of([&] { GrpoTrainer(policy, grpo, tiny_parts()); }).find("ref_sync_every"),
            std::string::npos);
}

// --- Learning ---------------------------------------------------------------------------------------

TEST(Learning, APreferredFirstTokenIsFound) {
  OnlineTrainer::Parts parts = tiny_parts(30);
  parts.rollout.max_new_tokens = 2;
  parts.rollout.stop.clear();
  parts.rewards = {{"starts_low", per_completion([](const Completion& c) {
    return c.ids[0] < 30 ? 1.0f : 0.0f;
  })}};
  GrpoConfig grpo = tiny_grpo();
  grpo.online.group_size = 8;
  const Trained t = train(grpo, parts);
  double first = 0, last = 0;
  for (size_t i = 0; i < 5; ++i) {
    first += t.metrics[i].at("reward") / 5;
    last += t.metrics[t.metrics.size() - 1 - i].at("reward") / 5;
  }
  EXPECT_LT(first, 0.7);
  EXPECT_GT(last, 0.95);
}

}  // namespace
}  // namespace temper::testing_trainer
