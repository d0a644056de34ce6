#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/dataset.h"
#include "temper/nn/models.h"
#include "temper/trainer/answer_learner.h"
#include "temper/trainer/answer_tokens.h"
#include "temper/trainer/schedule.h"

namespace temper {

/// How given answers become updates.
struct OfflineConfig {
  int64_t rows_per_step = 8;
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  bool shuffle = true;
  std::string reference = "cached";
  std::string reference_model;
  int64_t ref_sync_every = 0;
  double ref_sync_mix = 0.6;

  template <class V>
  void visit(V&& v) {
    v(rows_per_step, "rows_per_step", "Rows (pairs, or single answers) of one optimizer step.");
    v(micro_batch_tokens, "micro_batch_tokens",
      "Most tokens of one forward and backward (a longer row runs alone); no result depends on it.");
    v(gradient_checkpointing, "gradient_checkpointing",
      "Keep only each layer's input and compute the rest again: less memory, a third more work, "
      "same bits.");
    v(shuffle, "shuffle", "Draw the order of rows anew in each epoch; else as the file has them.");
    v(reference, "reference",
      "Where a loss asks for a reference's log-probs: cached, computed once before training, so "
      "that no second model stays in memory; or live, from a model kept beside the policy.",
      {"cached", "live"});
    v(reference_model, "reference_model",
      "The reference: a model as in `model`; empty: the policy as it is before training.");
    v(ref_sync_every, "ref_sync_every",
      "Steps between moves of a live reference towards the policy (TR-DPO); 0: it stays.");
    v(ref_sync_mix, "ref_sync_mix", "Share of the policy in such a move, in (0, 1].");
  }
  /// @throws Error naming the key of a value out of its range.
  void validate() const;
};

/// Trains a policy on given answers: supervised fine-tuning, DPO and its family, KTO, ... as the
/// objective says. A step's result does not depend on how it is cut into micro-batches or on the
/// number of threads; the order of rows is keyed by (seed, epoch), so a trainer restored from a
/// checkpoint goes on with the bits of one that never stopped. Log-probs are at temperature 1.
class OfflineTrainer {
 public:
  struct Parts {
    OfflineConfig config;
    OfflineObjective objective;
    OfflineNeeds needs;
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    TokenizedAnswers data;
    std::vector<AnswerGroup> held_out;
    int64_t total_steps = 1;
    uint64_t seed = 42;
    double baseline_scale = 1;  ///< Factor of a log-ratio in BCO's running mean: its beta.
  };
  /// @param policy  its weights are trained; it must outlive the trainer.
  /// @throws Error for rows that the objective cannot use, naming the line.
  OfflineTrainer(PolicyModel& policy, Parts parts);

  /// Whether a reference has to be given before the first step, and none was.
  [[nodiscard]] bool wants_reference() const;
  /// A model that scores each micro-batch. @throws Error when the config says "cached".
  void set_reference(ReferenceModel reference);
  [[nodiscard]] const std::optional<ReferenceModel>& reference() const {
    return learner_.reference();
  }
  /// Computes the log-probs of every row that the run will visit, and of the held-out ones, by
  /// `model`. @param progress  (rows done, all rows), or null.
  void cache_reference(CausalLM& model, const std::function<void(int64_t, int64_t)>& progress);
  /// Writes the cache, keyed by the data and `model_hash`.
  void save_cache(const std::filesystem::path& file, uint64_t model_hash);
  /// @return false where the file is not there or is of another model, other data or fewer rows.
  /// @throws Error for a damaged file.
  [[nodiscard]] bool load_cache(const std::filesystem::path& file, uint64_t model_hash);
  /// The model of the cache that a checkpoint's run used; 0: it used none.
  [[nodiscard]] static uint64_t cached_model(const std::filesystem::path& folder);

  /// One optimizer step. Metrics: those of the objective, loss, entropy, grad_norm, learning_rate,
  /// num_tokens (with each answer's prompt, all steps), epoch, step_time, update/tokens_per_second.
  /// @throws Error naming the row whose log-prob or the loss is not finite; the weights and the
  /// order of rows stay as they were then.
  [[nodiscard]] Metrics step();

  /// Loss and metrics on held-out rows, named eval/...; rows are weighted alike.
  [[nodiscard]] Metrics evaluate() const;

  [[nodiscard]] int64_t steps_done() const { return state_.step; }
  [[nodiscard]] int64_t total_steps() const { return parts_.total_steps; }
  [[nodiscard]] double epoch() const;
  [[nodiscard]] const Parts& parts() const { return parts_; }

  /// Writes all state into a checkpoint folder: model/, optimizer, counters, a moved reference.
  void save(const std::filesystem::path& folder) const;
  /// Restores the state of `save`; the policy's weights were loaded from its model/ already.
  /// @throws Error if rows, seed or model are not those of the checkpoint.
  void load(const std::filesystem::path& folder);
  /// Roughly what `save` writes.
  [[nodiscard]] uint64_t checkpoint_bytes() const;

 private:
  using RowList = AnswerLearner::RowList;
  struct State {
    int64_t step = 0;
    double num_tokens = 0;
    uint64_t cached_model = 0;  ///< Hash of the model that the cache is of; 0: there is none.
  };

  PolicyModel& policy_;
  Parts parts_;
  ReferencedRows rows_;
  ReferencedRows held_out_;
  AnswerLearner learner_;
  PromptSampler sampler_;
  State state_;
};

/// A hash of a model's weights as products read them, an applied adapter's included: equal models,
/// equal hashes.
[[nodiscard]] uint64_t weights_hash(const CausalLM& model);

}  // namespace temper
