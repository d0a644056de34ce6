#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "temper/formats/model_source.h"
#include "temper/nn/causal_lm.h"

namespace temper {

/// What `check_exactness` samples and scores.
struct ExactnessOptions {
  int64_t tokens = 20000;  ///< Sampled at least, over all conditions.
  std::vector<WeightDType> weights = {WeightDType::kFloat32, WeightDType::kBfloat16,
                                      WeightDType::kBfloat16Dot, WeightDType::kFloat16};
  uint64_t seed = 42;
  /// A folder in PEFT's format whose adapter every forward applies; empty for none.
  std::filesystem::path adapter = {};
};

struct ExactnessCount {
  int64_t tokens = 0;
  int64_t mismatched = 0;  ///< Tokens whose log-prob or entropy has another bit when scored.
};

/// Each weight type meets each condition; a condition's name is "<weight type>/<condition>".
struct ExactnessReport {
  ExactnessCount total;
  /// A part of the same tokens scored by LibTorch's own matmul and attention. It must show
  /// mismatches, or the comparison could not see one.
  ExactnessCount control;
  std::vector<std::pair<std::string, ExactnessCount>> conditions;

  [[nodiscard]] bool passed() const { return total.mismatched == 0 && control.mismatched > 0; }
};

/// Told while `check_exactness` works: the condition, and steps done of all (a token that is
/// sampled or scored is one).
using ExactnessProgress =
    std::function<void(const std::string& condition, int64_t done, int64_t total)>;

/// Samples with `RolloutEngine` and scores with the trainer's forward, and compares bit for bit:
/// batches of 1 to 64, 1 and 2 threads, prompts computed in chunks of several sizes, with and
/// without shared prompts, more sequences than places, preempted sequences, truncated sampling,
/// scored as trees, alone, and in shuffled packings. Small batches get fewer tokens. Loads the
/// model once for each weight type. Sets `num_threads` meanwhile.
/// @throws Error for options out of range, a context below 16 tokens, or when no sequence could be
/// made to give way for memory.
[[nodiscard]] ExactnessReport check_exactness(const ModelSource& source,
                                              const ExactnessOptions& options,
                                              const ExactnessProgress& progress = {});

}  // namespace temper
