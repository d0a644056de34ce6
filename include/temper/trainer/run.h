#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "temper/trainer/observer.h"
#include "temper/trainer/run_config.h"

namespace temper {

/// Where a run goes and who watches it.
struct RunOptions {
  std::filesystem::path output;
  bool resume = false;  ///< Go on from the newest complete checkpoint of `output`, if there is one.
  bool force = false;   ///< Resume though trainer.weights or trainer.kernels are not the checkpoint's.
  std::vector<std::shared_ptr<Observer>> observers;
  /// Rewards that are not in the config, before its own: the first one decides what counts as
  /// correct in evaluations. With weight 0 one is logged and evaluated but moves nothing.
  std::vector<NamedReward> rewards;
  std::function<bool()> stop_requested;  ///< Asked after each step; true saves a checkpoint and ends.
};

/// A score on held-out prompts.
struct HeldOutScore {
  int64_t correct = 0;
  int64_t count = 0;
  Metrics metrics;
};

struct RunResult {
  int64_t steps = 0;
  bool completed = false;
  std::string reason;  ///< Why it ended early.
  HeldOutScore before;  ///< count 0 when it was not measured in this process (a resumed run).
  HeldOutScore after;
  double train_seconds = 0;  ///< Steps alone, without evaluations, checkpoints and start-up.
  std::filesystem::path model;  ///< The trained model's folder; empty when not saved.
};

/// Progress bar, metrics.jsonl and its companions, TensorBoard.
[[nodiscard]] std::vector<std::shared_ptr<Observer>> default_observers();

/// Trains by GRPO, or by PPO, from a config: loads model, task and rewards, evaluates on held-out prompts before
/// and after, watches the run, writes checkpoints, the trained model and report.html. A run killed at
/// any moment and resumed ends with the same weights and metrics, bit for bit, as one never killed.
/// @throws Error for bad settings before anything is trained; an error while training leaves the run
/// folder with everything up to the last step.
[[nodiscard]] RunResult train_grpo(const GrpoRunConfig& config, const RunOptions& options);
[[nodiscard]] RunResult train_ppo(const PpoRunConfig& config, const RunOptions& options);

}  // namespace temper
