#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/nn/models.h"
#include "temper/objective/offline_objectives.h"
#include "temper/trainer/answer_learner.h"
#include "temper/trainer/pair_source.h"
#include "temper/trainer/sampled_pairs.h"
#include "temper/trainer/schedule.h"

namespace temper {

/// How rounds of the policy's own answers become updates.
struct PreferenceConfig {
  PairSamplingConfig sampling;
  int64_t passes = 1;
  int64_t rows_per_step = 8;
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  std::string reference = "initial";
  double file_share = 0;
  int64_t replay_rows = 0;
  int64_t replay_steps = 32;

  template <class V>
  void visit(V&& v) {
    sampling.visit(v);
    v(passes, "passes", "Passes over a round's rows before the next round; above 1 is off-policy.");
    v(rows_per_step, "rows_per_step",
      "Most rows of one optimizer step; a round is cut into steps of about equal size.");
    v(micro_batch_tokens, "micro_batch_tokens",
      "Most tokens of one forward and backward (a longer row runs alone); no result depends on it.");
    v(gradient_checkpointing, "gradient_checkpointing",
      "Keep only each layer's input and compute the rest again: less memory, a third more work, "
      "same bits.");
    v(reference, "reference",
      "What answers are measured against: initial, the model as the run began; or round, the "
      "policy as each round begins, which takes no second model.",
      {"initial", "round"});
    v(file_share, "file_share",
      "Share of a round's prompts that give way to as many pairs of pairs.path, in [0, 1].");
    v(replay_rows, "replay_rows",
      "Most rows of earlier rounds that are learned again in each round; 0: none.");
    v(replay_steps, "replay_steps",
      "Optimizer steps after which such a row is too old to come back, at least 1.");
  }
  /// @throws Error naming the key of a value out of its range.
  void validate() const;
};

/// Trains a policy on preferences over its own answers, in rounds: a source makes rows (PairSource),
/// an objective learns them. Online DPO, iterative DPO, XPO and Nash-MD are values of it:
///
///   online DPO     two answers, the better first; one optimizer step a round
///   iterative DPO  best and worst of n; many steps a round; `reference` = round
///   XPO            an answer of the policy and one of the reference
///   Nash-MD        single answers, labelled by P(preferred to a mixture's answer)
///
/// A step is one optimizer step; the step that finds its round used up begins the next one. A step's
/// result does not depend on micro-batches or threads, and everything random is keyed by (seed,
/// round), so a trainer restored from a checkpoint goes on with the bits of one that never stopped.
class PreferenceTrainer {
 public:
  struct Parts {
    PreferenceConfig config;
    OfflineObjective objective;
    OfflineNeeds needs;
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    std::unique_ptr<PairSource> source;
    /// What `reference` = initial means; not needed for round, or a loss without a reference.
    std::optional<ReferenceModel> reference;
    double beta = 0;     ///< Of the loss, for metrics.
    Metrics constants;   ///< Given with every step: beta, alpha, ...
    int64_t total_steps = 1;
    uint64_t seed = 42;
  };
  /// @param policy  its weights are trained; it must outlive the trainer.
  /// @throws Error for a setting out of range, or a reference that is missing.
  PreferenceTrainer(PolicyModel& policy, Parts parts);

  /// One optimizer step, after the next round's rows were made where those at hand are used up.
  ///
  /// Metrics: those of the objective; `objective/{kl,entropy,non_score_reward}` (sums over an
  /// answer's tokens, nats, means over the step's answers, at temperature 1); loss, entropy (a
  /// token's), grad_norm, learning_rate, num_tokens, epoch, round, step_time, time/update; in a
  /// round's first step also those of its making (PairSource), pairs/empty_rounds and
  /// `objective/rlhf_reward`.
  /// @throws Error if the source or a number fails, NothingToLearn where ten rounds in a row give no
  /// row: weights, cursors and counters are as before then, and the step can be made again.
  [[nodiscard]] Metrics step();
  /// Answers that the last step's round began with; empty where it went on with one.
  [[nodiscard]] const std::vector<SampleCompletion>& samples() const { return samples_; }

  [[nodiscard]] int64_t steps_done() const { return state_.step; }
  [[nodiscard]] int64_t rounds_begun() const { return state_.rounds; }
  [[nodiscard]] int64_t total_steps() const { return parts_.total_steps; }
  [[nodiscard]] double epoch() const { return parts_.source->epoch(); }
  [[nodiscard]] const Parts& parts() const { return parts_; }

  /// Writes all state into a checkpoint folder: model/ or adapter/, optimizer, counters, the
  /// source's state, and what is left of the round with its reference's log-probs.
  void save(const std::filesystem::path& folder) const;
  /// Restores the state of `save`; the policy's weights were loaded from it already.
  /// @throws Error if seed, source or model are not those of the checkpoint.
  void load(const std::filesystem::path& folder);
  /// Roughly what `save` writes.
  [[nodiscard]] uint64_t checkpoint_bytes() const;

 private:
  using RowList = AnswerLearner::RowList;
  struct State {
    int64_t step = 0;
    int64_t rounds = 0;
    double num_tokens = 0;
  };
  struct Round {
    ReferencedRows rows;
    std::vector<RowList> lists;  ///< Of each optimizer step.
    size_t next = 0;             ///< List of the next step.
    Metrics metrics;             ///< Of its making, until its first step has given them.
    std::vector<SampleCompletion> samples;
  };
  [[nodiscard]] bool moves() const { return parts_.config.reference == "round"; }
  void begin_round();
  [[nodiscard]] PairRows fresh_rows(int64_t& rounds) const;
  [[nodiscard]] std::vector<RowList> plan(size_t rows, int64_t round) const;
  void fill_reference(ReferencedRows& rows);

  PolicyModel& policy_;
  Parts parts_;
  AnswerLearner learner_;
  State state_;
  Round round_;
  std::vector<SampleCompletion> samples_;
};

}  // namespace temper
