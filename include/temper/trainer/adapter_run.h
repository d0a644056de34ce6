#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "temper/nn/models.h"

namespace temper {

/// The adapter of a run, if it trains one instead of the model's own weights.
struct AdapterRunConfig {
  int64_t r = 0;
  double alpha = 16;
  std::vector<std::string> target_modules = {"all-linear"};
  std::vector<std::string> rank_pattern;
  std::vector<std::string> alpha_pattern;
  std::string target_pattern;
  bool use_rslora = false;
  bool use_dora = false;
  double dropout = 0;
  std::string path;
  bool save_merged = true;

  template <class V>
  void visit(V&& v) {
    v(r, "r", "Rank of a low-rank adapter (LoRA) that is trained while the model stays frozen, in trainer.weights of any type; 0: no adapter, unless path names one.");
    v(alpha, "alpha", "What the adapter adds is scaled by alpha / r, above 0.");
    v(target_modules, "target_modules", "Modules that get an adapter: names such as q_proj, ends of paths such as 1.mlp.down_proj, or all-linear for every linear module but the LM head.");
    v(rank_pattern, "rank_pattern", "Ranks of single modules, such as down_proj=4; the first match counts.");
    v(alpha_pattern, "alpha_pattern", "The same for alpha.");
    v(target_pattern, "target_pattern", "Instead of target_modules: a regular expression over whole module paths, such as .*\\.[0-9]\\.mlp\\..*_proj.");
    v(use_rslora, "use_rslora", "Scale by alpha / sqrt(r) instead.");
    v(use_dora, "use_dora", "DoRA: magnitudes of the output columns are trained too, and A and B move their directions.");
    v(dropout, "dropout", "Share of an adapter's inputs that training forwards leave out, in [0, 1). Above 0 a token's log-prob in training is not the one that it was sampled at.");
    v(path, "path", "Folder of an adapter in PEFT's format to go on from; its own settings hold instead of those above.");
    v(save_merged, "save_merged", "With trainer.save_model: write the model with the adapter merged into it besides the adapter.");
  }
  [[nodiscard]] bool used() const { return r > 0 || !path.empty(); }
  /// The settings of a new adapter. @throws Error naming the key.
  [[nodiscard]] AdapterConfig settings() const;
};

/// The policy that a run begins with, or goes on with from a checkpoint's folder: under an adapter
/// that is a frozen `model` with the adapter's weights on it. @throws Error where the checkpoint's
/// adapter is not the config's.
[[nodiscard]] PolicyModel load_run_policy(const std::string& model, WeightDType dtype,
                                          const AdapterRunConfig& adapter, uint64_t seed,
                                          const std::optional<std::filesystem::path>& checkpoint);

/// What of the policy a checkpoint holds: model/, or adapter/ alone. In float32.
void save_run_policy(const PolicyModel& policy, const std::filesystem::path& checkpoint);
/// Bytes that it writes, about.
[[nodiscard]] uint64_t run_policy_bytes(const PolicyModel& policy);

/// The frozen model that a policy is measured against: a copy in `dtype`, or for an adapter the
/// policy's own weights without it. @throws Error for an adapter in another `dtype` than its base.
[[nodiscard]] ReferenceModel run_reference(const PolicyModel& policy, WeightDType dtype);

/// The trained policy at a run's end: `run`/model, and for an adapter `run`/adapter.
/// @return the model's folder, or the adapter's where that is all.
std::filesystem::path save_trained_policy(const PolicyModel& policy,
                                          const AdapterRunConfig& adapter,
                                          const std::filesystem::path& run);

/// "adapter of rank 8, 0.4 M parameters" for a run's first line; empty without one.
[[nodiscard]] std::string adapter_line(const PolicyModel& policy);

}  // namespace temper
