#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "temper/trainer/adapter_run.h"
#include "temper/trainer/answer_probe.h"
#include "temper/trainer/offline.h"
#include "temper/trainer/reward_run.h"

namespace temper {

/// Where rows come from and how they become tokens.
struct OfflineDataConfig {
  std::string path;
  std::string eval_path;
  double held_out_fraction = 0;
  std::string loss_on = "answer";
  TokenLimit limit;
  CompletionReadOptions read;

  template <class V>
  void visit(V&& v) {
    v(path, "path", "File of rows (JSON Lines, a JSON array or CSV; JSON may be gzip).");
    v(eval_path, "eval_path", "File of held-out rows; empty: see held_out_fraction.");
    v(held_out_fraction, "held_out_fraction",
      "Share of the file's prompts held out where there is no eval_path, in [0, 1).");
    v(loss_on, "loss_on",
      "Of single answers, the tokens that count: the answer behind its prompt (of a text or a "
      "conversation without one: all), all tokens, or what the assistant writes in every turn.",
      {"answer", "all", "assistant"});
    v(limit, "limit");
    v(read, "read");
  }
};

/// Everything that `temper train sft`, `dpo` and their family can be told. Written to the run
/// folder, complete.
struct OfflineRunConfig {
  std::string model;
  RewardRunLength trainer;
  OfflineDataConfig data;
  OfflineConfig offline;
  OfflineLoss loss;
  AdapterRunConfig adapter;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  RewardEvalConfig eval;
  ProbeConfig probe;
  DiagnosisConfig diagnosis;

  template <class V>
  void visit(V&& v) {
    v(model, "model",
      "Language model to train: GGUF file, Hugging Face folder or hub id in the local cache.");
    v(trainer, "trainer");
    v(data, "data");
    v(offline, "offline");
    v(loss, "loss");
    v(adapter, "adapter");
    v(optimizer, "optimizer");
    v(schedule, "schedule");
    v(eval, "eval");
    v(probe, "probe");
    v(diagnosis, "diagnosis");
  }
};

/// A method's name, loss and defaults.
struct OfflineMethod {
  std::string name;  ///< Of the command, and of the loss.
  std::string doc;
  double learning_rate = 1e-6;
};

/// The methods that `temper train` knows, `sft` and `dpo` first.
[[nodiscard]] const std::vector<OfflineMethod>& offline_methods();

/// The method's defaults, then a JSON file's content (may be empty), then "key=value" assignments.
/// @throws Error naming source and key; see core/config.h.
[[nodiscard]] OfflineRunConfig read_offline_config(std::string_view method,
                                                   const std::string& json_text,
                                                   const std::string& source,
                                                   const std::vector<std::string>& assignments);

/// The rows that a run trains on, as its model reads them. @throws Error as `train_offline` does.
[[nodiscard]] TokenizedAnswers training_rows(const OfflineRunConfig& config, const ModelText& text);

/// The complete configuration as JSON text.
[[nodiscard]] std::string config_text(OfflineRunConfig config);

/// How long the run is and what a step takes, in words.
[[nodiscard]] std::string describe_batch(const OfflineRunConfig& config);

/// Trains a policy on given answers from a config: reads the rows, evaluates held-out ones before
/// and after, writes metrics, checkpoints, the trained model and report.html. A run killed at any
/// moment and resumed ends with the same weights and metrics, bit for bit, as one never killed.
/// @throws Error for bad settings or data before anything is trained; an error while training
/// leaves the run folder with everything up to the last step.
[[nodiscard]] RunResult train_offline(const OfflineRunConfig& config, const RunOptions& options);

}  // namespace temper
