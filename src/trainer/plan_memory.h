#pragma once

#include <cstdint>
#include <vector>

#include "temper/trainer/plan.h"

namespace temper::planning {

/// A weight as `CausalLM` declares it.
struct Weight {
  int64_t n;
  int64_t k;
  bool matrix;
  int64_t copies;     ///< Layers that have one each.
  int64_t part_rows;  ///< Rows of the largest tensor of a checkpoint that lies in it.
  bool vocabulary = false;  ///< The embedding or the LM head.

  /// Elements in panels.
  [[nodiscard]] int64_t elements() const;
};

/// All weights of a model; a backbone has no LM head.
[[nodiscard]] std::vector<Weight> weights_of(const ModelConfig& config, bool lm_head);

/// Those of an adapter on a model; only matrices.
[[nodiscard]] std::vector<Weight> adapter_weights(const ModelConfig& config,
                                                  const AdapterConfig& adapter);

/// Bytes of float32 masters, of 16-bit copies, of gradients and of Adam's moments.
struct WeightBytes {
  uint64_t masters = 0;
  uint64_t copies = 0;
  uint64_t gradients = 0;
  uint64_t moments = 0;
};
[[nodiscard]] WeightBytes weight_bytes(const std::vector<Weight>& weights, WeightDType dtype,
                                       Trainable trainable, int64_t moment_bytes = 4);

/// Rows that pass through a model at a time.
struct Rows {
  int64_t train = 0;    ///< In one forward and backward; 0: never trained.
  int64_t forward = 0;  ///< In one forward without gradient.
  int64_t scored = 0;   ///< Given to the LM head by training.
};

/// Activations of a model, buffer by buffer as src/nn allocates them.
struct ActivationBytes {
  uint64_t tape = 0;     ///< Kept from the forward to the backward.
  uint64_t working = 0;  ///< One layer at a time, and gradients on their way.
};
[[nodiscard]] ActivationBytes activation_bytes(const ModelConfig& config, const Rows& rows,
                                               bool checkpoint);

/// Buffers of the LM head: the tile of logits, and gathered rows.
[[nodiscard]] uint64_t head_bytes(const ModelConfig& config, const Rows& rows);
/// bf16 words of the widest operand, where products round their activations.
[[nodiscard]] uint64_t word_bytes(const ModelConfig& config, const Rows& rows, bool lm_head);

/// Rows of the largest micro-batch that completions of any length can make.
[[nodiscard]] Rows largest_micro_batch(const PlanInput& input);
/// Most rows of a forward of the rollout.
[[nodiscard]] int64_t rollout_rows(const PlanInput& input);

/// Operations of a step, phase by phase.
[[nodiscard]] std::vector<PlanPhase> phases(const PlanInput& input);

}  // namespace temper::planning
