#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "formats/gguf_builder.h"
#include "formats/temp_folder.h"
#include "temper/core/error.h"
#include "temper/formats/gguf.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kGolden = fs::path(TEMPER_SOURCE_DIR) / "tests/golden/formats";
const fs::path kEmbedded = fs::path(TEMPER_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";

ModelSource open(const GgufBuilder& builder) {
  const auto owner = std::make_shared<std::string>(builder.bytes());
  return open_gguf_model(GgufFile::parse(owner, std::as_bytes(std::span(*owner)), "test.gguf"));
}

std::vector<float> read(const WeightSource& weights, std::string_view name) {
  int64_t numel = 1;
  for (const int64_t size : weights.shape(name)) numel *= size;
  std::vector<float> out(static_cast<size_t>(numel));
  weights.read_float(name, out);
  return out;
}

// Golden: the gguf package wrote and quantised this model, rows permuted as converters do it.
TEST(GgufModel, GivesHuggingFaceNamesLayoutAndBits) {
  const ModelSource model = open_model((kGolden / "tiny_llama.gguf").string());
  const auto expected = SafetensorsFile::open(kGolden / "tiny_llama.safetensors");
  EXPECT_EQ(model.weights->names(), expected.names());
  for (const std::string& name : expected.names()) {
    ASSERT_TRUE(model.weights->has(name));
    EXPECT_EQ(model.weights->shape(name), expected.at(name).shape) << name;
    std::vector<float> values(static_cast<size_t>(expected.at(name).numel()));
    copy_to_float(expected.at(name), values);
    EXPECT_EQ(read(*model.weights, name), values) << name;
  }
  EXPECT_FALSE(model.weights->has("lm_head.weight"));
  std::vector<float> small(3);
  EXPECT_ERROR(model.weights->read_float("model.norm.weight", small), "got a buffer of 3");
  EXPECT_ERROR(model.weights->shape("absent"), "holds no tensor for \"absent\"");
}

TEST(GgufModel, ConfigOfTheGoldenModel) {
  const ModelSource model = open_model((kGolden / "tiny_llama.gguf").string());
  const ModelConfig& c = model.config;
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.hidden_size, 32);
  EXPECT_EQ(c.intermediate_size, 64);
  EXPECT_EQ(c.layers, 1);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.vocab_size, 262);
  EXPECT_EQ(c.max_positions, 64);
  EXPECT_EQ(c.rms_eps, 1e-5);  // stored as a 32-bit float
  EXPECT_EQ(c.rope_theta, 1e4);
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_TRUE(c.o_bias);
  EXPECT_FALSE(c.mlp_bias);
  EXPECT_FALSE(c.qk_norm);
  EXPECT_TRUE(c.tied);
  EXPECT_EQ(model.generation.eos_token_ids, std::vector<int32_t>{0});
  EXPECT_EQ(model.generation.bos_token_id, 1);
  EXPECT_EQ(model.chat_template, "{{ messages[0].content }}");
  EXPECT_TRUE(model.config_json.empty());
}

TEST(GgufModel, ComposesTokenizerFiles) {
  const ModelSource model = open_model((kGolden / "tiny_llama.gguf").string());
  const Json json = Json::parse(model.tokenizer.tokenizer_json);
  EXPECT_EQ(json["model"]["type"], "BPE");
  EXPECT_EQ(json["model"]["byte_fallback"], false);
  EXPECT_EQ(json["model"]["ignore_merges"], false);
  EXPECT_EQ(json["model"]["vocab"].size(), 261u);  // without the padding row
  EXPECT_EQ(json["model"]["vocab"]["he"], 258);
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["h","e"],["Ġ","t"],["Ġt","he"]])"));
  ASSERT_EQ(json["added_tokens"].size(), 2u);
  EXPECT_EQ(json["added_tokens"][0]["content"], "<|end|>");
  EXPECT_EQ(json["added_tokens"][0]["special"], true);
  EXPECT_EQ(json["added_tokens"][1]["special"], false);
  EXPECT_EQ(json["pre_tokenizer"]["pretokenizers"][0],
            Json::parse(R"({"type":"Digits","individual_digits":true})"));
  EXPECT_EQ(json["pre_tokenizer"]["pretokenizers"][1]["use_regex"], true);
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<|user|>");
  EXPECT_EQ(json["decoder"]["type"], "ByteLevel");
  const Json config = Json::parse(model.tokenizer.tokenizer_config_json);
  EXPECT_EQ(config["bos_token"], "<|user|>");
  EXPECT_EQ(config["eos_token"], "<|end|>");
  EXPECT_FALSE(config.contains("pad_token"));
  EXPECT_EQ(Json::parse(model.tokenizer.generation_config_json),
            Json::parse(R"({"bos_token_id":1,"eos_token_id":0})"));
}

Json pre_tokenizer_of(const std::string& pre) {
  GgufBuilder b = small_llama();
  return Json::parse(open(b.str("tokenizer.ggml.pre", pre)).tokenizer.tokenizer_json);
}

TEST(GgufModel, PreTokenizersByName) {
  const Json llama = pre_tokenizer_of("llama-bpe");
  EXPECT_EQ(llama["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"],
            R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+)"
            R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  EXPECT_EQ(llama["pre_tokenizer"]["pretokenizers"][1]["use_regex"], false);
  EXPECT_EQ(llama["model"]["ignore_merges"], true);
  EXPECT_TRUE(llama["normalizer"].is_null());
  const Json qwen = pre_tokenizer_of("qwen2");
  EXPECT_EQ(qwen["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"],
            R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+)"
            R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  EXPECT_EQ(qwen["normalizer"]["type"], "NFC");
  EXPECT_EQ(qwen["model"]["ignore_merges"], false);
  EXPECT_EQ(pre_tokenizer_of("gpt-2")["pre_tokenizer"]["type"], "ByteLevel");
  EXPECT_EQ(pre_tokenizer_of("default")["pre_tokenizer"]["use_regex"], true);
  EXPECT_ERROR(pre_tokenizer_of("tekken"), "the pre-tokenizer \"tekken\"");
}

// Golden: the merges that transformers derives from the same pieces and scores.
TEST(GgufModel, SentencepieceMergesComeFromScores) {
  const ModelSource model = open_model((kGolden / "tiny_sentencepiece.gguf").string());
  const Json json = Json::parse(model.tokenizer.tokenizer_json);
  const Json golden = Json::parse(read_text(kGolden / "tiny_sentencepiece.json"));
  EXPECT_GT(golden["merges"].size(), 10u);
  EXPECT_EQ(json["model"]["merges"], golden["merges"]);
  EXPECT_EQ(json["model"]["byte_fallback"], true);
  EXPECT_EQ(json["model"]["unk_token"], "<unk>");
  EXPECT_EQ(json["normalizer"]["normalizers"][0]["prepend"], "\u2581");
  EXPECT_EQ(json["decoder"]["decoders"].size(), 4u);
  EXPECT_EQ(json["added_tokens"].size(), 3u);
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_TRUE(json["pre_tokenizer"].is_null());
}

TEST(GgufModel, RefusesWhatItDoesNotRun) {
  EXPECT_ERROR(open(GgufBuilder().str("general.architecture", "gemma2")),
               "the architecture \"gemma2\" is not supported");
  EXPECT_ERROR(open(GgufBuilder()), "general.architecture is missing");
  EXPECT_ERROR(open(small_llama().str("llama.rope.scaling.type", "yarn")), "scaling \"yarn\"");
  EXPECT_ERROR(open(small_llama().u32("llama.expert_count", 8)), "mixtures of experts");
  EXPECT_ERROR(open(small_llama().u32("llama.rope.dimension_count", 2)), "rope over 2");
  EXPECT_ERROR(open(small_llama().filled("blk.0.attn_sinks.weight", {2}, 0.0f)), "has no place");
  EXPECT_ERROR(open(small_llama().filled("blk.1.attn_v.weight", {8, 4}, 0.0f)), "has no place");
  EXPECT_ERROR(open(small_llama().filled("blk.-1.attn_v.weight", {8, 4}, 0.0f)), "has no place");
  EXPECT_ERROR(open(small_llama()
                        .filled("blk.00.attn_v.weight", {8, 4}, 0.0f)
                        .filled("blk.0.attn_v.weight", {8, 4}, 0.0f)),
               "two tensors stand for");
  EXPECT_ERROR(open(small_llama().filled("blk.0.attn_q.weight", {8, 6}, 0.0f)), "has 6 rows");
  EXPECT_ERROR(open(small_llama().u32("tokenizer.ggml.bos_token_id", 4)), "lies outside");
  EXPECT_ERROR(open(small_llama().numbers<float>("tokenizer.ggml.scores", 6, {1.0f})), "1 scores");
  EXPECT_ERROR(open(small_llama().u32("llama.attention.key_length", 3)), "even head dimension");
}

TEST(GgufModel, RefusesBrokenVocabularies) {
  const auto with = [](const std::vector<std::string>& tokens, const std::string& merge) {
    GgufBuilder b;
    b.str("general.architecture", "llama").u32("llama.block_count", 1);
    b.u32("llama.context_length", 16).u32("llama.embedding_length", 8);
    b.u32("llama.feed_forward_length", 8).u32("llama.attention.head_count", 2);
    b.str("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", tokens);
    b.strings("tokenizer.ggml.merges", {merge}).filled("token_embd.weight", {8, 3}, 1.0f);
    return b;
  };
  EXPECT_EQ(open(with({"a", "b", "ab"}, "a b")).config.kv_heads, 2);
  EXPECT_ERROR(open(with({"a", "a"}, "a a")), "the token \"a\" occurs twice");
  EXPECT_ERROR(open(with({"a", "b"}, "a c")), "names no two tokens");
  EXPECT_ERROR(open(with({"a", "b"}, "ab")), "is not two tokens");
  EXPECT_ERROR(open(with({"a", "b", "c", "d"}, "a b")), "4 tokens, but the embedding has 3 rows");
  EXPECT_ERROR(open(with({"a", "b", "\xff"}, "a b")), "not valid UTF-8");
}

TEST(GgufModel, SlidingWindowMakesItMistral) {
  const ModelConfig c = open(small_llama().u32("llama.attention.sliding_window", 12)).config;
  EXPECT_EQ(c.family, "mistral");
  EXPECT_EQ(c.sliding_window, 12);
  EXPECT_EQ(c.sliding_layers, std::vector<bool>{true});
}

TEST(GgufModel, EndOfTurnJoinsTheEnds) {
  const ModelSource m = open(small_llama()
                                 .u32("tokenizer.ggml.eot_token_id", 2)
                                 .u32("tokenizer.ggml.eom_token_id", 0)
                                 .u32("tokenizer.ggml.padding_token_id", UINT32_MAX));
  EXPECT_EQ(m.config.eos_token_ids, (std::vector<int32_t>{0, 2}));
  EXPECT_FALSE(m.config.pad_token_id.has_value());
}

// The factors are worked out here by the formula of the model card: f 8, l 1, h 4, L 8192.
TEST(GgufModel, RopeFactorsAreLlama3Scaling) {
  const auto with_factor = [](double factor, float noise) {
    GgufBuilder b = small_llama();
    b.f32("llama.rope.freq_base", 500000.0f).u32("llama.attention.key_length", 64);
    b.tensor("rope_freqs.weight", {32}, 0, (b.data.size() + 31) / 32 * 32);
    b.data.resize((b.data.size() + 31) / 32 * 32);
    for (int i = 0; i < 32; ++i) {
      const double inv = std::pow(500000.0, -2.0 * i / 64);
      const double wave = 2 * std::numbers::pi / inv;
      double f = 1;
      if (wave > 8192) {
        f = factor;
      } else if (wave >= 8192.0 / 4) {
        const double smooth = (8192 / wave - 1) / 3;
        f = 1 / ((1 - smooth) / factor + smooth);
      }
      b.data += GgufBuilder::raw(static_cast<float>(f) + (i == 20 ? noise : 0.0f));
    }
    return b;
  };
  const auto scaling = open(with_factor(8, 0)).config.rope_scaling;
  ASSERT_TRUE(scaling.has_value());
  EXPECT_EQ(scaling->type, "llama3");
  EXPECT_EQ(scaling->factor, 8);
  EXPECT_EQ(scaling->low_freq_factor, 1);
  EXPECT_EQ(scaling->high_freq_factor, 4);
  EXPECT_EQ(scaling->original_max_positions, 8192);
  EXPECT_EQ(open(with_factor(32, 0)).config.rope_scaling->factor, 32);
  EXPECT_FALSE(open(with_factor(1, 0)).config.rope_scaling.has_value());
  EXPECT_ERROR(open(with_factor(8, 0.1f)), "is not Llama 3's scaling");
}

TEST(GgufModel, TheDefaultModel) {
  if (!fs::exists(kEmbedded)) GTEST_SKIP() << "no default model: run scripts/setup";
  const GgufFile file = GgufFile::open(kEmbedded);
  EXPECT_EQ(file.tensors().size(), 272u);
  EXPECT_EQ(file.values().size(), 33u);
  std::map<GgmlType, int> types;
  for (const auto& [name, tensor] : file.tensors()) ++types[tensor.type];
  EXPECT_EQ(types, (std::map<GgmlType, int>{
                       {GgmlType::kF32, 61}, {GgmlType::kQ4_1, 210}, {GgmlType::kQ8_0, 1}}));

  const ModelSource model = open_model(kEmbedded.string());
  const ModelConfig& c = model.config;
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.hidden_size, 576);
  EXPECT_EQ(c.intermediate_size, 1536);
  EXPECT_EQ(c.layers, 30);
  EXPECT_EQ(c.heads, 9);
  EXPECT_EQ(c.kv_heads, 3);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.vocab_size, 49152);
  EXPECT_EQ(c.max_positions, 8192);
  EXPECT_EQ(c.rms_eps, 1e-5);
  EXPECT_EQ(c.rope_theta, 1e5);
  EXPECT_TRUE(c.tied);
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_FALSE(c.sliding_window.has_value() || c.rope_scaling.has_value());
  EXPECT_EQ(c.eos_token_ids, std::vector<int32_t>{2});
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.pad_token_id, 2);
  EXPECT_EQ(model.weights->names().size(), 272u);
  EXPECT_EQ(model.weights->shape("model.layers.29.self_attn.k_proj.weight"),
            (std::vector<int64_t>{192, 576}));

  const Json json = Json::parse(model.tokenizer.tokenizer_json);
  EXPECT_EQ(json["model"]["vocab"].size(), 49152u);
  EXPECT_EQ(json["model"]["merges"].size(), 48900u);
  EXPECT_EQ(json["added_tokens"].size(), 17u);
  EXPECT_TRUE(json["post_processor"].is_null());
  for (const float v : read(*model.weights, "model.layers.3.self_attn.q_proj.weight")) {
    ASSERT_TRUE(std::isfinite(v));
  }
}

}  // namespace
}  // namespace temper
