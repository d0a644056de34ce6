#pragma once

#include <string>

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// KTO (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7 and 8) over single answers, each desirable
/// or not. With x the sum of log pi - log ref over an answer's active tokens, sg = sigmoid, and z0
/// = `AnswerTotals::baseline`, a mean over the step's answers of
///
///     kto                desirable_weight (1 - sg(beta (x - z0)))
///                        undesirable_weight (1 - sg(beta (z0 - x)))
///     apo_zero_unpaired  the same with z0 = 0 (D'Oosterlinck et al. 2024, arXiv 2408.06266)
///
/// z0 is a constant: no gradient flows through it. The divisor counts both kinds, so a step with
/// one kind only is as good as any.
///
/// Metrics: `rewards/{chosen,rejected}` (beta x) and `logps/{chosen,rejected}` over the desirable
/// and the undesirable answers, each left out where there is none; `kl` (z0). `rewards/margins`:
/// `add_unpaired_margin`.
class Kto {
 public:
  struct Config {
    std::string loss_type = "kto";
    double beta = 0.1;
    double desirable_weight = 1;
    double undesirable_weight = 1;

    template <class V>
    void visit(V&& v) {
      v(loss_type, "loss_type",
        "kto: rewards count from the policy's divergence; apo_zero_unpaired: from 0.",
        {"kto", "apo_zero_unpaired"});
      v(beta, "beta", "How strongly the policy is held to the reference, above 0.");
      v(desirable_weight, "desirable_weight",
        "Weight of desirable answers, at least 0. desirable_weight times their number should be 1 "
        "to 1.33 times undesirable_weight times the number of the others.");
      v(undesirable_weight, "undesirable_weight", "Weight of undesirable answers, at least 0.");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range.
  explicit Kto(const Config& config);
  Kto() : Kto(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if `labels` or `ref_logprobs` is missing, or shapes or totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  Config config_;
  bool from_zero_ = false;
};
static_assert(Objective<Kto>);

}  // namespace temper
