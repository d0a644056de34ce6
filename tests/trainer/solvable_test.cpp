// A task small enough to be solved on paper: one prompt, at most two tokens, every completion
// enumerated. What a trained policy earns and how far it went are exact, not sampled.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "temper/data/packing.h"
#include "temper/trainer/ppo.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

constexpr int32_t kSize = kVocabulary;

/// Dense enough to be found, with one best completion: each place has a favourite, and what is near
/// it is worth a part. 2 % are lost at a mean distance of 0.8 ids, of 98.
double place_value(int32_t id, int32_t favourite) {
  return std::max(0.0, 1.0 - std::abs(id - favourite) / 40.0);
}
double reward_of(int32_t first, int32_t second) {
  if (first == kEos) return 0;
  return 0.5 * place_value(first, 40) + 0.5 * place_value(second, 70);
}

/// All completions of the prompt: 0 is the end at once, the others are (first, second).
struct Distribution {
  std::vector<double> logprob, reward;
};

Distribution enumerate(CausalLM& lm, const std::vector<int32_t>& prompt) {
  std::vector<std::vector<int32_t>> texts;
  for (int32_t a = 0; a < kSize; ++a) texts.push_back({a, 0});
  PackedGroup group{prompt, {}};
  for (const auto& t : texts) group.completions.emplace_back(t);
  const CompletionBatch packed = pack_completions(std::span(&group, 1));
  ScoreRequest request;
  for (int32_t a = 0; a < kSize; ++a) {
    request.rows.push_back(packed.rows[0]);
    request.targets.push_back(a);
  }
  for (int32_t a = 0; a < kSize; ++a) {
    for (int32_t b = 0; b < kSize; ++b) {
      request.rows.push_back(packed.rows[static_cast<size_t>(2 * a + 1)]);
      request.targets.push_back(b);
    }
  }
  const at::Tensor scores = score(lm, packed.tokens, request, 1.0).logprobs;
  const float* lp = scores.data_ptr<float>();
  Distribution d{{double{lp[kEos]}}, {0.0}};
  for (int32_t a = 0; a < kSize; ++a) {
    if (a == kEos) continue;
    for (int32_t b = 0; b < kSize; ++b) {
      d.logprob.push_back(double{lp[a]} + double{lp[kSize + a * kSize + b]});
      d.reward.push_back(reward_of(a, b));
    }
  }
  return d;
}

struct Outcome {
  double reward = 0;  ///< Expected.
  double kl = 0;      ///< KL(policy || reference), nats.
};

Outcome outcome(const Distribution& policy, const Distribution& reference) {
  Outcome o;
  for (size_t i = 0; i < policy.logprob.size(); ++i) {
    const double p = std::exp(policy.logprob[i]);
    o.reward += p * policy.reward[i];
    o.kl += p * (policy.logprob[i] - reference.logprob[i]);
  }
  return o;
}

/// The policy that maximises E[r] - beta KL: reference * exp(r / beta) / Z.
Outcome best_with_kl(const Distribution& reference, double beta) {
  double z = 0;
  for (size_t i = 0; i < reference.logprob.size(); ++i) {
    z += std::exp(reference.logprob[i] + reference.reward[i] / beta);
  }
  Distribution best = reference;
  for (size_t i = 0; i < best.logprob.size(); ++i) {
    best.logprob[i] += best.reward[i] / beta - std::log(z);
  }
  return outcome(best, reference);
}

OnlineTrainer::Parts solvable_parts(uint64_t seed, int64_t steps, double rate) {
  OnlineTrainer::Parts p;
  p.rollout.max_new_tokens = 2;
  p.schedule = {.shape = "linear", .learning_rate = rate};
  p.rewards = {{"place", per_completion([](const Completion& c) {
                  return static_cast<float>(c.ids.size() < 2 ? reward_of(kEos, 0)
                                                             : reward_of(c.ids[0], c.ids[1]));
                })}};
  for (int i = 0; i < 8; ++i) p.prompts.examples.push_back({.prompt = "x=", .id = static_cast<uint64_t>(i)});
  p.total_steps = steps;
  p.seed = seed;
  return p;
}

/// Settings of one algorithm: 64 completions a step for each.
struct Algorithm {
  std::string name;
  double kl_coef = 0;
};

std::unique_ptr<OnlineTrainer> make_trainer(const Algorithm& a, PolicyModel& policy,
                                            OnlineTrainer::Parts parts) {
  if (a.name == "ppo") {
    PpoConfig c;
    c.online.prompts_per_step = 8;
    c.online.group_size = 8;
    c.online.iterations = 2;
    c.kl.reward_coef = a.kl_coef;
    c.value.coef = 1;
    return std::make_unique<PpoTrainer>(
        policy, c, std::move(parts), make_value_model(c.value, tiny_model().string(), nullptr, WeightDType::kFloat32));
  }
  GrpoConfig c;
  c.online.prompts_per_step = 8;
  c.online.group_size = 8;
  if (a.name == "grpo") {
    config_set(config_fields(c), "loss.kl_coef=" + std::to_string(a.kl_coef));
    c.advantages = a.kl_coef == 0 ? "group" : "none";  // In units of the reward, as the KL is.
  } else {
    c.advantages = a.name;
    c.kl.reward_coef = a.kl_coef;
  }
  return std::make_unique<GrpoTrainer>(policy, c, std::move(parts));
}

Outcome train(const Algorithm& a, uint64_t seed, int64_t steps, double rate) {
  PolicyModel policy = tiny_policy();
  const std::vector<int32_t> prompt = policy.text().encode_rendered("x=");
  const Distribution reference = enumerate(policy.lm(), prompt);
  const auto trainer = make_trainer(a, policy, solvable_parts(seed, steps, rate));
  while (trainer->steps_done() < trainer->total_steps()) (void)trainer->step();
  return outcome(enumerate(policy.lm(), prompt), reference);
}

TEST(Solvable, EnumerationIsADistribution) {
  PolicyModel policy = tiny_policy();
  const Distribution d = enumerate(policy.lm(), policy.text().encode_rendered("x="));
  double total = 0;
  for (const double lp : d.logprob) total += std::exp(lp);
  EXPECT_NEAR(total, 1, 1e-5);
  EXPECT_EQ(d.logprob.size(), size_t{1} + 97 * 98);
  EXPECT_LT(outcome(d, d).reward, 0.5) << "the untrained policy must have something to learn";
  EXPECT_EQ(outcome(d, d).kl, 0);
}

class Solvable : public testing::TestWithParam<std::string> {};

// What is maximised is E[r] - beta KL, whose optimum is known. (Reward alone would end a hair beside
// the best completion, as policies do that grow certain before they have tried it.)
TEST_P(Solvable, ComesWithinTwoPercentOfTheOptimum) {
  constexpr double kBeta = 0.05;
  PolicyModel policy = tiny_policy();
  const Distribution reference = enumerate(policy.lm(), policy.text().encode_rendered("x="));
  const Outcome best = best_with_kl(reference, kBeta);
  const double optimum = best.reward - kBeta * best.kl;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const Outcome o = train({GetParam(), kBeta}, seed, 400, 0.005);
    RecordProperty("share_of_optimum_" + std::to_string(seed),
                   std::to_string((o.reward - kBeta * o.kl) / optimum));
    EXPECT_GE(o.reward - kBeta * o.kl, 0.98 * optimum) << "seed " << seed;
  }
}

TEST_P(Solvable, FollowsTheTradeOffOfRewardAndKl) {
  PolicyModel policy = tiny_policy();
  const Distribution reference = enumerate(policy.lm(), policy.text().encode_rendered("x="));
  double last_kl = HUGE_VAL;
  for (const double beta : {0.15, 0.25, 0.4}) {
    const Outcome best = best_with_kl(reference, beta);
    const Outcome o = train({GetParam(), beta}, 1, 400, 0.005);
    RecordProperty("beta_" + std::to_string(beta),
                   concat("reward ", o.reward, " of ", best.reward, ", KL ", o.kl, " of ", best.kl));
    // What is maximised, then its two parts.
    EXPECT_NEAR(o.reward - beta * o.kl, best.reward - beta * best.kl, 0.03) << beta;
    EXPECT_NEAR(o.reward, best.reward, 0.05) << beta;
    EXPECT_NEAR(o.kl, best.kl, 0.3) << beta;
    EXPECT_LT(o.kl, last_kl) << beta << ": a larger coefficient holds the policy nearer";
    last_kl = o.kl;
  }
}

INSTANTIATE_TEST_SUITE_P(Algorithms, Solvable,
                         testing::Values("ppo", "grpo", "rloo", "reinforce_pp"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace temper::testing_trainer
