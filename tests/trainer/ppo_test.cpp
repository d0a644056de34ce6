// PPO as a value of the online trainer: its critic, its KL control, its state.
#include "temper/trainer/ppo.h"

#include <gtest/gtest.h>

#include <limits>

#include "temper/core/threads.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Weights = std::vector<std::vector<float>>;

PpoConfig tiny_ppo(const std::string& model = "own") {
  PpoConfig p;
  p.online.group_size = 2;
  p.online.prompts_per_step = 5;
  p.online.iterations = 2;
  p.online.minibatches = 2;
  p.value.model = model;
  p.value.coef = 0.5;
  return p;
}

std::optional<ValueModel> tiny_value(const PpoConfig& config, WeightDType dtype) {
  if (config.value.model != "own") return std::nullopt;
  return make_value_model(config.value, tiny_model().string(), nullptr, dtype);
}

/// A policy and its trainer.
struct PpoRun {
  PolicyModel policy;
  PpoTrainer trainer;

  PpoRun(const PpoConfig& config, OnlineTrainer::Parts parts, WeightDType dtype = WeightDType::kFloat32,
      const std::string& from = tiny_model().string())
      : policy(PolicyModel::load(from, dtype)),
        trainer(policy, config, std::move(parts), tiny_value(config, dtype)) {}

  [[nodiscard]] Weights critic() const {
    Weights out;
    for (const Parameter* p : trainer.parts().critic->parameters()) {
      out.emplace_back(p->data(), p->data() + p->elements());
    }
    return out;
  }
};

const std::vector<std::string> kCritics = {"own", "trunk", "trunk_joint"};

TEST(Ppo, FirstUpdateIsOnPolicyToTheBit) {
  for (const auto& model : kCritics) {
    PpoConfig config = tiny_ppo(model);
    config.online.iterations = 1;
    config.online.minibatches = 1;
    PpoRun run(config, tiny_parts(1));
    const Rollout r = run.trainer.step();
    EXPECT_EQ(r.metrics.at("sampling/mismatched_tokens"), 0) << model;
    EXPECT_EQ(r.metrics.at("sampling/compared_tokens"), static_cast<double>(r.offsets.back()));
    EXPECT_EQ(r.metrics.at("val/ratio"), 1) << model;
    EXPECT_EQ(r.metrics.at("policy/clipfrac_avg"), 0) << model;
    EXPECT_EQ(r.metrics.at("policy/kl_old_new"), 0) << model;
    EXPECT_NEAR(r.metrics.at("loss/policy_avg"), 0, 1e-6) << "whitened advantages add up to 0";
    EXPECT_GT(r.metrics.at("value_grad_norm"), 0) << model;
  }
}

TEST(Ppo, AReferenceThatIsThePolicyGivesNoKl) {
  PpoRun run(tiny_ppo(), tiny_parts(1));
  const Rollout r = run.trainer.step();
  EXPECT_EQ(r.metrics.at("objective/kl"), 0);
  ASSERT_EQ(r.ref_logprobs.size(), static_cast<size_t>(r.offsets.back()));
  size_t token = 0;
  for (const Sample& s : r.samples) {
    for (const float lp : s.logprobs) ASSERT_EQ(lp, r.ref_logprobs[token++]);
  }
}

TEST(Ppo, AdvantagesAreThoseOfTheTable) {
  // Worked out here in double from what the rollout holds, without a whitening in between.
  PpoConfig config = tiny_ppo();
  config.gae.whiten = false;
  config.gae.bootstrap_truncated = true;
  config.kl.reward_coef = 0.3;
  PpoRun run(config, tiny_parts(3));
  (void)run.trainer.step();  // So that the policy has left the reference.
  Rollout r = run.trainer.rollout();
  run.trainer.score(r);
  run.trainer.estimate_advantages(r);
  double largest_kl = 0;
  for (size_t i = 0; i < r.samples.size(); ++i) {
    const Sample& s = r.samples[i];
    const auto begin = static_cast<size_t>(r.offsets[i]);
    double next_value = r.truncated(i) ? double{r.bootstrap_values[i]} : 0.0;
    double next_advantage = 0;
    for (size_t t = s.ids.size(); t-- > 0;) {
      const double kl = double{s.logprobs[t]} - double{r.ref_logprobs[begin + t]};
      largest_kl = std::max(largest_kl, std::abs(kl));
      const double reward = -0.3 * kl + (t + 1 == s.ids.size() ? double{r.scores.at(i, 0)} : 0.0);
      const double value = double{r.values[begin + t]};
      next_advantage = reward + next_value - value + 0.95 * next_advantage;
      next_value = value;
      ASSERT_NEAR(r.advantages.tokens[begin + t], next_advantage, 2e-5) << i << " " << t;
      ASSERT_NEAR(r.advantages.returns[begin + t], next_advantage + value, 2e-5) << i << " " << t;
    }
  }
  EXPECT_GT(largest_kl, 1e-4) << "the penalty was not tried";
}

TEST(Ppo, BitsDoNotDependOnMicroBatchesOrThreads) {
  for (const auto& model : kCritics) {
    PpoConfig config = tiny_ppo(model);
    config.online.minibatch_order = "by_tokens";
    const auto end = [&](int64_t tokens, int threads) {
      set_num_threads(threads);
      config.online.micro_batch_tokens = tokens;
      PpoRun run(config, tiny_parts(2));
      (void)run.trainer.step();
      (void)run.trainer.step();
      set_num_threads(1);
      return std::pair(weights_of(run.policy), run.critic());
    };
    const auto whole = end(1 << 20, 1);
    EXPECT_EQ(end(100, 1), whole) << model;
    EXPECT_EQ(end(100, 2), whole) << model;
  }
}

TEST(Ppo, MinibatchesTakeEveryPromptOncePerPass) {
  for (const std::string order : {"as_sampled", "shuffled", "by_tokens"}) {
    PpoConfig config = tiny_ppo();
    config.online.minibatch_order = order;
    config.online.iterations = 1;
    config.online.minibatches = 5;
    config.target_kl = 0;
    OnlineTrainer::Parts parts = tiny_parts(1);
    parts.schedule.learning_rate = 0;  // Every minibatch is on policy, so that all are alike.
    PpoRun run(config, parts);
    const Rollout r = run.trainer.step();
    // With one prompt a step, each of 5 steps divides by its own tokens; the losses' sum tells.
    double expected = 0;
    for (size_t p = 0; p < 5; ++p) {
      double sum = 0;
      const auto begin = static_cast<size_t>(r.offsets[2 * p]);
      const auto end = static_cast<size_t>(r.offsets[2 * p + 2]);
      for (size_t t = begin; t < end; ++t) sum -= double{r.advantages.tokens[t]};
      expected += sum / static_cast<double>(end - begin) / 5;
    }
    EXPECT_NEAR(r.metrics.at("loss"), expected, 1e-5) << order;
  }
}

TEST(Ppo, TheCriticLearnsWhatFollows) {
  for (const auto& model : kCritics) {
    PpoConfig config = tiny_ppo(model);
    config.value.clip = -1;
    config.value.learning_rate = 0.01;
    config.value.warmup_steps = 1000;  // The policy stays, so that its returns do.
    OnlineTrainer::Parts parts = tiny_parts(30);
    parts.rewards = {{"constant", per_completion([](const Completion&) { return 2.0f; })}};
    PpoRun run(config, parts);
    const Weights before = weights_of(run.policy);
    const double first = run.trainer.step().metrics.at("loss/value_avg");
    double last = 0;
    for (int i = 1; i < 30; ++i) last = run.trainer.step().metrics.at("loss/value_avg");
    EXPECT_LT(last, 0.1 * first) << model;
    EXPECT_EQ(weights_of(run.policy), before) << model << ": a warm-up trains the critic alone";
  }
}

TEST(Ppo, OnlyAJointHeadMovesTheTrunk) {
  // Without advantages, KL and entropy the value loss is all there is.
  const auto moves = [](const std::string& model) {
    PpoConfig config = tiny_ppo(model);
    config.kl.reward_coef = 0;
    config.gae.whiten = false;
    OnlineTrainer::Parts parts = tiny_parts(3);
    parts.rewards = {{"constant", per_completion([](const Completion&) { return 1.0f; })}};
    PpoRun run(config, parts);
    (void)run.trainer.step();  // The head leaves 0, so that it has a gradient for the trunk.
    Rollout r = run.trainer.rollout();
    run.trainer.score(r);
    run.trainer.estimate_advantages(r);
    std::fill(r.advantages.tokens.begin(), r.advantages.tokens.end(), 0.0f);
    std::fill(r.advantages.returns.begin(), r.advantages.returns.end(), 5.0f);
    run.trainer.update(r);
    return r.metrics.at("grad_norm");
  };
  EXPECT_EQ(moves("own"), 0);
  EXPECT_EQ(moves("trunk"), 0);
  EXPECT_GT(moves("trunk_joint"), 0);
}

TEST(Ppo, TargetKlEndsAnUpdate) {
  PpoConfig config = tiny_ppo();
  config.online.iterations = 6;
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.schedule.learning_rate = 0.05;
  const double free = PpoRun(config, parts).trainer.step().metrics.at("policy/kl_old_new");
  config.target_kl = free / 100;
  const Metrics stopped = PpoRun(config, parts).trainer.step().metrics;
  EXPECT_EQ(stopped.at("policy/stopped_early"), 1);
  EXPECT_LT(stopped.at("policy/kl_old_new"), free);
  config.target_kl = 1e6;
  EXPECT_EQ(PpoRun(config, parts).trainer.step().metrics.at("policy/stopped_early"), 0);
}

TEST(Ppo, ControllersFollowTheMeasuredKl) {
  for (const std::string kind : {"adaptive", "dual"}) {
    PpoConfig config = tiny_ppo();
    config.kl.controller.kind = kind;
    config.kl.controller.target = 1e-3;
    config.kl.controller.horizon = 20;
    OnlineTrainer::Parts parts = tiny_parts(4);
    parts.schedule.learning_rate = 0.05;
    PpoRun run(config, parts);
    const Rollout first = run.trainer.step();
    EXPECT_EQ(first.metrics.at("kl_coef"), 0.05);
    const Rollout second = run.trainer.step();
    EXPECT_LT(second.metrics.at("kl_coef"), 0.05) << kind << ": KL was 0, below its target";
    EXPECT_GT(second.metrics.at("objective/kl"), 1e-3);
    EXPECT_GT(run.trainer.step().metrics.at("kl_coef"), second.metrics.at("kl_coef")) << kind;
  }
}

TEST(Ppo, GrpoIsSteeredByTheSameControllers) {
  GrpoConfig grpo = tiny_grpo();
  config_set(config_fields(grpo), "loss.kl_coef=0.1");
  grpo.kl.controller = {.kind = "dual", .target = 1e-4, .step = 5};
  OnlineTrainer::Parts parts = tiny_parts(3);
  parts.schedule.learning_rate = 0.05;
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, grpo, parts);
  (void)trainer.step();
  const double second = trainer.step().metrics.at("kl_coef");
  EXPECT_GT(trainer.step().metrics.at("kl_coef"), second);
}

// --- What goes wrong ---------------------------------------------------------------------------------

TEST(Ppo, CompletionsOfOneTokenAndRowsWithoutAScore) {
  PpoConfig config = tiny_ppo();
  OnlineTrainer::Parts parts = tiny_parts(2);
  parts.rollout.max_new_tokens = 1;
  int calls = 0;
  parts.rewards = {{"some", [&calls](std::span<const Completion> c) {
                      std::vector<float> scores(c.size(), 1.0f);
                      scores[0] = std::numeric_limits<float>::quiet_NaN();
                      scores[1] = static_cast<float>(++calls);
                      return scores;
                    }}};
  PpoRun run(config, parts);
  const Rollout r = run.trainer.step();
  EXPECT_EQ(r.advantages.tokens[0], 0);
  for (const auto& [name, value] : r.metrics) {
    const bool spread = name.find("std") != std::string::npos;  // NaN for a single value.
    EXPECT_TRUE(spread || std::isfinite(value)) << name;
  }
  for (const auto& w : weights_of(run.policy)) {
    for (const float x : w) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(Ppo, AnExplodingValueIsNamedAndChangesNothing) {
  PpoConfig config = tiny_ppo();
  config.value.clip = -1;
  config.value.coef = 100;
  config.online.iterations = 1;
  config.online.minibatches = 1;
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.rewards = {{"huge", per_completion([](const Completion&) { return 3e38f; })}};
  PpoRun run(config, parts);
  const Weights policy = weights_of(run.policy), critic = run.critic();
  const std::string error = error_of([&] { (void)run.trainer.step(); });
  EXPECT_NE(error.find("[value]"), std::string::npos) << error;
  EXPECT_EQ(weights_of(run.policy), policy);
  EXPECT_EQ(run.critic(), critic);
}

TEST(Ppo, SettingsThatCannotBeAreRefused) {
  const auto error = [](const std::string& assignment) {
    PpoConfig config = tiny_ppo();
    return error_of([&] {
      config_set(config_fields(config), assignment);
      PpoRun run(config, tiny_parts(1));
    });
  };
  EXPECT_EQ(error("value.coef=0.2"), "");
  EXPECT_NE(error("value.coef=-1").find("ppo.value.coef"), std::string::npos);
  EXPECT_NE(error("value.model=trunck").find("trunk"), std::string::npos);
  EXPECT_NE(error("group_size=0").find("ppo.group_size"), std::string::npos);
  EXPECT_NE(error("target_kl=-1").find("ppo.target_kl"), std::string::npos);
  EXPECT_NE(error("gae.lambda=1.5").find("lambda"), std::string::npos);
  GrpoConfig grpo = tiny_grpo();
  grpo.online.group_size = 1;
  PolicyModel policy = tiny_policy();
  EXPECT_NE(error_of([&] { GrpoTrainer(policy, grpo, tiny_parts()); }).find("grpo.group_size"),
            std::string::npos);
  grpo.advantages = "gae";
  EXPECT_NE(error_of([&] { GrpoTrainer(policy, grpo, tiny_parts()); }).find("value model"),
            std::string::npos);
}

// --- Estimators without a critic, over the same trainer ----------------------------------------------

TEST(Estimators, RunOverTheSameTrainer) {
  for (const std::string name : {"reinforce_pp", "reinforce_pp_baseline", "remax", "rloo"}) {
    GrpoConfig grpo = tiny_grpo();
    grpo.advantages = name;
    grpo.kl.reward_coef = 0.05;
    PolicyModel policy = tiny_policy();
    GrpoTrainer trainer(policy, grpo, tiny_parts(2));
    for (int i = 0; i < 2; ++i) {
      const Rollout r = trainer.step();
      EXPECT_EQ(r.metrics.at("sampling/mismatched_tokens"), 0) << name;
      EXPECT_GT(r.metrics.at("grad_norm"), 0) << name;
    }
  }
  GrpoConfig grpo = tiny_grpo();
  grpo.kl.reward_coef = 0.05;  // "group" has no place for it.
  PolicyModel policy = tiny_policy();
  EXPECT_NE(error_of([&] { GrpoTrainer(policy, grpo, tiny_parts()); }).find("reward_coef"),
            std::string::npos);
}

TEST(Estimators, ReMaxSubtractsTheGreedyScore) {
  GrpoConfig grpo = tiny_grpo();
  grpo.advantages = "remax";
  grpo.online.group_size = 1;
  OnlineTrainer::Parts parts = tiny_parts(1);
  parts.rewards = {{"length", per_completion([](const Completion& c) {
                      return static_cast<float>(c.ids.size());
                    })}};
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, grpo, parts);
  Rollout r = trainer.rollout();
  trainer.score(r);
  trainer.estimate_advantages(r);
  ASSERT_EQ(r.greedy_rewards.size(), r.samples.size());
  for (size_t i = 0; i < r.samples.size(); ++i) {
    const double wanted = static_cast<double>(r.samples[i].ids.size()) - r.greedy_rewards[i];
    EXPECT_NEAR(r.advantages.tokens[static_cast<size_t>(r.offsets[i])], wanted, 1e-6);
  }
}

// --- State ----------------------------------------------------------------------------------------

struct SaveCase {
  std::string name;
  std::vector<std::string> settings;
  WeightDType dtype = WeightDType::kFloat32;
};

class PpoSaveLoad : public testing::TestWithParam<SaveCase> {};

TEST_P(PpoSaveLoad, ContinuesWithTheSameBits) {
  const TemporaryFolder folder;
  PpoConfig config = tiny_ppo();
  for (const auto& s : GetParam().settings) config_set(config_fields(config), s);
  const OnlineTrainer::Parts parts = tiny_parts(6);
  PpoRun whole(config, parts, GetParam().dtype);
  for (int i = 0; i < 3; ++i) (void)whole.trainer.step();
  whole.trainer.save(folder.path());

  PpoRun resumed(config, parts, GetParam().dtype, (folder.path() / "model").string());
  resumed.trainer.set_reference(ReferenceModel::load(tiny_model().string(), GetParam().dtype));
  resumed.trainer.load(folder.path());
  EXPECT_EQ(resumed.critic(), whole.critic());
  for (int i = 3; i < 6; ++i) {
    const Rollout a = whole.trainer.step();
    const Rollout b = resumed.trainer.step();
    EXPECT_EQ(lasting(a.metrics), lasting(b.metrics)) << i;
  }
  EXPECT_EQ(weights_of(resumed.policy), weights_of(whole.policy));
  EXPECT_EQ(resumed.critic(), whole.critic());
}

INSTANTIATE_TEST_SUITE_P(
    Settings, PpoSaveLoad,
    testing::Values(SaveCase{"own", {}}, SaveCase{"own_bf16", {}, WeightDType::kBfloat16},
                    SaveCase{"trunk", {"value.model=trunk", "value.normalise=popart"}},
                    SaveCase{"joint", {"value.model=trunk_joint", "value.normalise=running"}},
                    SaveCase{"popart", {"value.normalise=popart", "scale_rewards=true"}},
                    SaveCase{"adaptive", {"kl.kind=adaptive", "kl.horizon=50"}},
                    SaveCase{"dual", {"kl.kind=dual", "target_kl=0.01", "minibatch_order=by_tokens"}},
                    SaveCase{"warmup", {"value.warmup_steps=4"}}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace temper::testing_trainer
