#include "temper/formats/hf_folder.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "json_util.h"
#include "model_folder.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;
using detail::ModelFolder;

constexpr size_t kMaxConfigBytes = size_t{4} << 20;
constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxSentencepieceBytes = size_t{64} << 20;
constexpr size_t kMaxConfigValues = 20'000;  // an ordered object finds keys by walking
constexpr size_t kMaxIndexValues = 2'000'000;
constexpr size_t kMaxShards = 10'000;

/// The tensors of one file or of several shards.
class SafetensorsWeights : public WeightSource {
 public:
  void add(const std::string& name, const TensorView& view) {
    TEMPER_CHECK(tensors_.emplace(name, view).second, "[hf_folder] two files hold \"", name, "\"");
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> result;
    for (const auto& [name, view] : tensors_) result.push_back(name);
    return result;
  }
  bool has(std::string_view name) const override { return tensors_.contains(name); }
  std::vector<int64_t> shape(std::string_view name) const override { return at(name).shape; }
  void read_float(std::string_view name, std::span<float> out) const override {
    try {
      copy_to_float(at(name), out);
    } catch (const Error& error) {
      fail("[hf_folder] tensor \"", name, "\": ", error.what());
    }
  }

 private:
  const TensorView& at(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found != tensors_.end()) return found->second;
    const std::string near = nearest_name(name, names());
    fail("[hf_folder] the model has no tensor \"", name, "\"",
         near.empty() ? "" : "; the nearest name is \"" + near + "\"");
  }
  std::map<std::string, TensorView, std::less<>> tensors_;
};

std::map<std::string, std::set<std::string>> names_by_shard(const ModelFolder& folder,
                                                            const std::string& index_name) {
  const std::string source = folder.source(index_name);
  const auto json = detail::parse_small_json<nlohmann::json>(
      folder.text(index_name, kMaxIndexBytes), source, kMaxIndexValues);
  const bool has_map = json.is_object() && json.contains("weight_map") &&
                       json["weight_map"].is_object() && !json["weight_map"].empty();
  TEMPER_CHECK(has_map, "[hf_folder] ", source, ": weight_map is missing or empty");
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [name, file] : json["weight_map"].items()) {
    TEMPER_CHECK(file.is_string(), "[hf_folder] ", source, ": weight_map[\"", name,
                 "\"] must be a file name");
    shards[file.get<std::string>()].insert(name);
  }
  TEMPER_CHECK(shards.size() <= kMaxShards, "[hf_folder] ", source, ": ", shards.size(), " shards");
  return shards;
}

std::shared_ptr<const WeightSource> open_weights(const ModelFolder& folder) {
  auto weights = std::make_shared<SafetensorsWeights>();
  if (const auto single = folder.find("model.safetensors")) {
    const auto file = SafetensorsFile::open(*single);
    for (const std::string& name : file.names()) weights->add(name, file.at(name));
    return weights;
  }
  const std::string index = "model.safetensors.index.json";
  TEMPER_CHECK(folder.find(index).has_value(), "[hf_folder] ", folder.path().string(),
               " holds neither model.safetensors nor ", index,
               folder.find("pytorch_model.bin") || folder.find("pytorch_model.bin.index.json")
                   ? "; convert its pytorch_model.bin to safetensors"
                   : "");
  for (const auto& [shard, names] : names_by_shard(folder, index)) {
    const auto path = folder.find(shard);
    TEMPER_CHECK(path.has_value(), "[hf_folder] ", folder.source(index), " names the shard \"",
                 shard, "\", which is not in ", folder.path().string());
    const auto file = SafetensorsFile::open(*path);
    for (const std::string& name : names) {
      TEMPER_CHECK(file.has(name), "[hf_folder] ", folder.source(index), " says that \"", name,
                   "\" is in ", shard, ", which does not hold it");
      weights->add(name, file.at(name));
    }
  }
  return weights;
}

TokenizerFiles read_tokenizer_files(const ModelFolder& folder) {
  TokenizerFiles files;
  files.tokenizer_json = folder.text("tokenizer.json", kMaxTokenizerBytes);
  files.sentencepiece_model = folder.text("tokenizer.model", kMaxSentencepieceBytes);
  files.tokenizer_config_json = folder.text("tokenizer_config.json", kMaxConfigBytes);
  files.generation_config_json = folder.text("generation_config.json", kMaxConfigBytes);
  files.special_tokens_map_json = folder.text("special_tokens_map.json", kMaxConfigBytes);
  files.added_tokens_json = folder.text("added_tokens.json", kMaxConfigBytes);
  files.vocab_json = folder.text("vocab.json", kMaxTokenizerBytes);
  files.merges_txt = folder.text("merges.txt", kMaxTokenizerBytes);
  return files;
}

/// chat_template.jinja wins over the key of tokenizer_config.json, which is a string, or a list of
/// named ones of which "default" counts.
std::string read_chat_template(const ModelFolder& folder, const std::string& tokenizer_config) {
  std::string own = folder.text("chat_template.jinja", kMaxConfigBytes);
  if (!own.empty() || tokenizer_config.empty()) return own;
  const std::string source = folder.source("tokenizer_config.json");
  const auto json =
      detail::parse_small_json<nlohmann::json>(tokenizer_config, source, kMaxIndexValues);
  TEMPER_CHECK(json.is_object(), "[hf_folder] ", source, ": expected a JSON object");
  const auto key = json.find("chat_template");
  if (key == json.end() || key->is_null()) return {};
  if (key->is_string()) return key->get<std::string>();
  TEMPER_CHECK(key->is_array(), "[hf_folder] ", source,
               ": chat_template must be a string or a list");
  for (const auto& item : *key) {
    const bool named = item.is_object() && item.contains("name") && item.contains("template");
    TEMPER_CHECK(named && item["template"].is_string(), "[hf_folder] ", source,
                 ": chat_template lists something that is not {name, template}");
    if (item["name"] == "default") return item["template"].get<std::string>();
  }
  return {};
}

GenerationConfig read_generation(const ModelFolder& folder, const TokenizerFiles& files,
                                 const ModelConfig& config) {
  GenerationConfig generation{config.eos_token_ids, config.bos_token_id, config.pad_token_id};
  if (files.generation_config_json.empty()) return generation;
  const std::string source = folder.source("generation_config.json");
  const auto document =
      detail::parse_small_json<OrderedJson>(files.generation_config_json, source, kMaxConfigValues);
  const detail::JsonObject json(document, source);
  if (auto ids = json.token_ids("eos_token_id"); !ids.empty()) {
    generation.eos_token_ids = std::move(ids);
  }
  if (const auto id = json.token_id("bos_token_id")) generation.bos_token_id = id;
  if (const auto id = json.token_id("pad_token_id")) generation.pad_token_id = id;
  const auto check = [&](int32_t id) {
    TEMPER_CHECK(id < config.vocab_size, "[hf_folder] ", source, ": the token id ", id,
                 " lies outside the vocabulary of ", config.vocab_size);
  };
  for (const int32_t id : generation.eos_token_ids) check(id);
  if (generation.bos_token_id) check(*generation.bos_token_id);
  if (generation.pad_token_id) check(*generation.pad_token_id);
  return generation;
}

}  // namespace

ModelSource open_hf_folder(const fs::path& path) {
  const ModelFolder folder(path);
  ModelSource model;
  model.path = path.string();
  model.config_json = folder.text("config.json", kMaxConfigBytes);
  TEMPER_CHECK(!model.config_json.empty(), "[hf_folder] ", path.string(), " has no config.json",
               folder.find("adapter_config.json")
                   ? "; it is an adapter: open its base model and load the adapter onto it"
                   : "");
  const std::string source = folder.source("config.json");
  model.config = parse_model_config(
      detail::parse_small_json<OrderedJson>(model.config_json, source, kMaxConfigValues), source);
  model.weights = open_weights(folder);
  model.tokenizer = read_tokenizer_files(folder);
  model.chat_template = read_chat_template(folder, model.tokenizer.tokenizer_config_json);
  model.generation = read_generation(folder, model.tokenizer, model.config);
  return model;
}

}  // namespace temper
