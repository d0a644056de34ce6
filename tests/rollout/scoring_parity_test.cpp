// The sampler's numbers are those of scoring, bit for bit, and greedy decoding is transformers'.
#include <gtest/gtest.h>

#include <algorithm>

#include "rollout_test_util.h"

namespace temper {
namespace {

using namespace testing_rollout;
using testing_nn::floats;
using testing_nn::packed;

/// Prompts as roots, completions as their children, and the tokens of the completions to score.
std::pair<TokenBatch, ScoreRequest> scoring_batch(const Prompts& prompts,
                                                  const std::vector<Sample>& samples) {
  TokenBatch b = packed(prompts);
  ScoreRequest request;
  for (const Sample& s : samples) {
    const Segment prompt = b.segments[static_cast<size_t>(s.prompt)];
    const int32_t start = static_cast<int32_t>(b.ids.size());
    b.segments.push_back({s.prompt, start, static_cast<int32_t>(s.ids.size()), -1});
    for (size_t i = 0; i < s.ids.size(); ++i) {
      request.rows.push_back(i == 0 ? prompt.start + prompt.length - 1
                                    : start + static_cast<int32_t>(i) - 1);
      request.targets.push_back(s.ids[i]);
      b.ids.push_back(s.ids[i]);
      b.positions.push_back(prompt.length + static_cast<int32_t>(i));
    }
  }
  return {std::move(b), std::move(request)};
}

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, SampledLogprobsHaveTheBitsOfScoring) {
  const Prompts prompts = make_prompts({7, 33, 1, 64});
  const RolloutConfig configs[] = {
      {.temperature = 1, .max_new_tokens = 40},
      {.temperature = 0.7,
       .top_k = 20,
       .top_p = 0.9,
       .repetition_penalty = 1.2,
       .max_new_tokens = 40,
       .max_sequences = 5,
       .prefill_tokens = 9},
  };
  for (const WeightDType dtype : {WeightDType::kFloat32, WeightDType::kBfloat16,
                                  WeightDType::kBfloat16Dot, WeightDType::kFloat16,
                                  WeightDType::kInt8}) {
    TinyModel m(GetParam(), {2}, dtype);
    for (const RolloutConfig& config : configs) {
      RolloutEngine engine(m.lm, m.text, config);
      const auto samples = engine.generate({.prompts = prompts, .group_size = 3, .seed = 5});
      std::vector<float> logprobs, entropy;
      for (const Sample& s : samples) {
        logprobs.insert(logprobs.end(), s.logprobs.begin(), s.logprobs.end());
        entropy.insert(entropy.end(), s.entropy.begin(), s.entropy.end());
      }
      const auto [batch, request] = scoring_batch(prompts, samples);
      const TokenScores scores = score(m.lm, batch, request, config.temperature);
      EXPECT_EQ(floats(scores.logprobs), logprobs);
      EXPECT_EQ(floats(scores.entropy), entropy);
      // The first text once more, alone and uncut.
      Ids text = prompts[0];
      text.insert(text.end(), samples[0].ids.begin(), samples[0].ids.end());
      ScoreRequest alone;
      for (size_t i = prompts[0].size(); i < text.size(); ++i) {
        alone.rows.push_back(static_cast<int32_t>(i) - 1);
        alone.targets.push_back(text[i]);
      }
      EXPECT_EQ(floats(score(m.lm, packed({text}), alone, config.temperature).logprobs),
                samples[0].logprobs);
    }
  }
}

TEST_P(Families, GreedyIsTheArgmaxStepByStepAndThatOfTransformers) {
  TinyModel m(GetParam(), {});
  const auto golden = SafetensorsFile::open(golden_folder() / GetParam() / "golden.safetensors");
  const Ids prompt = testing_nn::ids(golden, "tree.prompt");
  const Ids expected = testing_nn::ids(golden, "greedy.ids");
  RolloutEngine engine(m.lm, m.text, {.temperature = 0, .max_new_tokens = std::ssize(expected)});
  const auto samples = engine.generate({.prompts = {prompt}});
  EXPECT_EQ(samples[0].ids, expected);
  EXPECT_EQ(samples[0].finish, Finish::kLength);
  Ids text = prompt;
  for (size_t i = 0; i < samples[0].ids.size(); ++i) {
    const auto z = testing_nn::logits(m.lm, m.lm.forward(packed({text})));
    const auto last = z.end() - m.lm.config().vocab_size;
    ASSERT_EQ(samples[0].ids[i], std::max_element(last, z.end()) - last) << i;
    EXPECT_EQ(samples[0].sampled_logprobs[i], 0);
    EXPECT_EQ(samples[0].log_kept_mass[i], samples[0].logprobs[i]);
    text.push_back(samples[0].ids[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Families,
                         testing::Values("llama", "llama_tied", "llama3", "mistral", "qwen2",
                                         "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

TEST(SmolLM2, GreedyIsThatOfTransformers) {
  if (!std::filesystem::exists(testing_nn::default_model())) {
    GTEST_SKIP() << "run scripts/setup for the default model";
  }
  const auto golden = SafetensorsFile::open(golden_folder() / "smollm2.safetensors");
  const PolicyModel model = PolicyModel::load(testing_nn::default_model().string(),
                                              WeightDType::kFloat32, Trainable::kNo);
  RolloutEngine engine(model.lm(), model.text(), {.temperature = 0, .max_new_tokens = 32});
  const char* names[] = {"greedy", "greedy_plain"};
  RolloutRequest request;
  for (const std::string name : names)
    request.prompts.push_back(testing_nn::ids(golden, name + ".prompt"));
  const auto samples = engine.generate(request);
  const auto& eos = model.text().eos_ids();
  for (size_t i = 0; i < 2; ++i) {
    Ids expected = testing_nn::ids(golden, std::string(names[i]) + ".ids");
    // The golden texts run on past their end.
    const auto end = std::find_first_of(expected.begin(), expected.end(), eos.begin(), eos.end());
    EXPECT_EQ(samples[i].finish, end == expected.end() ? Finish::kLength : Finish::kEos);
    if (end != expected.end()) expected.erase(end + 1, expected.end());
    EXPECT_EQ(samples[i].ids, expected) << names[i];
    EXPECT_FALSE(samples[i].text.empty());
  }
}

}  // namespace
}  // namespace temper
