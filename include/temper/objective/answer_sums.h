#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/batch.h"

namespace temper {

/// The tokens of an `AnswerBatch` made ready for arithmetic: float64 whatever the batch's dtype
/// (gradients come back in the batch's), and masked tokens hold 0, so that a NaN or an infinity
/// there reaches neither the loss nor a gradient. [N] are tokens, [A] are answers.
struct AnswerTerms {
  at::Tensor logprobs;      ///< [N] nats, differentiable.
  at::Tensor ref_logprobs;  ///< [N] or undefined.
  at::Tensor mask;          ///< [N] 1 or 0.
  at::Tensor sequence;      ///< [N] int64.
  at::Tensor lengths;       ///< [A] active tokens of each answer.
  int64_t answers = 0;      ///< A.
  AnswerTotals totals;

  /// [N] -> [A]: the sum over each answer's active tokens. On the CPU in token order, so an
  /// answer's sum has the same bits in every micro-batch.
  [[nodiscard]] at::Tensor sum(const at::Tensor& values) const;
  /// [N] -> [A]: the mean over each answer's active tokens; 0 for a fully masked one.
  [[nodiscard]] at::Tensor mean(const at::Tensor& values) const;
  /// [A] -> [N]: every token gets its answer's value.
  [[nodiscard]] at::Tensor spread(const at::Tensor& rows) const;
};

/// Reads and checks a micro-batch. @throws Error naming the field if shapes disagree, or the step's
/// totals are smaller than this micro-batch alone.
[[nodiscard]] AnswerTerms answer_terms(const AnswerBatch& batch);

/// Values of answers split into the sides of their pairs.
struct Sides {
  at::Tensor chosen;    ///< [P] of answers 2 j.
  at::Tensor rejected;  ///< [P] of answers 2 j + 1.
};

/// [2 P] -> two of [P]. @throws Error for an odd number.
[[nodiscard]] Sides sides(const at::Tensor& answers);

/// Length desensitisation (Liu et al. 2024, arXiv 2409.06411, eq. 8): of a pair's answers the first
/// min(n_w, n_l) active tokens weigh 1 and those behind weigh `alpha`. [N] for the answers of
/// pairs.
[[nodiscard]] at::Tensor shared_length_weights(const AnswerTerms& terms, double alpha);

/// Metrics of a micro-batch as tensors, read all at once: a device is waited for once, not once a
/// number. Values carry no gradient here, whatever they came with.
class AnswerMetrics {
 public:
  /// A mean over the entries of `values`.
  void add_mean(const std::string& name, const at::Tensor& values);
  /// A mean over those entries of `values` where `which` is 1.
  void add_mean_where(const std::string& name, const at::Tensor& values, const at::Tensor& which);
  /// A mean given by its sum and its weight.
  void add_sum(const std::string& name, const at::Tensor& sum, const at::Tensor& weight);
  /// The numbers. Waits for the device.
  [[nodiscard]] MetricSums read() const;

 private:
  std::vector<std::string> names_;
  std::vector<at::Tensor> values_;  ///< Sum and weight of each, in turn.
};

/// Adds TRL's metrics of pairs: `rewards/{chosen,rejected,accuracies,margins}` of the rewards [P]
/// of both sides (ties are not right), and nothing else.
void add_pair_rewards(AnswerMetrics& metrics, const Sides& rewards);

/// Adds `logps/{chosen,rejected}`.
void add_pair_logps(AnswerMetrics& metrics, const Sides& logps);

/// Single answers of two kinds: desirable or not, or sampled by the policy or not. All [A].
struct LabelledAnswers {
  at::Tensor logps;        ///< Sums of log pi, differentiable.
  at::Tensor log_ratios;   ///< Sums of log pi - log ref, differentiable.
  at::Tensor desirable;    ///< 1 or 0.
  at::Tensor undesirable;  ///< The other way round.
};

/// @throws Error, starting with `[loss]`, if labels or the reference's log-probs are missing.
[[nodiscard]] LabelledAnswers labelled_answers(const AnswerTerms& terms, const at::Tensor& labels,
                                               const char* loss);

/// Adds `rewards/{chosen,rejected}` (beta times log-ratios) and `logps/{chosen,rejected}`, means
/// over each kind.
void add_labelled_metrics(AnswerMetrics& metrics, const LabelledAnswers& answers, double beta);

/// `rewards/margins` of a step over unpaired answers: the difference of `rewards/chosen` and
/// `rewards/rejected`, where the step had both. A quotient of sums cannot say it, so whoever has
/// summed a step's metrics calls this.
void add_unpaired_margin(Metrics& metrics);

}  // namespace temper
