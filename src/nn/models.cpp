#include "temper/nn/models.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/nn/panel_file.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

Tokenizer make_tokenizer(const ModelSource& source) {
  const TokenizerFiles& files = source.tokenizer;
  if (!files.tokenizer_json.empty()) {
    return Tokenizer::from_json(files.tokenizer_json, source.path + " tokenizer.json");
  }
  TEMPER_CHECK(!files.sentencepiece_model.empty(), source.path,
               " has neither tokenizer.json nor tokenizer.model");
  return Tokenizer::from_sentencepiece(files.sentencepiece_model, source.path + " tokenizer.model");
}

/// "bos_token": "<s>" or {"content": "<s>"} of tokenizer_config.json.
std::map<std::string, std::string> special_tokens(const std::string& text) {
  std::map<std::string, std::string> out;
  const Json config = text.empty() ? Json::object() : Json::parse(text, nullptr, false);
  if (!config.is_object()) return out;
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const auto it = config.find(key);
    if (it == config.end()) continue;
    if (it->is_string()) out[key] = it->get<std::string>();
    if (it->is_object() && it->contains("content") && (*it)["content"].is_string()) {
      out[key] = (*it)["content"].get<std::string>();
    }
  }
  return out;
}

}  // namespace

ModelText::ModelText(const ModelSource& source) : tokenizer_(make_tokenizer(source)) {
  options_.special_tokens = special_tokens(source.tokenizer.tokenizer_config_json);
  options_.add_generation_prompt = true;
  if (!source.chat_template.empty()) template_.emplace(source.chat_template);
  eos_ids_ = source.generation.eos_token_ids;
  eos_ids_.insert(eos_ids_.end(), source.config.eos_token_ids.begin(),
                  source.config.eos_token_ids.end());
  if (const auto eos = options_.special_tokens.find("eos_token");
      eos != options_.special_tokens.end()) {
    if (const auto id = tokenizer_.token_to_id(eos->second)) eos_ids_.push_back(*id);
  }
  std::sort(eos_ids_.begin(), eos_ids_.end());
  eos_ids_.erase(std::unique(eos_ids_.begin(), eos_ids_.end()), eos_ids_.end());
}

std::optional<int32_t> ModelText::eos_id() const {
  if (const auto eos = options_.special_tokens.find("eos_token");
      eos != options_.special_tokens.end()) {
    if (const auto id = tokenizer_.token_to_id(eos->second)) return id;
  }
  return eos_ids_.empty() ? std::nullopt : std::optional(eos_ids_.front());
}

std::string ModelText::render(const Json& messages, const Json* tools) const {
  TEMPER_CHECK(template_.has_value(),
               "the model has no chat template; give plain prompts instead of messages");
  ChatTemplateOptions options = options_;
  options.tools = tools;
  return template_->render(messages, options);
}

std::string ModelText::render_finished(const Json& messages, const Json* tools) const {
  TEMPER_CHECK(template_.has_value(),
               "the model has no chat template; give plain texts instead of messages");
  ChatTemplateOptions options = options_;
  options.add_generation_prompt = false;
  options.tools = tools;
  return template_->render(messages, options);
}

ChatTemplate::Rendered ModelText::render_with_spans(const Json& messages, const Json* tools) const {
  if (!template_ || !template_->has_generation_blocks()) {
    return {render_finished(messages, tools), {}};
  }
  ChatTemplateOptions options = options_;
  options.add_generation_prompt = false;
  options.tools = tools;
  return template_->render_with_spans(messages, options);
}

std::string ModelText::render_user(std::string_view content) const {
  return render(Json::array({{{"role", "user"}, {"content", std::string(content)}}}));
}

std::vector<int32_t> ModelText::encode_rendered(std::string_view text) const {
  return tokenizer_.encode(text, {.add_special_tokens = false, .allow_special = true});
}

PolicyModel PolicyModel::load(std::string_view spec, WeightDType dtype, Trainable trainable) {
  PolicyModel p;
  p.source_ = std::make_unique<ModelSource>(open_model(spec));
  p.text_ = std::make_unique<ModelText>(*p.source_);
  p.lm_ = std::make_unique<CausalLM>(*p.source_, dtype, trainable);
  p.source_->weights.reset();  // Unmaps the file: all of it would count as this process's memory.
  return p;
}

PolicyModel PolicyModel::load_with_adapter(std::string_view spec, WeightDType dtype,
                                           AdapterConfig config, uint64_t seed) {
  PolicyModel p = load(spec, dtype, Trainable::kNo);
  if (config.base_model.empty()) config.base_model = spec;
  p.lm_->add_adapter(config, seed);
  return p;
}

PolicyModel PolicyModel::load_with_adapter(std::string_view spec, WeightDType dtype,
                                           const std::filesystem::path& folder,
                                           Trainable trainable) {
  PolicyModel p = load(spec, dtype, Trainable::kNo);
  p.lm_->load_adapter(folder, trainable);
  return p;
}

void PolicyModel::save(const std::filesystem::path& folder, DType dtype) const {
  write_hf_folder(folder, *source_, lm_->write_tensors(), {.dtype = dtype});
}

ReferenceModel ReferenceModel::copy_of(const PolicyModel& policy) {
  return copy_of(policy, policy.lm().dtype());
}

ReferenceModel ReferenceModel::copy_of(const PolicyModel& policy, WeightDType dtype) {
  ReferenceModel r;
  r.lm_ = CausalLM::frozen_copy(policy.lm(), dtype);
  return r;
}

ReferenceModel ReferenceModel::adapter_off(const PolicyModel& policy) {
  ReferenceModel r;
  r.lm_ = policy.lm().without_adapter();
  return r;
}

ReferenceModel ReferenceModel::load(std::string_view spec, WeightDType dtype) {
  ReferenceModel r;
  r.lm_ = std::make_unique<CausalLM>(open_model(spec), dtype, Trainable::kNo);
  return r;
}

ReferenceModel ReferenceModel::map(const std::filesystem::path& file) {
  ReferenceModel r;
  r.lm_ = CausalLM::map_panels(file);
  return r;
}

ReferenceModel ReferenceModel::map_or_write(std::string_view spec, WeightDType dtype,
                                            const std::filesystem::path& file) {
  ReferenceModel r;
  r.lm_ = map_or_write_panels(spec, dtype, file);
  return r;
}

void ReferenceModel::sync(const PolicyModel& policy, double alpha) {
  TEMPER_CHECK(alpha > 0 && alpha <= 1, "[sync] alpha must be in (0, 1], got ", alpha);
  TEMPER_CHECK(!lm_->mapped(), "[sync] a mapped reference cannot be changed");
  TEMPER_CHECK(policy.lm().adapter() == nullptr,
               "[sync] the reference of an adapter is the model under it, which does not move");
  if (alpha == 1.0) return lm_->copy_weights(policy.lm());
  const auto from = policy.lm().parameters();
  const auto to = lm_->parameters();
  TEMPER_CHECK(from.size() == to.size(), "[sync] the reference has another architecture");
  for (size_t i = 0; i < to.size(); ++i) {
    TEMPER_CHECK(to[i]->value.defined(),
                 "[sync] a rounded reference keeps no float32 values to blend with; ",
                 "use float32 weights or a mixing factor of 1");
    to[i]->value.mul_(1.0 - alpha).add_(from[i]->value, alpha);
  }
}

}  // namespace temper
