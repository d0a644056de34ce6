#pragma once

#include <string>

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// Supervised fine-tuning: the negative log-likelihood of the answers, a mean over the active
/// tokens of the whole step, so that a long answer counts by its length:
///
///     loss = 1 / tokens sum_t -w_t log p_t,   w_t = 1 (nll) or p_t as a constant (dft)
///
/// `dft` (Wu et al. 2025, arXiv 2508.05629): the weight cancels the factor 1 / p that the
/// likelihood's gradient gives to tokens that the policy finds unlikely; they are learned least,
/// not most.
///
/// Metric: `nll_loss`, the token mean of -log p whatever the weight is.
class Sft {
 public:
  struct Config {
    std::string loss_type = "nll";

    template <class V>
    void visit(V&& v) {
      v(loss_type, "loss_type",
        "nll: each token counts the same; dft: each by its present probability.", {"nll", "dft"});
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error for an unknown loss type.
  explicit Sft(const Config& config);
  Sft() : Sft(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const { return {}; }
  /// @throws Error if shapes or the step's totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  bool by_probability_ = false;
};
static_assert(Objective<Sft>);

}  // namespace temper
