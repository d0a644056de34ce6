#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/dataset.h"
#include "temper/nn/models.h"
#include "temper/reward/reward.h"
#include "temper/rollout/engine.h"

namespace temper {

/// Held-out evaluation while training.
struct EvalConfig {
  int64_t every = 0;
  int64_t prompts = 200;
  double temperature = 0.0;
  bool greedy_too = false;

  template <class V>
  void visit(V&& v) {
    v(every, "every", "Steps between evaluations; 0: before and after training only; -1: never.");
    v(prompts, "prompts", "Held-out prompts, the first ones of the held-out part; 0: all.");
    v(temperature, "temperature", "Sampling temperature of evaluations; 0: greedy.");
    v(greedy_too, "greedy_too", "Ask greedily besides: what sampling alone gains by sharpening shows as no gain there.");
  }
};

/// Scores of one completion a prompt.
struct EvalResult {
  int64_t correct = 0;  ///< Completions that the first function scores above 0.5.
  int64_t count = 0;    ///< Completions that it scored.
  Metrics metrics;      ///< eval/<function>, eval/completions/mean_length, eval/completions/clipped_ratio
  std::vector<Sample> samples;
  std::vector<std::string> prompt_texts;
};

/// Samples one completion for each example and scores it. @param rewards  the first one decides what
/// counts as correct. Deterministic for a seed and a step.
[[nodiscard]] EvalResult evaluate(PolicyModel& policy, std::span<const Example> examples,
                                  std::span<const NamedReward> rewards, const RolloutConfig& rollout,
                                  uint64_t seed, uint32_t step);

/// The text that a model is given for an example: its chat template around a conversation, a plain
/// prompt as it stands; and its ids.
struct EncodedPrompt {
  std::string text;
  std::vector<int32_t> ids;
};
[[nodiscard]] EncodedPrompt encode_prompt(const Example& example, const ModelText& text);

}  // namespace temper
