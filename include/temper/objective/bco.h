#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// BCO (Jung et al. 2024, arXiv 2404.04656): a classifier whose logit is the implicit reward, over
/// single answers, each desirable or not. With x the sum of log pi - log ref over an answer's
/// active tokens, S = log sigmoid, and delta = `AnswerTotals::baseline`, a mean over the step's
/// answers of
///
///     desirable  -S(beta x - delta)        undesirable  -S(delta - beta x)
///
/// delta, the running mean of all beta x, is a constant: no gradient flows through it. The
/// weighting by a classifier of prompts, for data whose desirable and undesirable answers stand
/// behind different prompts, is not here.
///
/// Metrics: `rewards/{chosen,rejected}` (beta x) and `logps/{chosen,rejected}` over the desirable
/// and the undesirable answers, each left out where there is none; `delta`. `rewards/margins`:
/// `add_unpaired_margin`.
class Bco {
 public:
  struct Config {
    double beta = 0.1;

    template <class V>
    void visit(V&& v) {
      v(beta, "beta", "How strongly the policy is held to the reference, above 0.");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range.
  explicit Bco(const Config& config);
  Bco() : Bco(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if `labels` or `ref_logprobs` is missing, or shapes or totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  Config config_;
};
static_assert(Objective<Bco>);

}  // namespace temper
