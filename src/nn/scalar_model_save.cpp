// A scalar model as a folder of transformers' sequence-classification classes.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "temper/core/error.h"
#include "temper/nn/adapter.h"
#include "temper/nn/scalar_model.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

std::string classifier(const std::string& family) {
  const std::pair<const char*, const char*> names[] = {
      {"llama", "LlamaForSequenceClassification"},
      {"mistral", "MistralForSequenceClassification"},
      {"qwen2", "Qwen2ForSequenceClassification"},
      {"qwen3", "Qwen3ForSequenceClassification"}};
  for (const auto& [name, architecture] : names) {
    if (family == name) return architecture;
  }
  fail("[save] no sequence-classification class is known for the family \"", family, "\"");
}

/// The text of a special token in tokenizer_config.json: a string, or {"content": ...}.
std::optional<std::string> special_token(const Json& config, const char* key) {
  if (!config.is_object() || !config.contains(key)) return std::nullopt;
  const Json& value = config[key];
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object() || !value.contains("content") || !value["content"].is_string()) {
    return std::nullopt;
  }
  return value["content"].get<std::string>();
}

struct PadToken {
  int32_t id = 0;
  std::optional<std::string> text;  ///< Where the tokenizer's files name it.
};

std::string token_name(const ModelText& text, int32_t id) {
  try {
    return text.tokenizer().id_to_token(id);
  } catch (const Error&) {
    return "";  // An id of the embedding that the tokenizer does not use.
  }
}

/// The first candidate that does not end texts, else any.
std::optional<PadToken> choose_pad(const ModelSource& source, const ModelText* text) {
  const Json config = Json::parse(source.tokenizer.tokenizer_config_json, nullptr, false);
  std::vector<int32_t> ends = source.config.eos_token_ids;
  if (text != nullptr) ends = text->eos_ids();
  std::vector<PadToken> candidates;
  const auto add = [&](std::optional<int32_t> id, std::optional<std::string> content) {
    if (id && *id >= 0 && *id < source.config.vocab_size) {
      candidates.push_back({*id, std::move(content)});
    }
  };
  const auto add_named = [&](const char* key) {
    if (text == nullptr) return;
    if (const auto name = special_token(config, key)) {
      add(text->tokenizer().token_to_id(*name), name);
    }
  };
  add_named("pad_token");
  add(source.config.pad_token_id, std::nullopt);
  add(source.generation.pad_token_id, std::nullopt);
  add_named("unk_token");
  add_named("bos_token");
  add(source.config.bos_token_id, std::nullopt);
  if (text != nullptr) {
    const Tokenizer& t = text->tokenizer();
    for (int32_t id = 0; id < t.vocab_size(); ++id) {
      if (t.is_special(id)) add(id, std::nullopt);
    }
  }
  for (const int32_t id : ends) add(id, std::nullopt);
  const auto harmless = [&](const PadToken& c) {
    return std::ranges::find(ends, c.id) == ends.end();
  };
  const auto best = std::ranges::find_if(candidates, harmless);
  if (best != candidates.end()) return *best;
  return candidates.empty() ? std::nullopt : std::optional(candidates.front());
}

/// `text` with "pad_token" set, or as it is where it is empty or no object.
std::string with_pad(const std::string& text, const std::string& pad) {
  Json json = text.empty() ? Json() : Json::parse(text, nullptr, false);
  if (!json.is_object()) return text;
  json["pad_token"] = pad;
  return json.dump(2) + "\n";
}

ModelSource classifier_source(const ModelSource& from, const ModelText* text) {
  ModelSource out = from;
  Json config = from.config_json.empty() ? Json::object() : Json::parse(from.config_json);
  config["architectures"] = {classifier(from.config.family)};
  config["id2label"] = {{"0", "LABEL_0"}};
  config["label2id"] = {{"LABEL_0", 0}};
  config.erase("num_labels");  // transformers counts id2label.
  out.config_json = config.dump();
  const auto pad = choose_pad(from, text);
  if (!pad) return out;
  out.config.pad_token_id = pad->id;
  out.generation.pad_token_id = pad->id;
  std::string name = pad->text.value_or("");
  if (name.empty() && text != nullptr) name = token_name(*text, pad->id);
  if (name.empty()) return out;
  out.tokenizer.tokenizer_config_json = with_pad(from.tokenizer.tokenizer_config_json, name);
  out.tokenizer.special_tokens_map_json = with_pad(from.tokenizer.special_tokens_map_json, name);
  return out;
}

}  // namespace

void ScalarModel::save_adapter(const std::filesystem::path& folder) const {
  TEMPER_CHECK(backbone_->adapter() != nullptr, "[adapter] the model has none to save");
  TEMPER_CHECK(!head_.has_bias(),
               "[adapter] the head has a bias, which PEFT's folder has no place for");
  backbone_->adapter()->save(folder, head_.weight());
}

void ScalarModel::save(const std::filesystem::path& folder, DType dtype) const {
  std::vector<WriteTensor> tensors = backbone_->write_tensors();
  std::erase_if(tensors, [](const WriteTensor& t) { return t.name == "lm_head.weight"; });
  tensors.push_back({"score.weight", {1, head_.width()}, [this](std::span<float> out) {
                       std::ranges::copy(head_.weight(), out.begin());
                     }});
  if (head_.has_bias()) {
    tensors.push_back({"score.bias", {1}, [this](std::span<float> out) { out[0] = head_.bias(); }});
  }
  const bool has_tokenizer =
      !source_->tokenizer.tokenizer_json.empty() || !source_->tokenizer.sentencepiece_model.empty();
  const ModelSource out = classifier_source(*source_, has_tokenizer ? &text() : nullptr);
  write_hf_folder(folder, out, tensors, {.dtype = dtype});
}

}  // namespace temper
