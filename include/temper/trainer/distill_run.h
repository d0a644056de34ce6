#pragma once

#include <string>
#include <vector>

#include "temper/trainer/adapter_run.h"
#include "temper/trainer/diagnosis.h"
#include "temper/trainer/distill.h"
#include "temper/trainer/offline_run.h"

namespace temper {

/// Everything that `temper train distill` can be told. Written to the run folder, complete.
struct DistillRunConfig {
  std::string model;
  RewardRunLength trainer;
  OfflineDataConfig data;
  DistillConfig distill;
  RolloutConfig rollout{.temperature = 0.9, .max_new_tokens = 128};
  AdapterRunConfig adapter;
  OptimizerConfig optimizer;
  ScheduleConfig schedule{.learning_rate = 2e-5};
  RewardEvalConfig eval;
  DiagnosisConfig diagnosis;

  template <class V>
  void visit(V&& v) {
    v(model, "model",
      "The student: GGUF file, Hugging Face folder or hub id in the local cache.");
    v(trainer, "trainer");
    v(data, "data");
    v(distill, "distill");
    v(rollout, "rollout");
    v(adapter, "adapter");
    v(optimizer, "optimizer");
    v(schedule, "schedule");
    v(eval, "eval");
    v(diagnosis, "diagnosis");
  }
};

/// Defaults, then a JSON file's content (may be empty), then "key=value" assignments.
/// @throws Error naming source and key; see core/config.h.
[[nodiscard]] DistillRunConfig read_distill_config(const std::string& json_text,
                                                   const std::string& source,
                                                   const std::vector<std::string>& assignments);

/// The complete configuration as JSON text.
[[nodiscard]] std::string config_text(DistillRunConfig config);

/// How long the run is and what a step takes, in words.
[[nodiscard]] std::string describe_batch(const DistillRunConfig& config);

/// Distils from a config: reads the rows, evaluates held-out ones before and after, writes metrics,
/// checkpoints, the trained model or adapter and report.html. A run killed at any moment and resumed
/// ends with the same weights and metrics, bit for bit, as one never killed.
/// `HeldOutScore::correct` counts held-out tokens where student and teacher agree.
/// @throws Error for bad settings or data before anything is trained; an error while training
/// leaves the run folder with everything up to the last step.
[[nodiscard]] RunResult train_distill(const DistillRunConfig& config, const RunOptions& options);

}  // namespace temper
