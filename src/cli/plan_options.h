#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "temper/trainer/plan.h"

namespace temper::cli {

/// What `temper plan` is told.
struct PlanOptions {
  std::string config_file;
  std::vector<std::string> assignments;
  std::string model;
  std::string algorithm;
  std::string memory;
  std::vector<std::string> scale;
  std::optional<int64_t> prompt_tokens;
  std::optional<int64_t> mean_tokens;
  std::optional<double> gflops;
  bool json = false;
};

/// What `--algorithm` may say.
[[nodiscard]] std::vector<std::string> planned_algorithms();

/// The input of the plan; sets the threads that the run would have.
[[nodiscard]] PlanInput read_plan_input(const PlanOptions& o);

}  // namespace temper::cli
