#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "temper/data/tasks.h"
#include "temper/reward/builtin.h"
#include "temper/ops/reference.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/diagnosis.h"
#include "temper/trainer/evaluation.h"
#include "temper/trainer/grpo.h"
#include "temper/trainer/judge.h"
#include "temper/trainer/ppo.h"

namespace temper {

/// "same" and every weight type's name.
[[nodiscard]] std::vector<std::string> reference_weight_names();

/// The run itself: how long, what is kept, what is shown.
struct TrainerConfig {
  int64_t steps = 100;
  int64_t checkpoint_every = 0;
  int64_t keep_last = 2;
  bool keep_best = false;
  int64_t seed = 42;
  std::string weights = "float32";
  std::string reference_weights = "same";
  std::string reference_file;
  std::string kernels = "cpu";
  int64_t threads = 0;
  int64_t samples_per_step = 8;
  bool save_model = true;

  template <class V>
  void visit(V&& v) {
    v(steps, "steps", "Rollouts, each followed by its update; optimizer steps where preferences over own answers are learned.");
    v(checkpoint_every, "checkpoint_every", "Steps between checkpoints; 0: none while training.");
    v(keep_last, "keep_last", "Checkpoints kept, the newest ones, at least 1.");
    v(keep_best, "keep_best", "Keep the checkpoint with the best held-out score besides.");
    v(seed, "seed", "Of everything random: same seed, same bits.");
    v(weights, "weights", "What products read: float32, a bf16 or float16 copy of the float32 masters, or bf16 on both sides (the fastest). Under an adapter there are no masters, and int8 and q4 (blocks of 4 bits) are choices too.", weight_dtype_names());
    v(reference_weights, "reference_weights", "The same for the frozen reference of a KL: the type of trainer.weights, or another; int8 takes a quarter of float32's bytes.", reference_weight_names());
    v(reference_file, "reference_file", "Panel file that the frozen reference is mapped from, shared by all processes that name it; made where it is not there or is of another model or type. Empty: a copy in memory.");
    v(kernels, "kernels", "cpu, or reference: every op in plain ATen, slow, to compare with; sampled and trained log-probs then differ by rounding.", ops::kernel_names());
    v(threads, "threads", "Threads; 0: all cores. No result depends on it.");
    v(samples_per_step, "samples_per_step", "Completions of each step that go to completions.jsonl and the report.");
    v(save_model, "save_model", "Write the trained model as a Hugging Face folder at the end.");
  }
};

/// Rewards that models give, besides those of rules.
struct ModelRewardConfig {
  std::vector<std::string> models;
  std::string rule = "mean";
  double uncertainty = 1;
  double weight = 1;
  std::string weights = "bfloat16";
  bool share_reference = false;

  template <class V>
  void visit(V&& v) {
    v(models, "models", "Folders of reward models (sequence classification with one label); more than one: an ensemble.");
    v(rule, "rule", "What an ensemble says: the mean, the least, or the mean less what the models disagree on.", {"mean", "min", "mean_minus_std", "mean_minus_variance"});
    v(uncertainty, "uncertainty", "mean_minus_...: how many times the deviation or variance is taken off, at least 0.");
    v(weight, "weight", "Weight in the sum of all rewards; its name there is reward_model.");
    v(weights, "weights", "What the frozen models' products read; see trainer.weights.", weight_dtype_names());
    v(share_reference, "share_reference", "The models are heads on the run's reference, whose weights they then have (compared bit for bit): no backbone of their own is kept.");
  }
};

/// The rewards of rules, and how long any but a model's may take.
struct RunRewardConfig : RewardConfig {
  double timeout_seconds = 0;

  template <class V>
  void visit(V&& v) {
    RewardConfig::visit(v);
    v(timeout_seconds, "timeout_seconds", "Seconds that a reward may take for a step's completions before the run stops and says which; 0: any. Models are not timed.");
  }
};

/// What every online run can be told besides its algorithm.
struct OnlineRunConfig {
  std::string model;
  AdapterRunConfig adapter;
  TrainerConfig trainer;
  TaskConfig task;
  std::string data_path;
  RunRewardConfig reward;
  ModelRewardConfig reward_model;
  JudgeConfig judge;
  RolloutConfig rollout;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  EvalConfig eval;
  DiagnosisConfig diagnosis;

  /// @param algorithm  its settings. @param section  their name.
  template <class V, class A>
  void visit_with(V&& v, A& algorithm, std::string_view section) {
    v(model, "model", "GGUF file, Hugging Face folder or hub id in the local cache.");
    v(adapter, "adapter");
    v(trainer, "trainer");
    v(task, "task");
    v(data_path, "data.path", "Training file for tasks that read one; the same as task.path.");
    v(reward, "reward");
    v(reward_model, "reward_model");
    v(judge, "judge");
    v(rollout, "rollout");
    v(algorithm, section);
    v(optimizer, "optimizer");
    v(schedule, "schedule");
    v(eval, "eval");
    v(diagnosis, "diagnosis");
  }
};

/// Everything that `temper train grpo` can be told. Written to the run folder, complete.
struct GrpoRunConfig : OnlineRunConfig {
  GrpoConfig grpo;

  template <class V>
  void visit(V&& v) {
    visit_with(v, grpo, "grpo");
  }
};

/// The same of `temper train ppo`.
struct PpoRunConfig : OnlineRunConfig {
  PpoConfig ppo;

  template <class V>
  void visit(V&& v) {
    visit_with(v, ppo, "ppo");
  }
};

/// Defaults, then a JSON file's content (may be empty), then "key=value" assignments.
/// @throws Error naming source and key; see core/config.h.
[[nodiscard]] GrpoRunConfig read_grpo_config(const std::string& json_text, const std::string& source,
                                             const std::vector<std::string>& assignments);
[[nodiscard]] PpoRunConfig read_ppo_config(const std::string& json_text, const std::string& source,
                                           const std::vector<std::string>& assignments);

/// The complete configuration as JSON text.
[[nodiscard]] std::string config_text(GrpoRunConfig config);
[[nodiscard]] std::string config_text(PpoRunConfig config);

/// The batch arithmetic of a run in words: sequences, tokens and optimizer steps a step.
[[nodiscard]] std::string describe_batch(const GrpoRunConfig& config);
[[nodiscard]] std::string describe_batch(const PpoRunConfig& config);

}  // namespace temper
