#include <algorithm>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/formats/model_config.h"

namespace temper {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string architecture(std::string_view family) {
  if (family == "llama") return "LlamaForCausalLM";
  if (family == "mistral") return "MistralForCausalLM";
  if (family == "qwen2") return "Qwen2ForCausalLM";
  if (family == "qwen3") return "Qwen3ForCausalLM";
  fail("[model_config_json] no architecture is known for the family \"", family, "\"");
}

template <class T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

/// Version 5 reads rope_parameters and version 4 rope_theta with rope_scaling: both are written,
/// and they agree.
void write_rope(const ModelConfig& c, OrderedJson& json) {
  OrderedJson parameters{{"rope_theta", c.rope_theta}, {"rope_type", "default"}};
  OrderedJson scaling = nullptr;
  if (c.rope_scaling) {
    const RopeScaling& s = *c.rope_scaling;
    scaling = {{"rope_type", s.type},
               {"factor", s.factor},
               {"low_freq_factor", s.low_freq_factor},
               {"high_freq_factor", s.high_freq_factor},
               {"original_max_position_embeddings", s.original_max_positions}};
    parameters.update(scaling);
  }
  json["rope_theta"] = c.rope_theta;
  json["rope_scaling"] = scaling;
  json["rope_parameters"] = parameters;
}

void write_sliding_window(const ModelConfig& c, OrderedJson& json) {
  if (c.family == "mistral") json["sliding_window"] = or_null(c.sliding_window);
  if (c.family != "qwen2" && c.family != "qwen3") return;
  json["use_sliding_window"] = c.sliding_window.has_value();
  if (!c.sliding_window) return;
  json["sliding_window"] = *c.sliding_window;
  OrderedJson types = OrderedJson::array();
  for (const bool slides : c.sliding_layers) {
    types.push_back(slides ? "sliding_attention" : "full_attention");
  }
  json["layer_types"] = types;
  const auto first = std::find(c.sliding_layers.begin(), c.sliding_layers.end(), true);
  json["max_window_layers"] = first - c.sliding_layers.begin();
}

}  // namespace

OrderedJson model_config_json(const ModelConfig& c, const OrderedJson* original) {
  OrderedJson json = original != nullptr ? *original : OrderedJson::object();
  TEMPER_CHECK(json.is_object(), "[model_config_json] the original must be a JSON object");
  TEMPER_CHECK(c.qkv_bias == c.o_bias || c.family == "qwen2", "[model_config_json] a ", c.family,
               " config cannot say that q, k, v and o differ in having biases");
  if (!json.contains("architectures")) json["architectures"] = {architecture(c.family)};
  json["model_type"] = c.family;
  json["hidden_size"] = c.hidden_size;
  json["intermediate_size"] = c.intermediate_size;
  json["num_hidden_layers"] = c.layers;
  json["num_attention_heads"] = c.heads;
  json["num_key_value_heads"] = c.kv_heads;
  json["head_dim"] = c.head_dim;
  json["vocab_size"] = c.vocab_size;
  json["max_position_embeddings"] = c.max_positions;
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = c.rms_eps;
  write_rope(c, json);
  write_sliding_window(c, json);
  if (c.family == "llama" || c.family == "qwen3") json["attention_bias"] = c.o_bias;
  if (c.family == "llama") json["mlp_bias"] = c.mlp_bias;
  json["tie_word_embeddings"] = c.tied;
  json["bos_token_id"] = or_null(c.bos_token_id);
  json["eos_token_id"] = c.eos_token_ids.empty()       ? OrderedJson(nullptr)
                         : c.eos_token_ids.size() == 1 ? OrderedJson(c.eos_token_ids.front())
                                                       : OrderedJson(c.eos_token_ids);
  json["pad_token_id"] = or_null(c.pad_token_id);
  return json;
}

}  // namespace temper
