#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/formats/model_config.h"

namespace temper {

/// Rows of quantized blocks of 32 weights: a weight is float32(scale * code + minimum).
struct WeightBlocks {
  int bits = 4;                ///< 4: codes in [0, 15]; 8: codes in [-128, 127].
  std::vector<uint8_t> codes;  ///< [rows, k], one a byte; two's complement where they are signed.
  std::vector<uint16_t> scales;    ///< [rows, ceil(k / 32)] IEEE half precision.
  std::vector<uint16_t> minimums;  ///< As `scales`, or empty: -8 scales of 4 bits, 0 of 8.
};

/// A model's weights under their Hugging Face names ("model.layers.0.self_attn.q_proj.weight") and
/// in their layout (Linear weights [out, in], row-major, rotate-half rope), whatever the file was.
/// Reads are const and safe from several threads.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  [[nodiscard]] virtual std::vector<std::string> names() const = 0;
  [[nodiscard]] virtual bool has(std::string_view name) const = 0;
  /// @throws Error naming the file when there is no such tensor.
  [[nodiscard]] virtual std::vector<int64_t> shape(std::string_view name) const = 0;
  /// Widens or dequantises into `out`, which has exactly the tensor's number of elements.
  virtual void read_float(std::string_view name, std::span<float> out) const = 0;
  /// Whether the file holds a tensor in quantized blocks of any kind.
  [[nodiscard]] virtual bool quantized(std::string_view name) const;
  /// A matrix as the file holds it, where that is in blocks of 32 (GGUF's Q4_0, Q4_1 and Q8_0).
  [[nodiscard]] virtual std::optional<WeightBlocks> read_blocks(std::string_view name) const;
};

/// The token ids of generation_config.json; config.json's where that file is silent.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
};

/// Whole contents of the files beside the weights; an empty string means that there is no such
/// file. For a GGUF model they are composed from its vocabulary.
struct TokenizerFiles {
  std::string tokenizer_json;
  std::string sentencepiece_model;  ///< tokenizer.model, bytes.
  std::string tokenizer_config_json;
  std::string generation_config_json;
  std::string special_tokens_map_json;
  std::string added_tokens_json;
  std::string vocab_json;
  std::string merges_txt;
};

/// A model that was found and checked but not loaded: weights are read on demand.
struct ModelSource {
  std::string path;  ///< The file or folder that it was found in.
  ModelConfig config;
  std::string config_json;  ///< The file as it stands; empty for GGUF.
  std::shared_ptr<const WeightSource> weights;
  TokenizerFiles tokenizer;
  std::string chat_template;  ///< Jinja source; empty when the model has none.
  GenerationConfig generation;
};

/// Opens what `spec` names: a GGUF file, a Hugging Face folder, or a hub id ("org/name") that is in
/// the local hub cache. A file or folder of that name wins over the cache. Never uses the network.
/// @throws Error naming the file and the rule that it breaks, or, for an id that is not there, the
/// folder looked in and the command that fetches it.
[[nodiscard]] ModelSource open_model(std::string_view spec);

/// The folder that holds hub id `id`'s files, by the rules of huggingface_hub: HF_HUB_CACHE, else
/// HUGGINGFACE_HUB_CACHE, else HF_HOME/hub, else (XDG_CACHE_HOME or ~/.cache)/huggingface/hub.
/// @throws Error as `open_model` does.
[[nodiscard]] std::filesystem::path find_in_hub_cache(std::string_view id);

}  // namespace temper
