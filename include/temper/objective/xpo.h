#pragma once

#include <string>

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// XPO (Xie et al. 2024, arXiv 2405.21046, alg. 1) over pairs of one answer that the policy sampled
/// and one that the reference sampled, in the order of preference; `AnswerBatch::labels` is 1 for
/// the policy's answer and 0 for the reference's. With c and r the sums of log pi - log ref over
/// the preferred and the other answer, S = log sigmoid, a mean over the step's pairs of
///
///     sigmoid  -S(beta (c - r)) + alpha sum log pi of the reference's answer
///     ipo      (c - r - 1 / (2 beta))^2 + the same
///
/// The second term takes probability away from what the reference would say, wherever the pair does
/// not speak for it: exploration.
///
/// Metrics: `rewards/{chosen,rejected,margins,accuracies}` (beta c, beta r), `logps/{chosen,
/// rejected}` (of the policy; TRL adds the reference's to them), `loss/dpo`, `loss/xpo`.
class Xpo {
 public:
  struct Config {
    std::string loss_type = "sigmoid";
    double beta = 0.1;
    double alpha = 1e-5;

    template <class V>
    void visit(V&& v) {
      v(loss_type, "loss_type", "Loss of a pair.", {"sigmoid", "ipo"});
      v(beta, "beta", "How strongly the policy is held to the reference, above 0.");
      v(alpha, "alpha", "Weight of exploration, at least 0.");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range.
  explicit Xpo(const Config& config);
  Xpo() : Xpo(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if `labels` or `ref_logprobs` is missing, a pair does not have one answer of
  /// each,
  ///         or shapes or totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  Config config_;
  bool ipo_ = false;
};
static_assert(Objective<Xpo>);

}  // namespace temper
