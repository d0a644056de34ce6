// Preferences that go round in circles: no score has them, and no answer beats all others. Of 98
// one-token answers three matter, of which each beats the next and all beat the rest. The policy that
// no other beats on average says each of the three as often as the others.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "preference_util.h"
#include "temper/trainer/answer_probe.h"
#include "temper/trainer/preference_trainer.h"

namespace temper::testing_trainer {
namespace {

constexpr std::array<int32_t, 3> kCircle{40, 60, 80};
constexpr int64_t kSteps = 400;

/// Place in the circle, or -1.
int place_of(int32_t id) {
  for (int i = 0; i < 3; ++i) {
    if (kCircle[static_cast<size_t>(i)] == id) return i;
  }
  return -1;
}

double beats(int32_t a, int32_t b) {
  const int x = place_of(a), y = place_of(b);
  if (x == y) return 0.5;
  if (x < 0 || y < 0) return x < 0 ? 0 : 1;
  return (x + 1) % 3 == y ? 1 : 0;
}

Labeler circular() {
  return {.name = "circle", .prefer = [](std::span<const AnswerPair> pairs) {
            std::vector<double> out;
            for (const AnswerPair& p : pairs) out.push_back(beats(p.first.ids[0], p.second.ids[0]));
            return out;
          }};
}

std::vector<double> distribution(PolicyModel& policy) {
  const std::vector<int32_t> prompt = policy.text().encode_rendered("x=");
  std::vector<AnswerGroup> rows;
  for (int32_t id = 0; id < kVocabulary; ++id) {
    rows.push_back({.prompt = prompt, .answers = {{{id}, {}}}});
  }
  return AnswerProbe(rows, 1).probabilities(policy.lm());
}

/// How often the answer that does best against the policy wins: 1/2 at the equilibrium, 1 for a
/// policy that always says the same.
double exploited(const std::vector<double>& policy) {
  double most = 0;
  for (int32_t best = 0; best < kVocabulary; ++best) {
    double wins = 0;
    for (int32_t id = 0; id < kVocabulary; ++id) {
      wins += policy[static_cast<size_t>(id)] * beats(best, id);
    }
    most = std::max(most, wins);
  }
  return most;
}

/// The equilibrium that Nash-MD goes to, in float64: pi ~ ref exp(P(answer beats the mixture) / beta)
/// with the mixture pi^(1 - a) ref^a, both normalised. By damped iteration.
std::vector<double> equilibrium(const std::vector<double>& reference, double beta, double share) {
  const auto normalised = [](std::vector<double> x) {
    double sum = 0;
    for (const double v : x) sum += v;
    for (double& v : x) v /= sum;
    return x;
  };
  std::vector<double> pi = reference;
  for (int i = 0; i < 3000; ++i) {
    std::vector<double> mixture = pi, next = pi;
    for (size_t v = 0; v < pi.size(); ++v) {
      mixture[v] = std::pow(pi[v], 1 - share) * std::pow(reference[v], share);
    }
    mixture = normalised(mixture);
    for (size_t v = 0; v < pi.size(); ++v) {
      double wins = 0;
      for (size_t w = 0; w < pi.size(); ++w) {
        wins += mixture[w] * beats(static_cast<int32_t>(v), static_cast<int32_t>(w));
      }
      next[v] = std::pow(pi[v], 0.98) * std::pow(reference[v] * std::exp(wins / beta), 0.02);
    }
    pi = normalised(next);
  }
  return pi;
}

constexpr double kBeta = 0.1;

std::vector<double> train(const std::string& method, uint64_t seed) {
  PolicyModel policy = tiny_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  OfflineLoss loss(method, online_preference_objectives());
  config_set(config_fields(loss), concat("beta=", kBeta));
  SampledPairs::Parts sampled = sampled_parts(circular(), 2);
  sampled.config.prompts_per_round = 64;
  sampled.rollout.max_new_tokens = 1;
  sampled.prompts.examples = {{.prompt = "x="}};
  sampled.opponent = method == "nash_md" ? Opponent::kMixture : Opponent::kPolicy;
  sampled.reference = reference;
  sampled.seed = seed;
  PreferenceTrainer::Parts p;
  p.config.sampling = sampled.config;
  p.config.rows_per_step = 64;
  p.objective = loss.build();
  p.needs = loss.needs();
  p.beta = kBeta;
  p.reference = reference;
  p.schedule = {.shape = "linear", .learning_rate = 0.003};
  p.total_steps = kSteps;
  p.seed = seed;
  p.source = std::make_unique<SampledPairs>(policy, std::move(sampled));
  PreferenceTrainer trainer(policy, std::move(p));
  try {
    while (trainer.steps_done() < kSteps) (void)trainer.step();
  } catch (const NothingToLearn&) {
    // It always says the same by now.
  }
  return distribution(policy);
}

std::string words(const std::vector<double>& policy) {
  std::string out = concat("exploited ", exploited(policy), ", the three");
  for (const int32_t id : kCircle) out += concat(" ", policy[static_cast<size_t>(id)]);
  return out;
}

TEST(CircularPreference, NashMdComesToTheEquilibrium) {
  PolicyModel untrained = tiny_policy();
  const std::vector<double> goal = equilibrium(distribution(untrained), kBeta, 0.5);
  RecordProperty("equilibrium", words(goal));
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const std::vector<double> got = train("nash_md", seed);
    RecordProperty("seed_" + std::to_string(seed), words(got));
    for (const int32_t id : kCircle) {
      EXPECT_NEAR(got[static_cast<size_t>(id)], goal[static_cast<size_t>(id)], 0.05) << id;
    }
    EXPECT_LT(exploited(got), 0.8) << seed;
  }
}

// Pairs of the policy's own answers make it certain of one of the three, which another always beats.
TEST(CircularPreference, OnlineDpoDoesNot) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const std::vector<double> got = train("dpo", seed);
    RecordProperty("seed_" + std::to_string(seed), words(got));
    EXPECT_GT(exploited(got), 0.95) << seed;
  }
}

}  // namespace
}  // namespace temper::testing_trainer
