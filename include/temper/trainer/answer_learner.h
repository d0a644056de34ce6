#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/answers.h"
#include "temper/nn/models.h"
#include "temper/nn/scoring.h"
#include "temper/objective/offline_objectives.h"
#include "temper/trainer/optimizer.h"

namespace temper {

/// Rows, and what a frozen reference says of their tokens.
struct ReferencedRows {
  std::vector<AnswerGroup> groups;
  /// [groups] for KTO's baseline: the prompt of a row with the answer of its neighbour, else empty.
  std::vector<AnswerGroup> mismatched;
  std::vector<std::vector<float>> logprobs;   ///< [groups][predicted tokens]; empty: not known.
  std::vector<double> mismatched_logprobs;    ///< [groups] sums; empty: not known.
};

/// How rows become an optimizer step.
struct LearnerSettings {
  OfflineObjective objective;
  OfflineNeeds needs;
  OptimizerConfig optimizer;
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  double baseline_scale = 1;  ///< Factor of a log-ratio in BCO's running mean: its beta.
  std::string source;         ///< What the rows are called in errors.
  uint64_t seed = 42;
};

/// Makes optimizer steps on rows that it is handed one step at a time, wherever they come from. A
/// step's result does not depend on how it is cut into micro-batches or on the number of threads.
/// Log-probs are at temperature 1.
///
/// A row is one answer, or two of which the first is preferred. Its label goes to the loss as it is;
/// of a pair that is the first answer's, and the second's is 1 - label.
class AnswerLearner {
 public:
  using RowList = std::vector<size_t>;  ///< Indices into `ReferencedRows::groups`.
  /// Mean of all log-ratios so far, BCO's baseline.
  struct RunningRatio {
    double sum = 0;
    double count = 0;
  };

  /// @param policy  its weights are trained; it must outlive the learner.
  AnswerLearner(PolicyModel& policy, LearnerSettings settings);

  /// One optimizer step on the listed rows. Metrics: those of the objective, loss, entropy,
  /// grad_norm. @throws Error naming the row whose log-prob, or the step whose loss or gradient, is
  /// not finite: nothing has changed then.
  [[nodiscard]] Metrics step(const ReferencedRows& rows, const RowList& list,
                             double learning_rate);
  /// The loss and the objective's metrics of the listed rows, all as one step; nothing is learned.
  [[nodiscard]] Metrics measure(const ReferencedRows& rows, const RowList& list) const;

  /// Scores the listed rows by a model, so that no reference is asked for them any more.
  /// @param done  told of the rows of each batch, or null.
  void fill_reference(ReferencedRows& rows, const RowList& list, CausalLM& model,
                      const std::function<void(int64_t)>& done = nullptr) const;

  /// A model that is asked for the log-probs of rows that have none.
  [[nodiscard]] std::optional<ReferenceModel>& reference() { return reference_; }
  [[nodiscard]] const std::optional<ReferenceModel>& reference() const { return reference_; }
  [[nodiscard]] Optimizer& optimizer() { return optimizer_; }
  [[nodiscard]] const Optimizer& optimizer() const { return optimizer_; }
  [[nodiscard]] RunningRatio& running_ratio() { return ratio_; }
  [[nodiscard]] const RunningRatio& running_ratio() const { return ratio_; }

 private:
  struct Sums {
    MetricSums metrics;
    double loss = 0;
  };
  [[nodiscard]] AnswerTotals totals(const ReferencedRows& rows, const RowList& list) const;
  [[nodiscard]] AnswerBatch make_batch(const ReferencedRows& rows, const RowList& list,
                                       const AnswerTokens& packed, const AnswerTotals& totals) const;
  [[nodiscard]] std::vector<RowList> cut(const ReferencedRows& rows, const RowList& list) const;
  [[nodiscard]] AnswerSums answer_sums(const ReferencedRows& rows, const RowList& list) const;
  [[nodiscard]] double kto_baseline(const ReferencedRows& rows, const RowList& list) const;
  void prepare(const ReferencedRows& rows, const RowList& list, AnswerTotals& totals,
               AnswerSums& sums, RunningRatio& ratio) const;
  void run_micro_batch(const ReferencedRows& rows, const RowList& list, const AnswerTotals& totals,
                       Sums& sums);
  [[nodiscard]] LossOutput evaluate_loss(const AnswerBatch& batch, const at::Tensor& scores,
                                         at::Tensor& leaf) const;

  PolicyModel& policy_;
  LearnerSettings settings_;
  std::optional<ReferenceModel> reference_;
  Optimizer optimizer_;
  ScoringTape tape_;
  RunningRatio ratio_;
};

}  // namespace temper
