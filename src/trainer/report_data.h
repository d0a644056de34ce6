#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "temper/trainer/observer.h"
#include "temper/trainer/svg_chart.h"

namespace temper {

/// One line of eval.jsonl.
struct EvalRecord {
  int64_t step = 0;
  std::string data;
  int64_t correct = 0;
  int64_t count = 0;
};

/// What the files of a run folder say. Everything in it came from files: nothing is to be trusted.
struct RunData {
  std::string name;                                         ///< Of the folder.
  std::vector<std::pair<std::string, std::string>> config;  ///< Dotted name, value as text.
  std::map<std::string, std::vector<ChartPoint>> metrics;   ///< By rising step.
  std::vector<EvalRecord> evals;                            ///< By rising step.
  std::vector<SampleCompletion> early;
  std::vector<SampleCompletion> late;
  std::vector<Alarm> alarms;
  int64_t first_step = 0;
  int64_t last_step = 0;
  double last_time = 0;  ///< Of the last line of metrics.jsonl, seconds since 1970; 0 if unknown.
  std::vector<std::string> problems;  ///< Sentences on what could not be read.
};

/// @throws Error if the folder does not exist or has none of the files.
[[nodiscard]] RunData read_run(const std::filesystem::path& folder);

/// `text` shortened to `limit` bytes at a character boundary, with a note of what was left out.
[[nodiscard]] std::string shortened(const std::string& text, size_t limit);

}  // namespace temper
