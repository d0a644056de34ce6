#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/dataset.h"
#include "temper/nn/scalar_model.h"
#include "temper/objective/bradley_terry.h"
#include "temper/trainer/optimizer.h"
#include "temper/trainer/preference_tokens.h"
#include "temper/trainer/schedule.h"

namespace temper {

/// How preference pairs become updates of a reward model.
struct RewardTrainingConfig {
  int64_t pairs_per_step = 8;
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  bool freeze_backbone = false;
  bool shuffle = true;
  double head_init_std = 0;
  BradleyTerry::Config loss;

  template <class V>
  void visit(V&& v) {
    v(pairs_per_step, "pairs_per_step", "Pairs of one optimizer step, at least 1.");
    v(micro_batch_tokens, "micro_batch_tokens",
      "Most tokens of one forward and backward (a longer pair runs alone); no result depends on "
      "it.");
    v(gradient_checkpointing, "gradient_checkpointing",
      "Keep only each layer's input and compute the rest again: less memory, a third more work, "
      "same bits.");
    v(freeze_backbone, "freeze_backbone", "Train the head alone.");
    v(shuffle, "shuffle", "Draw the order of pairs anew in each epoch; else as the file has them.");
    v(head_init_std, "head_init_std",
      "Standard deviation of a new head's first weights; 0: zeros, so that rewards start at 0.");
    v(loss, "loss");
  }
  /// @throws Error naming the key of a value out of its range.
  void validate() const;
};

/// Gives a head normal weights of this deviation, drawn by (seed, column); 0: zeros.
void init_head(ScalarHead& head, double std, uint64_t seed);

/// The scores that a model gives pairs, and what they say about it.
struct PairEvaluation {
  int64_t correct = 0;  ///< Pairs whose preferred side has the higher reward.
  int64_t count = 0;
  /// eval/loss, eval/accuracy, eval/margin, eval/{min,mean,max}_reward, eval/calibration_error.
  Metrics metrics;
  std::vector<float> rewards;  ///< [2 pairs] chosen and rejected of each pair.
};

/// Scores pairs without training. @param micro_batch_tokens  decides memory and speed, no bit.
[[nodiscard]] PairEvaluation evaluate_pairs(RewardModel& model, std::span<const TokenPair> pairs,
                                            const BradleyTerry& loss, int64_t micro_batch_tokens);

/// Trains a reward model on preference pairs by `BradleyTerry`. A step's result does not depend on
/// how it is cut into micro-batches (weights of type bfloat16_dot: but for rounding, see
/// docs/numerics.md) or on the number of threads; the order of pairs is keyed by (seed, epoch), so
/// a trainer restored from a checkpoint goes on with the bits of one that never stopped.
class RewardTrainer {
 public:
  struct Parts {
    RewardTrainingConfig config;
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    TokenizedPairs data;
    int64_t total_steps = 1;
    uint64_t seed = 42;
  };
  /// @param model  its backbone is trainable unless `freeze_backbone`; it must outlive the trainer.
  RewardTrainer(RewardModel& model, Parts parts);

  /// One optimizer step. Metrics: those of `BradleyTerry`, loss, grad_norm, learning_rate,
  /// num_tokens (of both sides, all steps), epoch, step_time.
  /// @throws Error naming the pair whose reward is not finite; weights stay as they were then.
  [[nodiscard]] Metrics step();

  [[nodiscard]] PairEvaluation evaluate(std::span<const TokenPair> pairs) const;

  [[nodiscard]] int64_t steps_done() const { return state_.step; }
  [[nodiscard]] int64_t total_steps() const { return parts_.total_steps; }
  [[nodiscard]] double epoch() const;
  [[nodiscard]] const Parts& parts() const { return parts_; }
  [[nodiscard]] RewardModel& model() const { return model_; }

  /// Writes all state into a checkpoint folder: model/ (a sequence-classification folder),
  /// optimizer, counters.
  void save(const std::filesystem::path& folder) const;
  /// Restores the state of `save`; the model's weights were loaded from its model/ already.
  /// @throws Error if pairs, seed or model are not those of the checkpoint.
  void load(const std::filesystem::path& folder);
  /// Roughly what `save` writes.
  [[nodiscard]] uint64_t checkpoint_bytes() const;

 private:
  using PairList = std::vector<const TokenPair*>;
  struct State {
    int64_t step = 0;
    double num_tokens = 0;
  };
  [[nodiscard]] PairList next_pairs();
  void run_micro_batch(const PairList& pairs, double total, std::vector<float>& rewards);
  [[nodiscard]] Metrics step_metrics(const PairList& pairs,
                                     const std::vector<float>& rewards) const;

  RewardModel& model_;
  Parts parts_;
  BradleyTerry loss_;
  Optimizer optimizer_;
  PromptSampler sampler_;
  ScalarTape tape_;
  State state_;
};

}  // namespace temper
