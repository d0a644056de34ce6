#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// CISPO (MiniMax-M1 2025, eq. 4): REINFORCE weighted by the clipped ratio, which is a constant in
/// the gradient. No token is left out, however far its ratio has moved.
///
/// `loss = 1/N sum_i sum_t -stop(min(w, ratio_max)) A lp`.
class Cispo {
 public:
  struct Config : PolicyLossConfig {
    double ratio_max = 5;
    template <class V>
    void visit(V&& v) {
      v(ratio_max, "ratio_max", "Largest weight of a token: a bound of the ratio itself, above 1.");
      PolicyLossConfig::visit(v);
    }
  };
  using Batch = RolloutBatch;

  /// @throws Error unless `ratio_max` is above 1.
  explicit Cispo(const Config& config);
  Cispo() : Cispo(Config{}) {}
  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const;

 private:
  PolicyTerms terms_;
  double ratio_max_;
};
static_assert(RolloutLossType<Cispo>);

}  // namespace temper
