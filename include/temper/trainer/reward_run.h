#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/nn/causal_lm.h"
#include "temper/ops/reference.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/reward_trainer.h"
#include "temper/trainer/run.h"

namespace temper {

/// Where preference pairs come from.
struct RewardDataConfig {
  std::string path;
  std::string eval_path;
  double held_out_fraction = 0;
  int64_t max_length = 1024;
  PreferenceReadOptions read;

  template <class V>
  void visit(V&& v) {
    v(path, "path", "File of pairs (JSON Lines or a JSON array, may be gzip).");
    v(eval_path, "eval_path", "File of held-out pairs; empty: see held_out_fraction.");
    v(held_out_fraction, "held_out_fraction",
      "Share of the file's prompts held out where there is no eval_path, in [0, 1).");
    v(max_length, "max_length",
      "Pairs with a side of more tokens are left out, not cut; at least 1.");
    v(read, "read");
  }
};

/// The run itself: how long, what is kept.
struct RewardRunLength {
  int64_t steps = 0;
  double epochs = 1;
  int64_t checkpoint_every = 0;
  int64_t keep_last = 2;
  bool keep_best = false;
  int64_t seed = 42;
  std::string weights = "float32";
  std::string kernels = "cpu";
  int64_t threads = 0;
  bool save_model = true;

  template <class V>
  void visit(V&& v) {
    v(steps, "steps", "Optimizer steps; 0: as many as epochs take.");
    v(epochs, "epochs", "Passes over the pairs, above 0; read where steps is 0.");
    v(checkpoint_every, "checkpoint_every", "Steps between checkpoints; 0: none while training.");
    v(keep_last, "keep_last", "Checkpoints kept, the newest ones, at least 1.");
    v(keep_best, "keep_best", "Keep the checkpoint with the best held-out accuracy besides.");
    v(seed, "seed", "Of everything random: same seed, same bits.");
    v(weights, "weights",
      "What products read: float32, a bf16 or float16 copy of the float32 masters, or bf16 on both "
      "sides (the fastest). Under an adapter there are no masters, and int8 and q4 are choices too.",
      weight_dtype_names());
    v(kernels, "kernels", "cpu, or reference: every op in plain ATen, slow, to compare with.",
      ops::kernel_names());
    v(threads, "threads", "Threads; 0: all cores. No result depends on it.");
    v(save_model, "save_model", "Write the trained model as a Hugging Face folder at the end.");
  }
};

/// Held-out evaluation while training.
struct RewardEvalConfig {
  int64_t every = 0;
  int64_t pairs = 0;

  template <class V>
  void visit(V&& v) {
    v(every, "every", "Steps between evaluations; 0: before and after training only; -1: never.");
    v(pairs, "pairs", "Held-out pairs, the first ones; 0: all.");
  }
};

/// Everything that `temper train reward` can be told. Written to the run folder, complete.
struct RewardRunConfig {
  std::string model;
  RewardRunLength trainer;
  RewardDataConfig data;
  RewardTrainingConfig reward;
  OptimizerConfig optimizer;
  ScheduleConfig schedule{.learning_rate = 1e-4};
  RewardEvalConfig eval;
  DiagnosisConfig diagnosis;
  AdapterRunConfig adapter;

  template <class V>
  void visit(V&& v) {
    v(model, "model",
      "Language model (its LM head is left out, a reward head added) or reward model: GGUF file, "
      "Hugging Face folder or hub id in the local cache.");
    v(trainer, "trainer");
    v(data, "data");
    v(reward, "reward");
    v(optimizer, "optimizer");
    v(schedule, "schedule");
    v(eval, "eval");
    v(diagnosis, "diagnosis");
    v(adapter, "adapter");
  }
};

/// Defaults, then a JSON file's content (may be empty), then "key=value" assignments.
/// @throws Error naming source and key; see core/config.h.
[[nodiscard]] RewardRunConfig read_reward_config(const std::string& json_text,
                                                 const std::string& source,
                                                 const std::vector<std::string>& assignments);

/// The complete configuration as JSON text.
[[nodiscard]] std::string config_text(RewardRunConfig config);

/// How long the run is and what a step takes, in words.
[[nodiscard]] std::string describe_batch(const RewardRunConfig& config);

/// Trains a reward model from a config: reads the pairs, evaluates held-out ones before and after,
/// writes metrics, checkpoints, the trained model and report.html. A run killed at any moment and
/// resumed ends with the same weights and metrics, bit for bit, as one never killed.
/// @throws Error for bad settings or data before anything is trained; an error while training
/// leaves the run folder with everything up to the last step.
[[nodiscard]] RunResult train_reward(const RewardRunConfig& config, const RunOptions& options);

}  // namespace temper
