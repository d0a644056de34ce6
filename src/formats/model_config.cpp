#include "temper/formats/model_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <numbers>

#include "json_util.h"
#include "model_check.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using detail::JsonObject;
using OrderedJson = nlohmann::ordered_json;

/// What a class in transformers assumes when config.json is silent.
struct FamilyDefaults {
  std::string_view family;
  int64_t kv_heads;  ///< 0: as many as heads.
  int64_t head_dim;  ///< 0: hidden / heads.
  int64_t max_positions;
};
constexpr std::array<FamilyDefaults, 4> kFamilies{{
    {"llama", 0, 0, 2048},
    {"mistral", 8, 0, 131072},
    {"qwen2", 32, 0, 32768},
    {"qwen3", 32, 128, 32768},
}};
constexpr int64_t kDefaultWindow = 4096;
constexpr int64_t kDefaultMaxWindowLayers = 28;

const FamilyDefaults& family_of(const JsonObject& json) {
  const auto name = json.text("model_type");
  TEMPER_CHECK(name.has_value(), json.source(), ": model_type is missing");
  for (const FamilyDefaults& f : kFamilies) {
    if (f.family == *name) return f;
  }
  fail(json.source(), ": the model family \"", *name,
       "\" is not supported; supported are llama, mistral, qwen2 and qwen3");
}

int64_t required(const JsonObject& json, std::string_view key, int64_t high) {
  const auto value = json.integer(key, 1, high);
  TEMPER_CHECK(value.has_value(), json.source(), ": ", key, " is missing");
  return *value;
}

void read_sizes(const JsonObject& json, const FamilyDefaults& defaults, ModelConfig& c) {
  c.hidden_size = required(json, "hidden_size", detail::kMaxHidden);
  c.intermediate_size = required(json, "intermediate_size", detail::kMaxIntermediate);
  c.layers = required(json, "num_hidden_layers", detail::kMaxLayers);
  c.heads = required(json, "num_attention_heads", detail::kMaxHeads);
  c.vocab_size = required(json, "vocab_size", detail::kMaxVocab);
  c.max_positions = json.integer("max_position_embeddings", 1, detail::kMaxPositions)
                        .value_or(defaults.max_positions);
  const bool own_kv = defaults.kv_heads == 0 || json.is_null("num_key_value_heads");
  c.kv_heads = json.integer("num_key_value_heads", 1, detail::kMaxHeads)
                   .value_or(own_kv ? c.heads : defaults.kv_heads);
  const bool own_dim = defaults.head_dim == 0 || json.is_null("head_dim");
  const auto head_dim = json.integer("head_dim", 2, detail::kMaxHeadDim);
  TEMPER_CHECK(head_dim || !own_dim || c.hidden_size % c.heads == 0, json.source(),
               ": hidden_size ", c.hidden_size, " is no multiple of num_attention_heads ", c.heads,
               " and head_dim is not given");
  c.head_dim = head_dim.value_or(own_dim ? c.hidden_size / c.heads : defaults.head_dim);
}

void read_rope(const JsonObject& json, ModelConfig& c) {
  const OrderedJson* params = json.find("rope_scaling");  // the older key wins, as in transformers
  std::string_view key = "rope_scaling";
  if (params == nullptr || params->empty()) {
    params = json.find("rope_parameters");
    key = "rope_parameters";
  }
  const auto top_theta = json.number("rope_theta", 1e-3, 1e12);
  TEMPER_CHECK(json.number("partial_rotary_factor", 0, 1).value_or(1) == 1, json.source(),
               ": partial_rotary_factor below 1 is not supported");
  c.rope_theta = top_theta.value_or(1e4);
  if (params == nullptr) return;

  const JsonObject rope(*params, concat(json.source(), ": ", key));
  for (const auto& [name, value] : params->items()) {
    TEMPER_CHECK(!value.is_object(), rope.source(), " differs by layer type (\"", name,
                 "\"), which is not supported");
  }
  TEMPER_CHECK(rope.number("partial_rotary_factor", 0, 1).value_or(1) == 1, rope.source(),
               ": partial_rotary_factor below 1 is not supported");
  c.rope_theta = rope.number("rope_theta", 1e-3, 1e12).value_or(c.rope_theta);
  std::string type = rope.text("rope_type").value_or(rope.text("type").value_or("default"));
  if (type == "default") return;
  TEMPER_CHECK(type == "llama3", rope.source(), ": the rope scaling \"", type,
               "\" is not supported; supported are \"default\" and \"llama3\"");
  RopeScaling s;
  s.type = type;
  const auto positive = [&](std::string_view name) {
    const auto value = rope.number(name, 1e-3, 1e6);
    TEMPER_CHECK(value.has_value(), rope.source(), ": ", name, " is missing");
    return *value;
  };
  s.factor = positive("factor");
  s.low_freq_factor = positive("low_freq_factor");
  s.high_freq_factor = positive("high_freq_factor");
  constexpr std::string_view kOriginal = "original_max_position_embeddings";
  s.original_max_positions =
      json.integer(kOriginal, 1, detail::kMaxPositions)
          .value_or(rope.integer(kOriginal, 1, detail::kMaxPositions).value_or(c.max_positions));
  c.rope_scaling = s;
}

/// Qwen's list of which layers slide: `layer_types`, or all from `max_window_layers` on.
std::vector<bool> sliding_layers(const JsonObject& json, int64_t layers) {
  std::vector<bool> slides(static_cast<size_t>(layers));
  const OrderedJson* types = json.find("layer_types");
  if (types == nullptr) {
    const int64_t first =
        json.integer("max_window_layers", 0, detail::kMaxLayers).value_or(kDefaultMaxWindowLayers);
    for (int64_t i = first; i < layers; ++i) slides[static_cast<size_t>(i)] = true;
    return slides;
  }
  TEMPER_CHECK(types->is_array() && types->size() == slides.size(), json.source(),
               ": layer_types must list one word for each of ", layers, " layers");
  for (size_t i = 0; i < slides.size(); ++i) {
    const OrderedJson& type = (*types)[i];
    slides[i] = type == "sliding_attention";
    TEMPER_CHECK(slides[i] || type == "full_attention", json.source(), ": layer_types[", i,
                 "] must be \"full_attention\" or \"sliding_attention\", got ",
                 type.is_string() ? type.get<std::string>() : type.type_name());
  }
  return slides;
}

void read_sliding_window(const JsonObject& json, ModelConfig& c) {
  if (c.family == "llama") return;
  const auto window = json.integer("sliding_window", 1, detail::kMaxPositions);
  const bool off = json.is_null("sliding_window");
  std::vector<bool> slides(static_cast<size_t>(c.layers), true);
  if (c.family == "mistral") {
    if (off) return;
  } else {
    slides = sliding_layers(json, c.layers);  // checked even where the window is off
    if (off || !json.boolean("use_sliding_window", false)) return;
    if (std::find(slides.begin(), slides.end(), true) == slides.end()) return;
  }
  c.sliding_window = window.value_or(kDefaultWindow);
  c.sliding_layers = std::move(slides);
}

void refuse_unsupported(const JsonObject& json) {
  for (const std::string_view key : {"hidden_act", "hidden_activation"}) {
    const auto activation = json.text(key);
    TEMPER_CHECK(!activation || *activation == "silu" || *activation == "swish", json.source(),
                 ": the activation \"", *activation, "\" is not supported; supported is \"silu\"");
  }
  TEMPER_CHECK(json.find("quantization_config") == nullptr, json.source(),
               ": quantised Hugging Face weights (quantization_config) are not supported; use the "
               "unquantised model or a GGUF file");
}

}  // namespace

namespace detail {

void check_model_config(const ModelConfig& c, std::string_view source) {
  const auto in = [&](std::string_view what, int64_t value, int64_t low, int64_t high) {
    TEMPER_CHECK(value >= low && value <= high, source, ": ", what, " must be in [", low, ", ",
                 high, "], got ", value);
  };
  in("hidden size", c.hidden_size, 1, kMaxHidden);
  in("intermediate size", c.intermediate_size, 1, kMaxIntermediate);
  in("number of layers", c.layers, 1, kMaxLayers);
  in("number of heads", c.heads, 1, kMaxHeads);
  in("number of key-value heads", c.kv_heads, 1, kMaxHeads);
  in("head dimension", c.head_dim, 2, kMaxHeadDim);
  in("vocabulary size", c.vocab_size, 1, kMaxVocab);
  in("number of positions", c.max_positions, 1, kMaxPositions);
  TEMPER_CHECK(c.heads % c.kv_heads == 0, source, ": ", c.kv_heads,
               " key-value heads do not divide ", c.heads, " heads");
  TEMPER_CHECK(c.head_dim % 2 == 0, source, ": rope needs an even head dimension, got ",
               c.head_dim);
  if (c.rope_scaling) {
    const RopeScaling& s = *c.rope_scaling;
    TEMPER_CHECK(s.factor >= 1 && s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor,
                 source,
                 ": llama3 rope scaling needs factor >= 1 and high_freq_factor > "
                 "low_freq_factor > 0, got ",
                 s.factor, ", ", s.high_freq_factor, " and ", s.low_freq_factor);
  }
  const auto id_in_range = [&](std::string_view what, int32_t id) {
    TEMPER_CHECK(id >= 0 && id < c.vocab_size, source, ": ", what, " ", id,
                 " lies outside the vocabulary of ", c.vocab_size);
  };
  for (const int32_t id : c.eos_token_ids) id_in_range("eos_token_id", id);
  if (c.bos_token_id) id_in_range("bos_token_id", *c.bos_token_id);
  if (c.pad_token_id) id_in_range("pad_token_id", *c.pad_token_id);
}

}  // namespace detail

ModelConfig parse_model_config(const OrderedJson& document, std::string_view source) {
  const JsonObject json(document, concat("[config] ", source));
  const FamilyDefaults& defaults = family_of(json);
  refuse_unsupported(json);
  ModelConfig c;
  c.family = defaults.family;
  read_sizes(json, defaults, c);
  c.rms_eps = json.number("rms_norm_eps", 0, 1).value_or(1e-6);
  read_rope(json, c);
  read_sliding_window(json, c);
  const bool reads_bias = c.family == "llama" || c.family == "qwen3";
  c.o_bias = reads_bias && json.boolean("attention_bias", false);
  c.qkv_bias = c.o_bias || c.family == "qwen2";
  c.mlp_bias = c.family == "llama" && json.boolean("mlp_bias", false);
  c.qk_norm = c.family == "qwen3";
  c.tied = json.boolean("tie_word_embeddings", false);
  c.eos_token_ids = json.token_ids("eos_token_id");
  c.bos_token_id = json.token_id("bos_token_id");
  c.pad_token_id = json.token_id("pad_token_id");
  detail::check_model_config(c, json.source());
  return c;
}

}  // namespace temper
