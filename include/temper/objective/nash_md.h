#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// Nash-MD (Munos et al. 2023, arXiv 2312.00886, sec. 6) over single answers that the policy
/// sampled. `AnswerBatch::labels` holds, for each, the probability p in [0, 1] that it is preferred
/// to an answer of the opponent, a mixture of policy and reference. A mean over the step's answers
/// of
///
///     beta sum_t (log pi_t - log ref_t) log pi_t - (p - 1/2) sum_t log pi_t
///
/// with the first factor as a constant: the policy gradient of p, with 1/2 as its baseline, and of
/// the divergence from the reference, token by token. The value of the loss says nothing; p does.
///
/// Metrics: `rewards/probabilities` (mean p), `loss/score` (mean of (p - 1/2) sum log pi),
/// `loss/kl` (mean of sum log pi - log ref), `logps/chosen`.
class NashMd {
 public:
  struct Config {
    double beta = 0.1;

    template <class V>
    void visit(V&& v) {
      v(beta, "beta", "How strongly the policy is held to the reference, at least 0.");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range.
  explicit NashMd(const Config& config);
  NashMd() : NashMd(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if `labels` or `ref_logprobs` is missing, a probability is not one, or shapes or
  ///         totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  Config config_;
};
static_assert(Objective<NashMd>);

}  // namespace temper
