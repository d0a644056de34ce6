#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "temper/core/metrics.h"

namespace temper {

/// What is known when a run starts or resumes.
struct RunInfo {
  std::filesystem::path folder;  ///< The run folder; it exists.
  std::string config_json;       ///< The complete configuration.
  int64_t total_steps = 0;       ///< Optimizer steps of the whole run, resumed part included.
  int64_t start_step = 0;        ///< Steps already done: 0, or the step of the checkpoint resumed.
  std::string model;             ///< One line about the model: name, parameters, precision.
  std::string program_version;
};

/// One completion of a step with the rewards that it got.
struct SampleCompletion {
  int64_t step = 0;
  std::string prompt;
  std::string completion;
  std::vector<std::pair<std::string, double>> rewards;  ///< (reward function, value).
  double advantage = 0;
  int64_t tokens = 0;      ///< Completion length in tokens.
  bool truncated = false;  ///< Ended by the length limit, not by a stop token.
};

/// A finished optimizer step. Steps count from 1: the event of step k is sent when k steps are
/// done. The references live only as long as the call.
struct StepEvent {
  int64_t step = 0;
  int64_t total_steps = 0;
  double seconds = 0;  ///< Wall-clock time that this step took.
  double epoch = 0;    ///< Passes over the data so far, fractions included.
  const Metrics& metrics;
  std::span<const SampleCompletion> samples;
};

/// A finished evaluation on held-out data after `step` steps; step 0 is before training.
struct EvalEvent {
  int64_t step = 0;
  std::string data;     ///< Name of the held-out data.
  int64_t correct = 0;  ///< Right answers, for accuracies; 0 of 0 when there is no such notion.
  int64_t count = 0;    ///< Answers that were judged.
  double seconds = 0;
  const Metrics& metrics;
};

/// Something that a person should read, in words.
struct Alarm {
  int64_t step = 0;
  std::string kind;      ///< A stable short name, such as "truncation".
  std::string sentence;  ///< What was seen, with its numbers, and what to do.
  bool stop = false;     ///< The run is to stop after this step.
};

/// The end of a run.
struct EndEvent {
  int64_t step = 0;  ///< Steps done.
  int64_t total_steps = 0;
  double seconds = 0;      ///< Wall-clock time since start or resume.
  bool completed = false;  ///< All steps were done.
  std::string reason;      ///< Why it stopped early; empty when completed.
};

/// Sees what a trainer does. All calls come from the trainer's thread, in order; an observer must
/// not change what is trained, so runs with and without it have the same bits. An exception stops
/// the run.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_start(const RunInfo& /*info*/) {}
  virtual void on_step(const StepEvent& /*event*/) {}
  virtual void on_eval(const EvalEvent& /*event*/) {}
  /// A checkpoint of `step` is complete in `folder`.
  virtual void on_checkpoint(int64_t /*step*/, const std::filesystem::path& /*folder*/) {}
  virtual void on_alarm(const Alarm& /*alarm*/) {}
  virtual void on_end(const EndEvent& /*event*/) {}
};

}  // namespace temper
