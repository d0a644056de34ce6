#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/formats/hf_folder.h"
#include "temper/formats/tensor_view.h"

namespace temper {

/// A low-rank adapter's settings (Hu et al. 2021, https://arxiv.org/abs/2106.09685), as PEFT's
/// LoraConfig names them. A module with weight W [out, in] computes x W^T + s (x A^T) B^T, with A
/// [r, in], B [out, r] and s = alpha / r, or alpha / sqrt(r) with `use_rslora` (Kalajdzievski 2023,
/// https://arxiv.org/abs/2312.03732). With `use_dora` (Liu et al. 2024,
/// https://arxiv.org/abs/2402.09353) it is g (x W^T + s (x A^T) B^T) instead, an output column's g
/// being its magnitude m over the norm of its row of W + s B A.
struct AdapterConfig {
  int64_t r = 8;      ///< Rank, in [1, kMaxAdapterRank].
  double alpha = 16;  ///< Above 0.
  /// Names ("q_proj") or ends of module paths ("1.mlp.down_proj"); {"all-linear"}: every linear
  /// module but the LM head.
  std::vector<std::string> target_modules = {"all-linear"};
  /// Instead of `target_modules` where it is not empty: a regular expression over whole module paths.
  std::string target_pattern;
  /// Ranks and alphas of single modules: the first key that is a module's name or the end of its
  /// path counts, the whole path where it begins with '^'.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  bool use_rslora = false;
  bool use_dora = false;
  double dropout = 0;  ///< In [0, 1): of a module's input on its way to A, in training forwards.
  /// Of a model that ends in a scalar head (task_type SEQ_CLS), which the folder holds too.
  bool scores = false;
  std::string base_model;  ///< Where the base came from; a note.

  /// @throws Error naming the field and its range.
  void validate() const;
  /// Whether `module` ("model.layers.0.self_attn.q_proj") is a target.
  [[nodiscard]] bool targets(std::string_view module) const;
  [[nodiscard]] int64_t rank_of(std::string_view module) const;
  /// s of a module.
  [[nodiscard]] double scale_of(std::string_view module) const;
};
inline constexpr int64_t kMaxAdapterRank = 4096;

/// Reads adapter_config.json, a file from elsewhere. Options that would change the numbers and that
/// are not supported are refused by name unless they have their default: bias, lora_bias,
/// fan_in_fan_out, modules_to_save other than a scalar head, layer_replication, ... and any that is not known.
/// @param source  names the file in errors.
[[nodiscard]] AdapterConfig parse_adapter_config(std::string_view json_text,
                                                 std::string_view source);
/// The file's text, with every key that PEFT needs.
[[nodiscard]] std::string adapter_config_json(const AdapterConfig& config);

/// An adapter folder that was found and checked: its matrices are views of the mapped file.
struct PeftAdapter {
  struct Module {
    TensorView a;  ///< [r, in]
    TensorView b;  ///< [out, r]
    TensorView m;  ///< [out], with `use_dora`.
  };
  std::string source;  ///< The weight file.
  AdapterConfig config;
  std::map<std::string, Module, std::less<>> modules;  ///< By path, "model.layers.0.mlp.up_proj".
  TensorView score;  ///< [1, width], the head of one with `config.scores`.
};

/// Opens a folder of adapter_config.json and adapter_model.safetensors. Which modules it adapts is
/// what the weight file says. Links may lead within the folder or hub cache alone.
/// @throws Error naming the file and the rule that it breaks: a name that is none of an A or B, one
/// without the other, a shape that its module's rank contradicts, a target without weights.
[[nodiscard]] PeftAdapter open_peft_adapter(const std::filesystem::path& folder);

/// "base_model.model.<module>.lora_A.weight" and the same of B.
[[nodiscard]] std::string peft_name_a(std::string_view module);
[[nodiscard]] std::string peft_name_b(std::string_view module);
/// "base_model.model.<module>.lora_magnitude_vector".
[[nodiscard]] std::string peft_name_m(std::string_view module);
/// "base_model.model.score.weight".
[[nodiscard]] std::string peft_name_score();

/// Writes such a folder, float32, the config as the last: an interrupted write leaves no folder that
/// looks complete. @param tensors  named by the functions above.
void write_peft_adapter(const std::filesystem::path& folder, const AdapterConfig& config,
                        std::span<const WriteTensor> tensors);

}  // namespace temper
