#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "error_of.h"
#include "nn/nn_test_util.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/rollout/engine.h"

namespace temper::testing_rollout {

using testing_nn::golden_folder;
using Ids = std::vector<int32_t>;
using Prompts = std::vector<Ids>;

/// A tokenizer for the 64 ids of the golden models: id i is the character '0' + i, but 2 is the
/// special token <end>.
inline std::string tiny_tokenizer() {
  nlohmann::json vocab;
  for (int i = 0; i < 64; ++i)
    vocab[i == 2 ? "<end>" : std::string(1, static_cast<char>('0' + i))] = i;
  const nlohmann::json file = {
      {"added_tokens",
       {{{"id", 2}, {"content", "<end>"}, {"special", true}, {"normalized", false}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder", {{"type", "Fuse"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  return file.dump();
}

/// A golden model with that tokenizer and these ids that end a text.
struct TinyModel {
  explicit TinyModel(const std::string& family = "llama", const Ids& eos = {2},
                     WeightDType dtype = WeightDType::kFloat32)
      : source(make_source(family, eos)), text(source), lm(source, dtype, Trainable::kNo) {}

  static ModelSource make_source(const std::string& family, const Ids& eos) {
    ModelSource s = open_model((golden_folder() / family).string());
    s.tokenizer.tokenizer_json = tiny_tokenizer();
    s.tokenizer.tokenizer_config_json.clear();
    s.config.eos_token_ids = s.generation.eos_token_ids = eos;
    return s;
  }

  ModelSource source;
  ModelText text;
  CausalLM lm;
};

/// Prompts of these lengths, their ids made by arithmetic.
inline Prompts make_prompts(const std::vector<int>& lengths) {
  Prompts out;
  for (size_t p = 0; p < lengths.size(); ++p) {
    out.emplace_back();
    for (int i = 0; i < lengths[p]; ++i) {
      out.back().push_back(
          static_cast<int32_t>((5 + 17 * p + 7 * static_cast<size_t>(i * i)) % 64));
    }
  }
  return out;
}

inline void expect_same(const std::vector<Sample>& got, const std::vector<Sample>& expected,
                        const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t s = 0; s < got.size(); ++s) {
    const Sample& a = got[s];
    const Sample& b = expected[s];
    const std::string at = what + ", sequence " + std::to_string(s);
    ASSERT_EQ(a.prompt, b.prompt) << at;
    ASSERT_EQ(a.ids, b.ids) << at;
    ASSERT_EQ(a.logprobs, b.logprobs) << at;
    ASSERT_EQ(a.sampled_logprobs, b.sampled_logprobs) << at;
    ASSERT_EQ(a.log_kept_mass, b.log_kept_mass) << at;
    ASSERT_EQ(a.entropy, b.entropy) << at;
    ASSERT_EQ(a.finish, b.finish) << at;
    ASSERT_EQ(a.text, b.text) << at;
  }
}

}  // namespace temper::testing_rollout
