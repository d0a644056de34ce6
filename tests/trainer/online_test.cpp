#include "temper/trainer/online.h"

#include <gtest/gtest.h>

#include <set>

#include "temper/core/threads.h"
#include "trained.h"

namespace temper::testing_trainer {
namespace {

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
