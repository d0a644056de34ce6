// Rewards that fail, groups that teach nothing, settings that cannot be.
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "temper/trainer/online.h"
#include "trained.h"

namespace temper::testing_trainer {
namespace {

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

}  // namespace
}  // namespace temper::testing_trainer
