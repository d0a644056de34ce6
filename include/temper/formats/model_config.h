#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

/// Llama 3's stretching of rope frequencies. With wavelength w = 2 pi / inv_freq: w < L/h is kept,
/// w > L/l is divided by f, and between them the two are blended linearly in L/w.
struct RopeScaling {
  std::string type;                    ///< "llama3"; other kinds are refused when a config is read.
  double factor = 1.0;                 ///< f >= 1.
  double low_freq_factor = 1.0;        ///< l > 0.
  double high_freq_factor = 4.0;       ///< h > l.
  int64_t original_max_positions = 0;  ///< L, the context of pretraining, in tokens.
};

/// The shape of a causal language model, as config.json or a GGUF file states it. Every size has
/// been checked to lie in a range that later arithmetic cannot overflow.
struct ModelConfig {
  std::string
      family;  ///< "llama", "mistral", "qwen2" or "qwen3" (the `model_type` of config.json).
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;    ///< Divides `heads`.
  int64_t head_dim = 0;    ///< Even; heads * head_dim may differ from hidden_size.
  int64_t vocab_size = 0;  ///< Rows of the embedding; may exceed the tokenizer's size.
  int64_t max_positions = 0;
  double rms_eps = 1e-6;
  double rope_theta = 1e4;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  ///< RMSNorm over head_dim of q and k, before rope.
  bool tied = false;     ///< lm_head is the embedding; the file holds it once.
  /// A query sees itself and the `sliding_window - 1` positions before it, in sliding layers.
  std::optional<int64_t> sliding_window;
  std::vector<bool> sliding_layers;  ///< One a layer when `sliding_window` is set, else empty.
  std::optional<RopeScaling> rope_scaling;
  std::vector<int32_t> eos_token_ids;  ///< Any of them ends a completion.
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
};

/// Reads a config.json in the spelling of transformers 4 or 5. Absent keys take the defaults of the
/// family's class in transformers.
/// @param source  names the file in errors.
/// @throws Error naming the key for a missing, mistyped or out-of-range value, and naming the
/// family, activation, rope scaling or quantisation when it is one that Temper does not run.
[[nodiscard]] ModelConfig parse_model_config(const nlohmann::ordered_json& json,
                                             std::string_view source);

/// The config.json of `config`, in a spelling that transformers 4 and 5 both read.
/// @param original  the file that the model came from, or nullptr; its unknown keys are kept.
[[nodiscard]] nlohmann::ordered_json model_config_json(const ModelConfig& config,
                                                       const nlohmann::ordered_json* original);

}  // namespace temper
