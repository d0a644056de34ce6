#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "temper/data/tasks.h"
#include "temper/reward/builtin.h"
#include "temper/ops/reference.h"
#include "temper/trainer/diagnosis.h"
#include "temper/trainer/evaluation.h"
#include "temper/trainer/grpo.h"

namespace temper {

/// The run itself: how long, what is kept, what is shown.
struct TrainerConfig {
  int64_t steps = 100;
  int64_t checkpoint_every = 0;
  int64_t keep_last = 2;
  bool keep_best = false;
  int64_t seed = 42;
  std::string weights = "float32";
  std::string kernels = "cpu";
  int64_t threads = 0;
  int64_t samples_per_step = 8;
  bool save_model = true;

  template <class V>
  void visit(V&& v) {
    v(steps, "steps", "Rollouts, each followed by its update.");
    v(checkpoint_every, "checkpoint_every", "Steps between checkpoints; 0: none while training.");
    v(keep_last, "keep_last", "Checkpoints kept, the newest ones, at least 1.");
    v(keep_best, "keep_best", "Keep the checkpoint with the best held-out score besides.");
    v(seed, "seed", "Of everything random: same seed, same bits.");
    v(weights, "weights", "What products read: float32, a bf16 or float16 copy of the float32 masters, or bf16 on both sides (the fastest).", weight_dtype_names());
    v(kernels, "kernels", "cpu, or reference: every op in plain ATen, slow, to compare with; sampled and trained log-probs then differ by rounding.", ops::kernel_names());
    v(threads, "threads", "Threads; 0: all cores. No result depends on it.");
    v(samples_per_step, "samples_per_step", "Completions of each step that go to completions.jsonl and the report.");
    v(save_model, "save_model", "Write the trained model as a Hugging Face folder at the end.");
  }
};

/// Everything that `temper train grpo` can be told. Written to the run folder, complete.
struct GrpoRunConfig {
  std::string model;
  TrainerConfig trainer;
  TaskConfig task;
  std::string data_path;
  RewardConfig reward;
  RolloutConfig rollout;
  GrpoConfig grpo;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  EvalConfig eval;
  DiagnosisConfig diagnosis;

  template <class V>
  void visit(V&& v) {
    v(model, "model", "GGUF file, Hugging Face folder or hub id in the local cache.");
    v(trainer, "trainer");
    v(task, "task");
    v(data_path, "data.path", "Training file for tasks that read one; the same as task.path.");
    v(reward, "reward");
    v(rollout, "rollout");
    v(grpo, "grpo");
    v(optimizer, "optimizer");
    v(schedule, "schedule");
    v(eval, "eval");
    v(diagnosis, "diagnosis");
  }
};

/// Defaults, then a JSON file's content (may be empty), then "key=value" assignments.
/// @throws Error naming source and key; see core/config.h.
[[nodiscard]] GrpoRunConfig read_grpo_config(const std::string& json_text, const std::string& source,
                                             const std::vector<std::string>& assignments);

/// The complete configuration as JSON text.
[[nodiscard]] std::string config_text(GrpoRunConfig config);

/// The batch arithmetic of a run in words: sequences, tokens and optimizer steps a step.
[[nodiscard]] std::string describe_batch(const GrpoRunConfig& config);

}  // namespace temper
