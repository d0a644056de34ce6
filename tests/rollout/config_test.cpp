#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "rollout_test_util.h"

namespace temper {
namespace {

using namespace testing_rollout;

TEST(RolloutConfig, DefaultsAndLimitsAreValid) {
  RolloutConfig().validate();
  RolloutConfig{.temperature = 0,
                .top_k = 1,
                .top_p = 1e-6,
                .min_p = 0.999,
                .repetition_penalty = 0.5,
                .max_new_tokens = 1,
                .stop = {"x"},
                .max_sequences = 1,
                .prefill_tokens = 1,
                .kv_memory_mb = 1}
      .validate();
}

TEST(RolloutConfig, NamesTheKeyThatIsOutOfRange) {
  using Change = std::function<void(RolloutConfig&)>;
  const std::pair<Change, const char*> cases[] = {
      {[](auto& c) { c.temperature = -1; }, "rollout.temperature must be in [0, 100], got -1"},
      {[](auto& c) { c.temperature = NAN; }, "rollout.temperature must be in [0, 100], got nan"},
      {[](auto& c) { c.temperature = 0.001; },
       "rollout.temperature must be 0 (greedy) or at least 0.01, got 0.001"},
      {[](auto& c) { c.top_k = -1; }, "rollout.top_k must be at least 0, got -1"},
      {[](auto& c) { c.top_p = 0; }, "rollout.top_p must be in (0, 1], got 0"},
      {[](auto& c) { c.top_p = 1.5; }, "rollout.top_p must be in (0, 1], got 1.5"},
      {[](auto& c) { c.min_p = 1; }, "rollout.min_p must be in [0, 1), got 1"},
      {[](auto& c) { c.repetition_penalty = 0; },
       "rollout.repetition_penalty must be above 0, got 0"},
      {[](auto& c) { c.max_new_tokens = 0; }, "rollout.max_new_tokens must be at least 1, got 0"},
      {[](auto& c) { c.max_sequences = 0; }, "rollout.max_sequences must be at least 1, got 0"},
      {[](auto& c) { c.prefill_tokens = 0; }, "rollout.prefill_tokens must be at least 1, got 0"},
      {[](auto& c) { c.kv_memory_mb = 0; }, "rollout.kv_memory_mb must be in [1, 2^30], got 0"},
      {[](auto& c) { c.kv_memory_mb = INT64_MAX; },
       "rollout.kv_memory_mb must be in [1, 2^30], got 9223372036854775807"},
      {[](auto& c) {
         c.stop = {"a", ""};
       },
       "rollout.stop must hold texts that are not empty"},
  };
  TinyModel m;
  for (const auto& [change, message] : cases) {
    RolloutConfig config;
    change(config);
    EXPECT_NE(error_of([&] { config.validate(); }).find(message), std::string::npos)
        << message << " | " << error_of([&] { config.validate(); });
    EXPECT_NE(error_of([&] { RolloutEngine(m.lm, m.text, config); }).find(message),
              std::string::npos);
  }
}

TEST(RolloutEngine, RefusesBadRequestsByMessage) {
  TinyModel m;
  const auto error = [&](RolloutConfig config, const RolloutRequest& request) {
    return error_of([&] { (void)RolloutEngine(m.lm, m.text, config).generate(request); });
  };
  EXPECT_NE(error({}, {.prompts = {{1}, {}}}).find("[rollout] prompt 1 is empty"),
            std::string::npos);
  EXPECT_NE(error({}, {.prompts = {{1}}, .group_size = 0}).find("group size must be at least 1"),
            std::string::npos);
  const std::string longer = error({.max_new_tokens = 50}, {.prompts = make_prompts({206, 207})});
  EXPECT_NE(longer.find(
                "[rollout] prompt 1 has 207 tokens; with rollout.max_new_tokens=50 it exceeds the "
                "model's context of 256"),
            std::string::npos)
      << longer;
  EXPECT_NE(
      error({.max_new_tokens = INT64_MAX}, {.prompts = {{1}}}).find("exceeds the model's context"),
      std::string::npos);
  EXPECT_NE(error({}, {.prompts = {{1, 64}}}).find("id 64"), std::string::npos);
  EXPECT_NE(error({}, {.prompts = {{-1}}}).find("id -1"), std::string::npos);
  EXPECT_TRUE(RolloutEngine(m.lm, m.text, {}).generate({}).empty());
}

TEST(RolloutEngine, RefusesAMemoryBoundThatHoldsNoCompletion) {
  // 1 MiB is 128 pages of 32 tokens of 2 layers x 16 columns; 125 + 7 pages are asked for.
  ModelSource source = TinyModel::make_source("llama", {2});
  source.config.max_positions = 8192;
  CausalLM lm(source, WeightDType::kFloat32, Trainable::kNo);
  const ModelText text(source);
  ASSERT_EQ(KvStore::page_bytes(lm.config().layers, lm.config().kv_heads * lm.config().head_dim),
            8192);
  RolloutEngine engine(lm, text, {.max_new_tokens = 200, .kv_memory_mb = 1});
  const std::string error =
      error_of([&] { (void)engine.generate({.prompts = make_prompts({4000})}); });
  EXPECT_NE(error.find("[rollout] rollout.kv_memory_mb=1 is too small: one prompt with one "
                       "completion needs 2 MiB"),
            std::string::npos)
      << error;
}

TEST(RolloutEngine, RefusesWeightsThatAreNotFinite) {
  TinyModel m;
  Parameter& head = m.lm.head();
  std::fill_n(head.data(), head.elements(), NAN);
  for (const double temperature : {0.0, 1.0}) {
    RolloutEngine engine(m.lm, m.text, {.temperature = temperature});
    const std::string error = error_of([&] { (void)engine.generate({.prompts = {{1, 3}}}); });
    EXPECT_NE(error.find("[rollout] the log-probability of a token of sequence 0 is"),
              std::string::npos)
        << error;
  }
}

}  // namespace
}  // namespace temper
