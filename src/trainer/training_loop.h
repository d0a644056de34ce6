#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "temper/trainer/diagnosis.h"
#include "temper/trainer/run.h"
#include "temper/trainer/run_folder.h"

namespace temper {

/// The checkpoint to go on from. Makes no folder; one that cannot be used is refused here, before a
/// model is loaded.
[[nodiscard]] std::optional<Checkpoint> find_checkpoint(const RunOptions& options);

/// What a loop over optimizer steps needs of a trainer.
class LoopTrainer {
 public:
  virtual ~LoopTrainer() = default;
  [[nodiscard]] virtual int64_t steps_done() const = 0;
  [[nodiscard]] virtual int64_t total_steps() const = 0;
  [[nodiscard]] virtual double epoch() const = 0;
  /// One optimizer step; metrics hold step_time.
  [[nodiscard]] virtual Metrics step() = 0;
  /// Completions of that step, for people to read.
  [[nodiscard]] virtual std::span<const SampleCompletion> samples() const { return {}; }
  /// Scores held-out data; nothing where there is none.
  [[nodiscard]] virtual std::optional<HeldOutScore> evaluate() = 0;
  /// Of two evaluations the one with the higher number is better.
  [[nodiscard]] virtual double goodness(const HeldOutScore& score) const = 0;
  virtual void save(const std::filesystem::path& folder) const = 0;
  [[nodiscard]] virtual uint64_t checkpoint_bytes() const = 0;
  /// Writes the trained model into the run's folder. @return where it is.
  [[nodiscard]] virtual std::filesystem::path save_model(const std::filesystem::path& run) const = 0;
};

/// How often a loop evaluates and keeps, and what it says of itself.
struct LoopSettings {
  int64_t eval_every = 0;  ///< As RewardEvalConfig::every.
  int64_t checkpoint_every = 0;
  int64_t keep_last = 2;
  bool keep_best = false;
  bool save_model = true;
  std::string config;     ///< The complete configuration.
  std::string model;      ///< One line about it.
  std::string eval_data;  ///< Name of the held-out data.
  /// Keys of [trainer] and their values that a resumed run must have, unless forced.
  std::vector<std::pair<std::string, std::string>> numerics;
  DiagnosisConfig diagnosis = {};
};

/// Steps, evaluations, checkpoints, report: a run over a trainer that only has to know its step.
class TrainingLoop {
 public:
  /// @param checkpoint  what the trainer was restored from, or nothing: a new run.
  TrainingLoop(LoopTrainer& trainer, LoopSettings settings, const RunOptions& options,
               const std::optional<Checkpoint>& checkpoint);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_.path(); }
  RunResult run();

 private:
  void restore(const Checkpoint& checkpoint);
  void each(const std::function<void(Observer&)>& call) const;
  HeldOutScore run_eval();
  void train();
  void one_step();
  void after_step();
  void checkpoint();
  void finish();

  LoopTrainer& trainer_;
  LoopSettings settings_;
  Diagnosis diagnosis_;
  const RunOptions& options_;
  RunFolder folder_;
  RunResult result_;
  double best_score_ = 0;
  int64_t best_step_ = 0;  ///< 0: none yet.
};

}  // namespace temper
