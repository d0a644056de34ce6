#include "temper/rollout/engine.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "rollout_test_util.h"

namespace temper {
namespace {

using namespace testing_rollout;

int64_t tokens(const std::vector<Sample>& samples) {
  int64_t total = 0;
  for (const auto& s : samples) total += std::ssize(s.ids);
  return total;
}

/// The text of one id: the special token <end> has none.
std::string spelled(int32_t id) {
  return id == 2 ? "" : std::string(1, static_cast<char>('0' + id));
}

TEST(RolloutEngine, BatchingPrefillAndThreadsChangeNoBit) {
  TinyModel m("qwen3");
  const RolloutRequest request{
      .prompts = make_prompts({3, 33, 1, 70, 32}), .group_size = 4, .seed = 3, .step = 2};
  RolloutConfig config{
      .temperature = 0.9, .top_p = 0.9, .repetition_penalty = 1.1, .max_new_tokens = 40};
  const auto base = RolloutEngine(m.lm, m.text, config).generate(request);
  for (const int64_t sequences : {1, 3, 64}) {
    for (const int64_t prefill : {1, 5, 512}) {
      config.max_sequences = sequences;
      config.prefill_tokens = prefill;
      const auto got = RolloutEngine(m.lm, m.text, config).generate(request);
      ASSERT_NO_FATAL_FAILURE(expect_same(
          got, base, std::to_string(sequences) + " sequences, prefill " + std::to_string(prefill)));
    }
  }
  const int before = num_threads();
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    const auto got = RolloutEngine(m.lm, m.text, config).generate(request);
    set_num_threads(before);
    ASSERT_NO_FATAL_FAILURE(expect_same(got, base, std::to_string(threads) + " threads"));
  }
}

TEST(RolloutEngine, PreemptionChangesNoBit) {
  // A page is 8 KiB: 1 MiB holds 128 of the 8 * 2 + 80 * 4 pages that all would need together.
  TinyModel m("llama", {});
  const RolloutRequest request{
      .prompts = make_prompts({60, 64, 33, 50, 61, 40, 63, 60}), .group_size = 10, .seed = 9};
  RolloutConfig config{.repetition_penalty = 1.05, .max_new_tokens = 100};
  RolloutEngine roomy(m.lm, m.text, config);
  const auto base = roomy.generate(request);
  EXPECT_EQ(roomy.stats().preemptions, 0);
  EXPECT_EQ(roomy.stats().recomputed_tokens, 0);
  config.kv_memory_mb = 1;
  config.max_sequences = 80;
  RolloutEngine tight(m.lm, m.text, config);
  expect_same(tight.generate(request), base, "1 MiB");
  EXPECT_GT(tight.stats().preemptions, 0);
  EXPECT_GT(tight.stats().recomputed_tokens, 0);
  EXPECT_EQ(tight.stats().completion_tokens, roomy.stats().completion_tokens);
}

TEST(RolloutEngine, LaterPromptsDoNotChangeEarlierOnes) {
  TinyModel m("mistral");
  RolloutEngine engine(m.lm, m.text, {.max_new_tokens = 30});
  RolloutRequest request{.prompts = make_prompts({9, 40, 5, 17}), .group_size = 3, .seed = 1};
  const auto all = engine.generate(request);
  request.prompts.resize(2);
  expect_same(engine.generate(request), {all.begin(), all.begin() + 6}, "two of four prompts");
}

TEST(RolloutEngine, SeedAndStepDecideTheSamples) {
  TinyModel m;
  RolloutEngine engine(m.lm, m.text, {.max_new_tokens = 20});
  RolloutRequest request{.prompts = make_prompts({6, 6}), .group_size = 4, .seed = 1, .step = 1};
  const auto base = engine.generate(request);
  expect_same(engine.generate(request), base, "same key");
  EXPECT_NE(base[0].ids, base[1].ids) << "a group's completions are drawn apart";
  const auto ids = [](const std::vector<Sample>& samples) {
    std::vector<Ids> out;
    for (const auto& s : samples) out.push_back(s.ids);
    return out;
  };
  request.seed = 2;
  const auto other_seed = ids(engine.generate(request));
  request.seed = 1;
  request.step = 2;
  const auto other_step = ids(engine.generate(request));
  EXPECT_NE(other_seed, ids(base));
  EXPECT_NE(other_step, ids(base));
  EXPECT_NE(other_step, other_seed);
}

TEST(RolloutEngine, CountsWhatItDid) {
  TinyModel m;
  RolloutEngine engine(m.lm, m.text, {.max_new_tokens = 20});
  const auto samples = engine.generate({.prompts = make_prompts({6, 40, 1}), .group_size = 8});
  EXPECT_EQ(samples.size(), 24u);
  for (size_t s = 0; s < samples.size(); ++s)
    EXPECT_EQ(samples[s].prompt, static_cast<int32_t>(s / 8));
  EXPECT_EQ(engine.stats().prompt_tokens, 47) << "a prompt is computed once for its group";
  EXPECT_EQ(engine.stats().completion_tokens, tokens(samples));
  EXPECT_EQ(engine.stats().preemptions, 0);
  EXPECT_EQ(engine.stats().recomputed_tokens, 0);
  RolloutEngine one(m.lm, m.text, {.max_new_tokens = 1});
  (void)one.generate({.prompts = make_prompts({6})});
  EXPECT_EQ(one.stats().forwards, 1);
}

TEST(RolloutEngine, EndsAtAnyEosIdOrAtItsLength) {
  TinyModel m("llama", {40, 2, 7});
  RolloutEngine engine(m.lm, m.text, {.temperature = 2, .max_new_tokens = 20});
  const auto samples = engine.generate({.prompts = make_prompts({6, 12}), .group_size = 30});
  const auto& eos = m.text.eos_ids();
  ASSERT_EQ(eos, (Ids{2, 7, 40}));
  std::vector<int32_t> ends;
  int truncated = 0;
  for (const Sample& s : samples) {
    const auto first = std::find_first_of(s.ids.begin(), s.ids.end(), eos.begin(), eos.end());
    ASSERT_EQ(s.logprobs.size(), s.ids.size());
    if (s.finish == Finish::kEos) {
      ASSERT_EQ(first, s.ids.end() - 1);
      ends.push_back(*first);
    } else {
      ASSERT_EQ(s.finish, Finish::kLength);
      ASSERT_EQ(first, s.ids.end());
      ASSERT_EQ(s.ids.size(), 20u);
      ++truncated;
    }
    std::string text;
    for (const int32_t id : s.ids) text += spelled(id);
    ASSERT_EQ(s.text, text);
  }
  EXPECT_GT(truncated, 0);
  for (const int32_t id : eos) EXPECT_NE(std::find(ends.begin(), ends.end(), id), ends.end()) << id;
}

TEST(RolloutEngine, StopsAtATextThatSpansTokens) {
  TinyModel m("llama", {});
  const RolloutRequest request{.prompts = make_prompts({6, 12}), .group_size = 16, .seed = 4};
  RolloutConfig config{.max_new_tokens = 40};
  const auto whole = RolloutEngine(m.lm, m.text, config).generate(request);
  config.stop = {whole[3].text.substr(20, 3), whole[5].text.substr(8, 2), "not met"};
  const auto stopped = RolloutEngine(m.lm, m.text, config).generate(request);
  for (size_t s = 0; s < whole.size(); ++s) {
    Sample expected;  // Token by token, until a stop text is complete.
    for (const int32_t id : whole[s].ids) {
      expected.ids.push_back(id);
      expected.text += spelled(id);
      const auto met = [&](const std::string& stop) { return expected.text.ends_with(stop); };
      if (id == 2 || std::none_of(config.stop.begin(), config.stop.end(), met)) continue;
      expected.finish = Finish::kStop;
      break;
    }
    EXPECT_EQ(stopped[s].finish, expected.finish) << s;
    EXPECT_EQ(stopped[s].ids, expected.ids) << s;
    EXPECT_EQ(stopped[s].text, expected.text) << s;
    EXPECT_EQ(stopped[s].entropy.size(), expected.ids.size()) << s;
  }
  EXPECT_EQ(stopped[3].finish, Finish::kStop);
  EXPECT_EQ(stopped[5].finish, Finish::kStop);
}

TEST(RolloutEngine, ReportsEveryTokenInOrder) {
  TinyModel m;
  const RolloutRequest request{.prompts = make_prompts({6, 12}), .group_size = 3};
  for (const int64_t sequences : {1, 64}) {
    RolloutEngine engine(m.lm, m.text, {.max_new_tokens = 15, .max_sequences = sequences});
    std::vector<Ids> so_far(6);
    std::vector<int64_t> order;
    const auto samples = engine.generate(request, [&](int64_t s, const Sample& sample) {
      auto& ids = so_far[static_cast<size_t>(s)];
      ids.push_back(sample.ids.back());
      EXPECT_EQ(sample.ids, ids);
      EXPECT_EQ(sample.prompt, s / 3);
      EXPECT_EQ(sample.logprobs.size(), ids.size());
      order.push_back(s);
    });
    for (size_t s = 0; s < 6; ++s) EXPECT_EQ(so_far[s], samples[s].ids);
    EXPECT_EQ(std::ssize(order), tokens(samples));
    EXPECT_EQ(std::is_sorted(order.begin(), order.end()), sequences == 1);
  }
}

TEST(RolloutEngine, DrawsOnlyIdsThatTheTokenizerHas) {
  // The model's vocabulary is padded: the tokenizer knows ids below 61 alone.
  ModelSource source = TinyModel::make_source("llama", {});
  auto file = nlohmann::json::parse(source.tokenizer.tokenizer_json);
  for (const int i : {61, 62, 63})
    file["model"]["vocab"].erase(std::string(1, static_cast<char>('0' + i)));
  source.tokenizer.tokenizer_json = file.dump();
  const ModelText text(source);
  ASSERT_EQ(text.tokenizer().vocab_size(), 61);
  TinyModel m;
  RolloutEngine engine(m.lm, text, {.temperature = 50, .max_new_tokens = 100});
  int32_t largest = 0;
  for (const auto& s : engine.generate({.prompts = make_prompts({6}), .group_size = 10})) {
    largest = std::max(largest, *std::max_element(s.ids.begin(), s.ids.end()));
    EXPECT_LT(*std::max_element(s.log_kept_mass.begin(), s.log_kept_mass.end()), 0);
  }
  EXPECT_EQ(largest, 60);
}

}  // namespace
}  // namespace temper
