#pragma once

#include <utility>

#include "temper/trainer/evaluation.h"
#include "temper/trainer/sampled_pairs.h"
#include "tiny_model.h"

namespace temper::testing_trainer {

/// Answers of the tiny model to 4 prompts a round.
inline SampledPairs::Parts sampled_parts(Labeler labeler, int64_t completions) {
  SampledPairs::Parts p;
  p.config.prompts_per_round = 4;
  p.config.completions = completions;
  p.rollout.max_new_tokens = 6;
  p.prompts = tiny_prompts();
  p.labeler = std::move(labeler);
  p.seed = 5;
  return p;
}

}  // namespace temper::testing_trainer
