// Two models that answer together.
#include "temper/rollout/mixture.h"

#include <gtest/gtest.h>

#include <cmath>

#include "rollout_test_util.h"
#include "temper/data/packing.h"
#include "temper/nn/scoring.h"

namespace temper {
namespace {

using namespace testing_rollout;

constexpr int kIds = 64;

std::vector<Ids> ids_of(const std::vector<Sample>& samples) {
  std::vector<Ids> out;
  for (const Sample& s : samples) out.push_back(s.ids);
  return out;
}

/// Log-probs of every id after each prefix of a completion.
std::vector<std::vector<double>> all_logprobs(CausalLM& lm, const Ids& prompt, const Ids& ids) {
  PackedGroup group{prompt, {ids}};
  const CompletionBatch packed = pack_completions(std::span(&group, 1));
  ScoreRequest request;
  for (const int32_t row : packed.rows) {
    for (int32_t v = 0; v < kIds; ++v) {
      request.rows.push_back(row);
      request.targets.push_back(v);
    }
  }
  const at::Tensor scores = score(lm, packed.tokens, request, 1.0).logprobs;
  const float* p = scores.const_data_ptr<float>();
  std::vector<std::vector<double>> out;
  for (size_t t = 0; t < ids.size(); ++t, p += kIds) out.emplace_back(p, p + kIds);
  return out;
}

TEST(Mixture, ItsEndsAreTheModelsThemselves) {
  TinyModel a("llama"), b("qwen3");
  const RolloutConfig config{.max_new_tokens = 25};
  const RolloutRequest request{.prompts = make_prompts({3, 40, 7}), .group_size = 4, .seed = 5};
  for (const double share : {0.0, 1.0}) {
    CausalLM& alone = share == 0 ? a.lm : b.lm;
    const auto expected = RolloutEngine(alone, a.text, config).generate(request);
    EXPECT_EQ(ids_of(sample_mixture({a.lm, b.lm, share}, a.text, config, request)),
              ids_of(expected))
        << share;
  }
}

// log p = (1 - a) log policy + a log other - log Z, over every token that was drawn.
TEST(Mixture, SamplesTheNormalisedGeometricMean) {
  TinyModel a("llama"), b("qwen3");
  const RolloutRequest request{.prompts = make_prompts({5, 9}), .group_size = 6, .seed = 2};
  constexpr double kShare = 0.3;
  const auto samples =
      sample_mixture({a.lm, b.lm, kShare}, a.text, {.max_new_tokens = 12}, request);
  ASSERT_EQ(samples.size(), size_t{12});
  for (const Sample& s : samples) {
    const Ids& prompt = request.prompts[static_cast<size_t>(s.prompt)];
    const auto pa = all_logprobs(a.lm, prompt, s.ids), pb = all_logprobs(b.lm, prompt, s.ids);
    for (size_t t = 0; t < s.ids.size(); ++t) {
      double z = 0, entropy = 0;
      std::vector<double> mixed;
      for (size_t v = 0; v < kIds; ++v) {
        mixed.push_back((1 - kShare) * pa[t][v] + kShare * pb[t][v]);
        z += std::exp(mixed.back());
      }
      for (double& m : mixed) {
        m -= std::log(z);
        entropy -= std::exp(m) * m;
      }
      EXPECT_NEAR(s.logprobs[t], mixed[static_cast<size_t>(s.ids[t])], 1e-5);
      EXPECT_EQ(s.logprobs[t], s.sampled_logprobs[t]);  // Nothing is cut off.
      EXPECT_NEAR(s.entropy[t], entropy, 1e-5);
    }
  }
}

TEST(Mixture, BatchingAndMemoryChangeNoBit) {
  TinyModel a("llama", {}), b("qwen3", {});
  const RolloutRequest request{
      .prompts = make_prompts({60, 64, 33, 50}), .group_size = 10, .seed = 9};
  RolloutConfig config{.top_k = 20, .max_new_tokens = 100};
  const auto base = sample_mixture({a.lm, b.lm, 0.5}, a.text, config, request);
  config.kv_memory_mb = 1;
  config.max_sequences = 40;
  config.prefill_tokens = 7;
  RolloutStats stats;
  expect_same(sample_mixture({a.lm, b.lm, 0.5}, a.text, config, request, &stats), base, "1 MiB");
  EXPECT_GT(stats.preemptions, 0);
}

TEST(Mixture, RefusesWhatIsNoMixture) {
  TinyModel a, b;
  const RolloutRequest request{.prompts = make_prompts({3})};
  const auto error = [&](double share, const RolloutConfig& config) {
    return error_of([&] { (void)sample_mixture({a.lm, b.lm, share}, a.text, config, request); });
  };
  EXPECT_NE(error(1.5, {}).find("in [0, 1], got 1.5"), std::string::npos);
  EXPECT_NE(error(0.5, {.temperature = 0}).find("temperature must be above 0"), std::string::npos);
}

}  // namespace
}  // namespace temper
