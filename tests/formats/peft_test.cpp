// Hand-worked values, PEFT's own files (tests/golden/make_adapters.py), and files that lie.
#include "temper/formats/peft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "error_of.h"
#include "temp_folder.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

AdapterConfig parse(const Json& json) { return parse_adapter_config(json.dump(), "file"); }

Json config() {
  return {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 6}, {"target_modules", {"q_proj", "up_proj"}}};
}

TEST(AdapterConfig, ScaleIsAlphaOverTheRankOrItsRoot) {
  AdapterConfig c;
  c.r = 16;
  c.alpha = 8;
  EXPECT_EQ(c.scale_of("model.layers.0.self_attn.q_proj"), 0.5);
  c.use_rslora = true;
  EXPECT_EQ(c.scale_of("model.layers.0.self_attn.q_proj"), 2.0);
  c.rank_pattern = {{"q_proj", 4}};
  c.alpha_pattern = {{"layers.1.self_attn.q_proj", 3}, {"q_proj", 5}};
  EXPECT_EQ(c.scale_of("model.layers.0.self_attn.q_proj"), 2.5);
  EXPECT_EQ(c.scale_of("model.layers.1.self_attn.q_proj"), 1.5);
  EXPECT_EQ(c.scale_of("model.layers.1.self_attn.k_proj"), 2.0);
}

TEST(AdapterConfig, PatternsAndTargetsMatchWholePartsOfAPath) {
  AdapterConfig c;
  c.target_modules = {"proj", "1.mlp.down_proj", "model.layers.0.self_attn.q_proj"};
  EXPECT_FALSE(c.targets("model.layers.0.self_attn.k_proj"));
  EXPECT_FALSE(c.targets("model.layers.11.mlp.down_proj"));
  EXPECT_TRUE(c.targets("model.layers.1.mlp.down_proj"));
  EXPECT_TRUE(c.targets("model.layers.0.self_attn.q_proj"));
  c.rank_pattern = {{"^layers.0.mlp.up_proj", 2}, {"^model.layers.0.mlp.up_proj", 3}};
  EXPECT_EQ(c.rank_of("model.layers.0.mlp.up_proj"), 3);
  EXPECT_EQ(c.rank_of("model.layers.1.mlp.up_proj"), 8);
}

TEST(AdapterConfig, ComesBackFromItsFile) {
  AdapterConfig c;
  c.r = 12;
  c.alpha = 0.1;
  c.target_modules = {"q_proj", "down_proj"};
  c.rank_pattern = {{"down_proj", 3}};
  c.alpha_pattern = {{"^model.layers.0.mlp.down_proj", 1.0 / 3}};
  c.use_rslora = true;
  c.use_dora = true;
  c.dropout = 0.05;
  c.base_model = "some/model";
  const AdapterConfig back = parse_adapter_config(adapter_config_json(c), "file");
  EXPECT_EQ(back.r, c.r);
  EXPECT_EQ(back.alpha, c.alpha);
  EXPECT_EQ(back.target_modules, c.target_modules);
  EXPECT_EQ(back.rank_pattern, c.rank_pattern);
  EXPECT_EQ(back.alpha_pattern, c.alpha_pattern);
  EXPECT_TRUE(back.use_rslora);
  EXPECT_TRUE(back.use_dora);
  EXPECT_FALSE(back.scores);
  EXPECT_EQ(back.dropout, c.dropout);
  EXPECT_EQ(back.base_model, c.base_model);
  EXPECT_EQ(Json::parse(adapter_config_json({}))["target_modules"], "all-linear");
}

// As PEFT's re.fullmatch over whole paths.
TEST(AdapterConfig, AStringIsARegularExpressionOverWholePaths) {
  Json json = config();
  json["target_modules"] = ".*\\.1\\.mlp\\.(gate|up)_proj";
  const AdapterConfig c = parse(json);
  EXPECT_TRUE(c.targets("model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(c.targets("model.layers.11.mlp.up_proj"));
  EXPECT_FALSE(c.targets("model.layers.1.mlp.up_proj.x"));
  EXPECT_FALSE(c.targets("model.layers.1.mlp.down_proj"));
  EXPECT_EQ(Json::parse(adapter_config_json(c))["target_modules"], json["target_modules"]);
  json["target_modules"] = "(a+)+b";
  EXPECT_NE(error_of([&] { (void)parse(json).targets(std::string(5000, 'a')); }).find("gave up"), std::string::npos);
  json["target_modules"] = "(q_proj";
  EXPECT_NE(error_of([&] { (void)parse(json); }).find("is wrong at character"), std::string::npos);
  json["target_modules"] = "all-linear";
  EXPECT_EQ(parse(json).target_pattern, "");
}

TEST(AdapterConfig, AScoringModelSavesItsHead) {
  Json json = config();
  json["task_type"] = "SEQ_CLS";
  json["modules_to_save"] = {"classifier", "score"};
  EXPECT_TRUE(parse(json).scores);
  EXPECT_EQ(Json::parse(adapter_config_json(parse(json)))["modules_to_save"], json["modules_to_save"]);
  json["modules_to_save"] = {"lm_head"};
  EXPECT_NE(error_of([&] { (void)parse(json); }).find("modules_to_save"), std::string::npos);
}

TEST(AdapterConfig, WhatIsNotSupportedIsRefusedByName) {
  EXPECT_EQ(parse(config()).r, 4);
  const auto refused = [&](const char* key, Json value) {
    Json json = config();
    json[key] = std::move(value);
    const std::string error = error_of([&] { (void)parse(json); });
    EXPECT_NE(error.find(key), std::string::npos) << key << ": " << error;
  };
  refused("peft_type", "LOHA");
  refused("peft_type", nullptr);
  refused("task_type", "TOKEN_CLS");
  refused("bias", "all");
  refused("lora_bias", true);
  refused("fan_in_fan_out", true);
  refused("modules_to_save", {"lm_head"});
  refused("layer_replication", {{0, 1}});
  refused("trainable_token_indices", {1});
  refused("use_qalora", true);
  refused("init_lora_weights", "pissa");
  refused("an_option_of_tomorrow", 1);
  refused("r", 0);
  refused("r", 5000);
  refused("r", 1.5);
  refused("lora_dropout", 1.5);
  refused("target_modules", {1});
  refused("target_modules", Json::array());
  refused("rank_pattern", {{"q_proj", 0}});
  refused("rank_pattern", {{".*q_proj", 2}});
  refused("alpha_pattern", {{"q_proj", "8"}});
  Json off = config();
  off["an_option_of_tomorrow"] = false;
  off["modules_to_save"] = Json::array();
  off["init_lora_weights"] = "gaussian";
  off["lora_dropout"] = 0.05;
  EXPECT_EQ(parse(off).dropout, 0.05);
  Json zero = config();
  zero["lora_alpha"] = 0;
  EXPECT_NE(error_of([&] { (void)parse(zero); }).find("alpha"), std::string::npos);
}

/// A folder with one module of rank 2, and what a test changes of it.
struct Folder {
  TempFolder folder;
  Json json{{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 2}, {"target_modules", {"q_proj"}}};
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors{
      {peft_name_a("model.layers.0.self_attn.q_proj"), {2, 3}},
      {peft_name_b("model.layers.0.self_attn.q_proj"), {4, 2}}};

  std::string error() const {
    write_file_atomically(folder.path() / "adapter_config.json", json.dump());
    std::vector<float> values(100, 0.5f);
    std::vector<NamedTensor> out;
    for (const auto& [name, shape] : tensors) {
      size_t count = 1;
      for (const int64_t size : shape) count *= static_cast<size_t>(size);
      out.push_back({name, DType::kF32, shape, std::as_bytes(std::span(values.data(), count))});
    }
    write_safetensors(folder.path() / "adapter_model.safetensors", out);
    return error_of([&] { (void)open_peft_adapter(folder.path()); });
  }
};

TEST(PeftFolder, FilesThatContradictThemselvesAreRefused) {
  EXPECT_EQ(Folder().error(), "");
  const auto says = [](const auto& change, const char* words) {
    Folder f;
    change(f);
    const std::string error = f.error();
    EXPECT_NE(error.find(words), std::string::npos) << words << ": " << error;
  };
  says([](Folder& f) { f.tensors.pop_back(); }, "q_proj has no lora_B");
  says([](Folder& f) { f.tensors.erase(f.tensors.begin()); }, "q_proj has no lora_A");
  says([](Folder& f) { f.tensors.clear(); }, "holds no adapter");
  says([](Folder& f) { f.tensors[0].second = {3, 3}; }, "has rank 3 in A and 2 in B, but 2");
  says([](Folder& f) { f.json["rank_pattern"] = {{"q_proj", 3}}; }, "but 3 by adapter_config.json");
  says([](Folder& f) { f.tensors[1].second = {8}; }, "must be a matrix");
  says([](Folder& f) { f.json["target_modules"] = {"q_proj", "v_proj"}; }, "module \"v_proj\"");
  says([](Folder& f) { f.json["target_modules"] = {"v_proj"}; }, "none of target_modules");
  says([](Folder& f) { f.tensors.push_back({"base_model.model.lm_head.weight", {2, 2}}); },
       "\"base_model.model.lm_head.weight\" is not supported");
  says([](Folder& f) { f.tensors.push_back({"base_model.model..lora_A.weight", {2, 2}}); },
       "is not supported");
}

TEST(PeftFolder, MagnitudesAndHeadsAreThereOrNot) {
  const std::string module = "model.layers.0.self_attn.q_proj";
  Folder dora;
  dora.json["use_dora"] = true;
  EXPECT_NE(dora.error().find("q_proj has no lora_magnitude_vector"), std::string::npos);
  dora.tensors.push_back({peft_name_m(module), {3}});
  EXPECT_NE(dora.error().find("has 3 magnitudes for 4 outputs"), std::string::npos);
  dora.tensors.back().second = {4};
  EXPECT_EQ(dora.error(), "");
  dora.json["use_dora"] = false;
  EXPECT_NE(dora.error().find("is not supported"), std::string::npos);
  Folder scores;
  scores.json["task_type"] = "SEQ_CLS";
  EXPECT_NE(scores.error().find("no base_model.model.score.weight"), std::string::npos);
  scores.tensors.push_back({peft_name_score(), {1, 3}});
  EXPECT_EQ(scores.error(), "");
}

TEST(PeftFolder, MissingFilesAreNamed) {
  const TempFolder empty;
  EXPECT_NE(error_of([&] { (void)open_peft_adapter(empty.path()); }).find("no adapter_config.json"),
            std::string::npos);
  write_file_atomically(empty.path() / "adapter_config.json", config().dump());
  write_file_atomically(empty.path() / "adapter_model.bin", "x");
  EXPECT_NE(error_of([&] { (void)open_peft_adapter(empty.path()); }).find("can run code"),
            std::string::npos);
}

TEST(PeftFolder, ReadsWhatPeftWrites) {
  const auto open = [](const char* name) {
    return open_peft_adapter(std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/golden/adapters" / name);
  };
  const PeftAdapter lora = open("lora");
  EXPECT_EQ(lora.modules.size(), 4u);
  EXPECT_EQ(lora.config.scale_of("model.layers.1.self_attn.v_proj"), 1.5);
  EXPECT_EQ(open("all_linear").modules.size(), 14u);
  EXPECT_EQ(open("rslora").config.scale_of("model.layers.0.mlp.down_proj"), 1.5);
  const PeftAdapter patterns = open("patterns");
  EXPECT_EQ(patterns.modules.at("model.layers.1.self_attn.q_proj").a.shape[0], 7);
  EXPECT_EQ(patterns.modules.at("model.layers.0.self_attn.q_proj").a.shape[0], 2);
  EXPECT_EQ(patterns.config.scale_of("model.layers.0.mlp.up_proj"), 4.5);
  EXPECT_EQ(open("some_layers").modules.size(), 2u);  // By a regular expression.
  const PeftAdapter dora = open("dora_all");
  EXPECT_EQ(dora.modules.size(), 14u);
  EXPECT_EQ(dora.modules.at("model.layers.1.mlp.up_proj").m.shape.size(), 1u);
}

}  // namespace
}  // namespace temper
