#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/dataset.h"
#include "temper/nn/divergence.h"
#include "temper/nn/models.h"
#include "temper/rollout/engine.h"
#include "temper/trainer/distill_rows.h"
#include "temper/trainer/optimizer.h"
#include "temper/trainer/schedule.h"

namespace temper {

/// "same" (as the student's) and the names of `weight_dtype_names`.
[[nodiscard]] const std::vector<std::string>& teacher_weight_names();

/// How a student is pulled to a teacher.
struct DistillConfig {
  double beta = 0.5;
  double lambda = 0.5;
  double temperature = 1;
  double nll_weight = 0;
  int64_t rows_per_step = 8;
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  bool shuffle = true;
  std::string teacher;
  std::string teacher_weights = "same";
  std::string teacher_file;
  std::string teacher_answers = "once";
  std::string teacher_system_prompt;
  std::string teacher_system_prompt_file;

  template <class V>
  void visit(V&& v) {
    v(beta, "beta",
      "Which divergence: 0 the forward KL (cover all that the teacher does), 1 the reverse KL (do "
      "nothing that it does not), between them generalized JSD.");
    v(lambda, "lambda",
      "Share of steps whose answers the student samples itself, in [0, 1]; the others take the "
      "file's answers, or the teacher's where it has prompts alone.");
    v(temperature, "temperature", "Divides the logits of both in the divergence, above 0.");
    v(nll_weight, "nll_weight",
      "Weight of the answers' negative log-likelihood beside the divergence, at least 0; read where "
      "the student has not sampled them.");
    v(rows_per_step, "rows_per_step", "Rows of one optimizer step.");
    v(micro_batch_tokens, "micro_batch_tokens",
      "Most tokens of one forward and backward (a longer row runs alone); no result depends on it.");
    v(gradient_checkpointing, "gradient_checkpointing",
      "Keep only each layer's input and compute the rest again: less memory, a third more work, "
      "same bits.");
    v(shuffle, "shuffle", "Draw the order of rows anew in each epoch; else as the file has them.");
    v(teacher, "teacher",
      "The teacher: a model as in `model`, of the same vocabulary; empty: the model as it is before "
      "training (under an adapter: the same weights without it, at no memory).");
    v(teacher_weights, "teacher_weights",
      "What the teacher's products read: the type of trainer.weights, or another; int8 takes a "
      "quarter of float32's bytes.",
      teacher_weight_names());
    v(teacher_file, "teacher_file",
      "Panel file that the teacher is mapped from; made where it is not there or is of another model "
      "or type. Empty: in memory.");
    v(teacher_answers, "teacher_answers",
      "When the teacher answers prompts that the file has no answer to: once, before training, or "
      "fresh each time that a step takes the row.",
      {"once", "fresh"});
    v(teacher_system_prompt, "teacher_system_prompt",
      "What the teacher is told before every prompt and the student is not (context distillation).");
    v(teacher_system_prompt_file, "teacher_system_prompt_file", "The same from a text file.");
  }
  /// @throws Error naming the key of a value out of its range.
  void validate() const;
};

/// Trains a student to give a teacher's distribution over the next token, after answers from a file,
/// answers that the teacher writes, or its own (GKD, Agarwal et al. 2023, arXiv 2306.13649), a
/// mixture by steps:
///
///     loss = 1 / tokens sum_t w_t (D_beta(teacher_t, student_t) - nll_weight ln p_t)
///
/// Teacher and student may read different prompts before the same answer: with a system prompt for
/// the teacher alone this is context distillation (Askell et al. 2021, arXiv 2112.00861).
///
/// A step's result does not depend on how it is cut into micro-batches or on the number of threads.
/// Rows, the choice of a step's answers and every sampled token are keyed by (seed, step), so a
/// trainer restored from a checkpoint goes on with the bits of one that never stopped.
class DistillTrainer {
 public:
  struct Parts {
    DistillConfig config;
    RolloutConfig rollout;  ///< How answers are sampled.
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    DistillRows data;
    std::vector<DistillRow> held_out;  ///< Those without an answer get the teacher's, drawn once.
    int64_t total_steps = 1;
    uint64_t seed = 42;
  };
  /// @param student  its weights, or its adapter's, are trained; it must outlive the trainer.
  /// @param teacher  frozen; it must not be the student's own weights while they are trained.
  /// @throws Error for two vocabularies, and for rows without a prompt where answers are sampled.
  DistillTrainer(PolicyModel& student, ReferenceModel teacher, Parts parts);

  /// One optimizer step. Metrics: loss, divergence, nll_loss, entropy, top1_agreement (share of
  /// tokens that both find likeliest), on_policy (1: the student wrote the answers), grad_norm,
  /// learning_rate, num_tokens (of the student's texts, all steps), epoch, step_time,
  /// update/tokens_per_second, and completions/... where answers were sampled.
  /// @throws Error naming the row where a number is not finite; weights and the order of rows stay
  /// as they were then.
  [[nodiscard]] Metrics step();

  /// What held-out rows say of the student.
  struct HeldOut {
    int64_t tokens = 0;
    int64_t agree = 0;  ///< Tokens where student and teacher find the same one likeliest.
    Metrics metrics;    ///< eval/loss, /divergence, /nll_loss, /entropy, /top1_agreement.
  };
  [[nodiscard]] HeldOut evaluate() const;

  [[nodiscard]] int64_t steps_done() const { return step_; }
  [[nodiscard]] int64_t total_steps() const { return parts_.total_steps; }
  [[nodiscard]] double epoch() const;
  [[nodiscard]] const Parts& parts() const { return parts_; }
  [[nodiscard]] const ReferenceModel& teacher() const { return teacher_; }

  /// Writes all state into a checkpoint folder: the student, the optimizer, counters.
  void save(const std::filesystem::path& folder) const;
  /// Restores the state of `save`; the student's weights were loaded from there already.
  /// @throws Error if rows, seed or teacher are not those of the checkpoint.
  void load(const std::filesystem::path& folder);
  /// Roughly what `save` writes.
  [[nodiscard]] uint64_t checkpoint_bytes() const;

 private:
  struct Sums;
  struct MicroBatch;
  using Rows = std::vector<DistillRow>;
  [[nodiscard]] bool samples_itself(int64_t step) const;
  [[nodiscard]] Rows rows_of_step(const std::vector<size_t>& list, bool on_policy, Metrics& m) const;
  void write_answers(Rows& rows, bool student, uint32_t step, Metrics& m) const;
  void write_teachers_answers();
  [[nodiscard]] std::vector<Rows> cut(const Rows& rows) const;
  [[nodiscard]] MicroBatch pack(const Rows& rows) const;
  [[nodiscard]] DivergenceRequest request(const MicroBatch& batch) const;
  void run_micro_batch(const Rows& rows, double tokens, double nll_weight, Sums& sums);

  PolicyModel& student_;
  ReferenceModel teacher_;
  Parts parts_;
  size_t prefix_ = 0;  ///< Tokens that all of the teacher's prompts begin with.
  uint64_t teacher_hash_ = 0;
  Optimizer optimizer_;
  PromptSampler sampler_;
  DivergenceTape tape_;
  int64_t step_ = 0;
  double num_tokens_ = 0;
};

}  // namespace temper
