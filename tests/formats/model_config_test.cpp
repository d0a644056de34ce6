#include "temper/formats/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "formats/temp_folder.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

ModelConfig parse(const Json& json) { return parse_model_config(json, "config.json"); }

Json llama32_v4() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    "max_position_embeddings": 131072, "hidden_act": "silu", "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0, "attention_bias": false, "mlp_bias": false,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
    "tie_word_embeddings": true, "use_cache": true})");
}

Json with(Json json, std::string_view key, Json value) {
  json[std::string(key)] = std::move(value);
  return json;
}

Json without(Json json, std::string_view key) {
  json.erase(std::string(key));
  return json;
}

void expect_llama32(const ModelConfig& c) {
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.hidden_size, 2048);
  EXPECT_EQ(c.intermediate_size, 8192);
  EXPECT_EQ(c.layers, 16);
  EXPECT_EQ(c.heads, 32);
  EXPECT_EQ(c.kv_heads, 8);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.vocab_size, 128256);
  EXPECT_EQ(c.max_positions, 131072);
  EXPECT_EQ(c.rms_eps, 1e-5);
  EXPECT_EQ(c.rope_theta, 500000.0);
  EXPECT_TRUE(c.tied);
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_FALSE(c.sliding_window.has_value());
  ASSERT_TRUE(c.rope_scaling.has_value());
  EXPECT_EQ(c.rope_scaling->type, "llama3");
  EXPECT_EQ(c.rope_scaling->factor, 32.0);
  EXPECT_EQ(c.rope_scaling->low_freq_factor, 1.0);
  EXPECT_EQ(c.rope_scaling->high_freq_factor, 4.0);
  EXPECT_EQ(c.rope_scaling->original_max_positions, 8192);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{128001, 128008, 128009}));
  EXPECT_EQ(c.bos_token_id, 128000);
  EXPECT_FALSE(c.pad_token_id.has_value());
}

TEST(ModelConfig, Llama32InBothSpellings) {
  expect_llama32(parse(llama32_v4()));
  Json v5 = without(without(without(llama32_v4(), "rope_theta"), "rope_scaling"), "torch_dtype");
  v5["dtype"] = "bfloat16";
  v5["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 500000.0},
                           {"factor", 32.0},          {"low_freq_factor", 1.0},
                           {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  v5["pad_token_id"] = nullptr;
  expect_llama32(parse(v5));
  // Very old files say "type"; the length may be left to max_position_embeddings.
  Json old = llama32_v4();
  old["rope_scaling"]["type"] = "llama3";
  old["rope_scaling"].erase("rope_type");
  expect_llama32(parse(old));
  old["rope_scaling"].erase("original_max_position_embeddings");
  EXPECT_EQ(parse(old).rope_scaling->original_max_positions, 131072);
}

Json mistral() {
  return Json::parse(R"({
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 32000, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2})");
}

TEST(ModelConfig, MistralsWindowIsThereUnlessNull) {
  EXPECT_EQ(parse(mistral()).sliding_window, 4096);
  EXPECT_EQ(parse(mistral()).sliding_layers, (std::vector<bool>{true, true}));
  EXPECT_EQ(parse(with(mistral(), "sliding_window", 1024)).sliding_window, 1024);
  const ModelConfig none = parse(with(mistral(), "sliding_window", nullptr));
  EXPECT_FALSE(none.sliding_window.has_value());
  EXPECT_TRUE(none.sliding_layers.empty());
  EXPECT_EQ(parse(without(mistral(), "num_key_value_heads")).kv_heads, 8);
  EXPECT_EQ(parse(with(mistral(), "num_key_value_heads", nullptr)).kv_heads, 32);
  EXPECT_EQ(parse(mistral()).head_dim, 128);
  EXPECT_EQ(parse(with(mistral(), "head_dim", 160)).head_dim, 160);
}

Json qwen25() {
  return Json::parse(R"({
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": false,
    "max_window_layers": 21, "tie_word_embeddings": true, "hidden_act": "silu",
    "bos_token_id": 151643, "eos_token_id": 151645})");
}

TEST(ModelConfig, Qwen25) {
  const ModelConfig c = parse(qwen25());
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_FALSE(c.o_bias);
  EXPECT_TRUE(c.tied);
  EXPECT_FALSE(c.qk_norm);
  EXPECT_FALSE(c.sliding_window.has_value());
  EXPECT_EQ(c.eos_token_ids, std::vector<int32_t>{151645});

  const ModelConfig slides = parse(with(qwen25(), "use_sliding_window", true));
  EXPECT_EQ(slides.sliding_window, 32768);
  std::vector<bool> expected(24, false);
  expected[21] = expected[22] = expected[23] = true;
  EXPECT_EQ(slides.sliding_layers, expected);

  Json listed = with(qwen25(), "use_sliding_window", true);
  listed["num_hidden_layers"] = 2;
  EXPECT_FALSE(parse(listed).sliding_window.has_value());  // no layer reaches max_window_layers
  listed["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(parse(listed).sliding_layers, (std::vector<bool>{true, false}));
  listed["layer_types"] = {"sliding_attention", "chunked_attention"};
  EXPECT_ERROR(parse(listed), "got chunked_attention");
  listed["layer_types"] = {"full_attention"};
  EXPECT_ERROR(parse(listed), "each of 2 layers");
}

Json qwen3() {
  return Json::parse(R"({
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000, "head_dim": 128, "attention_bias": false, "use_sliding_window": false,
    "sliding_window": null, "tie_word_embeddings": true, "rope_scaling": null,
    "eos_token_id": 151645, "bos_token_id": 151643})");
}

TEST(ModelConfig, Qwen3) {
  const ModelConfig c = parse(qwen3());
  EXPECT_EQ(c.head_dim, 128);  // 16 heads of 128 are wider than the hidden size
  EXPECT_EQ(parse(without(qwen3(), "head_dim")).head_dim, 128);
  EXPECT_EQ(parse(with(qwen3(), "head_dim", nullptr)).head_dim, 64);
  EXPECT_TRUE(c.qk_norm);
  EXPECT_FALSE(c.qkv_bias || c.o_bias);
  EXPECT_EQ(c.rope_theta, 1e6);
  const ModelConfig biased = parse(with(qwen3(), "attention_bias", true));
  EXPECT_TRUE(biased.qkv_bias && biased.o_bias);
}

TEST(ModelConfig, LlamasDefaults) {
  Json json = llama32_v4();
  for (const char* key : {"num_key_value_heads", "head_dim", "max_position_embeddings",
                          "rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings"}) {
    json.erase(key);
  }
  const ModelConfig c = parse(json);
  EXPECT_EQ(c.kv_heads, 32);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.max_positions, 2048);
  EXPECT_EQ(c.rms_eps, 1e-6);
  EXPECT_EQ(c.rope_theta, 1e4);
  EXPECT_FALSE(c.tied);
  EXPECT_FALSE(c.rope_scaling.has_value());
  const ModelConfig biased = parse(with(with(json, "attention_bias", true), "mlp_bias", true));
  EXPECT_TRUE(biased.qkv_bias && biased.o_bias && biased.mlp_bias);
  EXPECT_FALSE(parse(with(json, "pad_token_id", -1)).pad_token_id.has_value());
}

TEST(ModelConfig, RefusesByName) {
  const Json good = llama32_v4();
  EXPECT_ERROR(parse(with(good, "model_type", "gemma2")), "\"gemma2\" is not supported");
  EXPECT_ERROR(parse(without(good, "model_type")), "model_type is missing");
  EXPECT_ERROR(parse(with(good, "hidden_act", "gelu")), "\"gelu\" is not supported");
  EXPECT_ERROR(parse(with(good, "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}})),
               "\"yarn\" is not supported");
  EXPECT_ERROR(parse(with(good, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}})),
               "\"linear\" is not supported");
  EXPECT_ERROR(parse(with(good, "rope_scaling", {{"rope_type", "llama3"}})), "factor is missing");
  EXPECT_ERROR(parse(with(good, "partial_rotary_factor", 0.5)), "partial_rotary_factor");
  EXPECT_ERROR(parse(with(good, "quantization_config", {{"bits", 4}})), "quantization_config");
  Json nested = without(good, "rope_scaling");
  nested["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}}}};
  EXPECT_ERROR(parse(nested), "differs by layer type (\"full_attention\")");
}

TEST(ModelConfig, ChecksTypesAndRanges) {
  const Json good = llama32_v4();
  EXPECT_ERROR(parse(Json::array()), "expected a JSON object");
  EXPECT_ERROR(parse(without(good, "hidden_size")), "hidden_size is missing");
  EXPECT_ERROR(parse(with(good, "hidden_size", "big")), "hidden_size must be an integer");
  EXPECT_ERROR(parse(with(good, "hidden_size", 2048.0)), "hidden_size must be an integer");
  EXPECT_ERROR(parse(with(good, "hidden_size", 0)), "hidden_size must be in [1,");
  EXPECT_ERROR(parse(with(good, "hidden_size", ~uint64_t{0})), "hidden_size must be in [1,");
  EXPECT_ERROR(parse(with(good, "num_hidden_layers", -1)), "num_hidden_layers must be in");
  EXPECT_ERROR(parse(with(good, "num_key_value_heads", 7)), "7 key-value heads do not divide 32");
  EXPECT_ERROR(parse(with(good, "head_dim", 63)), "even head dimension");
  EXPECT_ERROR(parse(without(with(good, "num_attention_heads", 24), "head_dim")), "no multiple");
  EXPECT_ERROR(parse(with(good, "rms_norm_eps", -1.0)), "rms_norm_eps must be in");
  EXPECT_ERROR(parse(with(good, "rope_theta", 0)), "rope_theta must be in");
  EXPECT_ERROR(parse(with(good, "tie_word_embeddings", 1)), "must be true or false");
  EXPECT_ERROR(parse(with(good, "eos_token_id", 128256)), "lies outside the vocabulary");
  EXPECT_ERROR(parse(with(good, "eos_token_id", {1, "2"})), "eos_token_id must be an integer");
  EXPECT_ERROR(parse(with(good, "eos_token_id", {1, nullptr})), "must not list null");
  EXPECT_ERROR(parse(with(mistral(), "sliding_window", 0)), "sliding_window must be in");
  Json crossed = good;
  crossed["rope_scaling"]["high_freq_factor"] = 1.0;
  EXPECT_ERROR(parse(crossed), "high_freq_factor > low_freq_factor");
}

// Invariant: what is written reads back as the same config, in either version's keys alone.
TEST(ModelConfig, WrittenConfigsReadBackInBothSpellings) {
  Json sliding = with(with(qwen25(), "use_sliding_window", true), "max_window_layers", 20);
  for (const Json& original :
       {llama32_v4(), mistral(), qwen25(), qwen3(), sliding,
        with(mistral(), "sliding_window", nullptr), with(qwen3(), "attention_bias", true)}) {
    const ModelConfig c = parse(original);
    const Json whole = model_config_json(c, &original);
    const Json v4 = without(whole, "rope_parameters");
    const Json v5 = without(without(whole, "rope_scaling"), "rope_theta");
    for (const Json& json : {whole, v4, v5, model_config_json(c, nullptr)}) {
      const ModelConfig back = parse(json);
      EXPECT_EQ(model_config_json(back, nullptr), model_config_json(c, nullptr)) << json.dump();
      EXPECT_EQ(back.sliding_layers, c.sliding_layers);
      EXPECT_EQ(back.head_dim, c.head_dim);
      EXPECT_EQ(back.rope_scaling.has_value(), c.rope_scaling.has_value());
    }
  }
}

TEST(ModelConfig, UnknownKeysAreKept) {
  Json original = llama32_v4();
  original["my_key"] = {{"nested", {1, 2, 3}}};
  original["architectures"] = {"LlamaForSequenceClassification"};
  const Json written = model_config_json(parse(original), &original);
  EXPECT_EQ(written["my_key"], original["my_key"]);
  EXPECT_EQ(written["architectures"], original["architectures"]);
  EXPECT_EQ(written["use_cache"], true);
  EXPECT_EQ(written["rope_parameters"]["rope_theta"], 500000.0);
  EXPECT_EQ(model_config_json(parse(qwen3()), nullptr)["architectures"][0], "Qwen3ForCausalLM");
  ModelConfig odd = parse(original);
  odd.qkv_bias = true;
  EXPECT_ERROR(model_config_json(odd, nullptr), "differ in having biases");
}

}  // namespace
}  // namespace temper
