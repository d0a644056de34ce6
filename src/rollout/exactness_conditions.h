#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/data/packing.h"
#include "temper/nn/scoring.h"
#include "temper/rollout/engine.h"

namespace temper {

/// How sampled texts are laid out to be scored.
enum class Packing {
  kTree,      ///< Each prompt once, its completions as children.
  kAlone,     ///< Every text uncut, in a batch of its own.
  kShuffled,  ///< Pieces of groups in random order, in batches of random size.
};

/// One way to sample and to score. Lengths are in tokens.
struct ExactnessCondition {
  const char* name;
  double share = 1;     ///< Of all tokens, relative to the other conditions.
  int64_t prompts = 8;  ///< Of one rollout.
  int64_t group_size = 8;
  int64_t slots = 64;  ///< Decoded at a time.
  int64_t prefill_tokens = 512;
  bool repeat_prompt = false;  ///< All prompts of a rollout are the same text.
  bool preempt = false;        ///< Memory for about half of the sequences.
  bool truncate = false;       ///< Temperature 0.7 with top-k, top-p, min-p and a penalty.
  int sample_threads = 0;      ///< 0: as many as there are.
  int score_threads = 0;
  Packing packing = Packing::kTree;
};

[[nodiscard]] std::span<const ExactnessCondition> exactness_conditions();

/// A scoring batch and the sampled numbers of its targets, in order.
struct ScoringBatch {
  TokenBatch tokens;
  ScoreRequest request;
  std::vector<float> logprobs;
  std::vector<float> entropy;
};

/// All samples of a rollout as batches to score.
[[nodiscard]] std::vector<ScoringBatch> scoring_batches(const RolloutRequest& request,
                                                        const std::vector<Sample>& samples,
                                                        Packing packing, uint64_t seed);

}  // namespace temper
