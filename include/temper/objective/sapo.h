#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// SAPO (Gao et al. 2025): a sigmoid in the place of the clip, so that the gradient fades with the
/// ratio instead of stopping at a bound. It equals the clipped losses' where the ratio is 1.
///
/// `loss = 1/B sum_i 1/n_i sum_t -(4/tau) sigmoid(tau (w - 1)) A`, tau by the sign of A.
class Sapo {
 public:
  struct Config : PolicyLossConfig {
    double temperature_pos = 1.0;
    double temperature_neg = 1.05;
    template <class V>
    void visit(V&& v) {
      v(temperature_pos, "temperature_pos", "Steepness of the gate where A > 0, positive.");
      v(temperature_neg, "temperature_neg",
        "Steepness of the gate where A <= 0, positive; larger fades sooner.");
      PolicyLossConfig::visit(v);
    }
  };
  using Batch = RolloutBatch;

  /// @throws Error unless both temperatures are positive.
  explicit Sapo(const Config& config);
  Sapo() : Sapo(Config{}) {}
  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const;

 private:
  PolicyTerms terms_;
  double temperature_pos_;
  double temperature_neg_;
};
static_assert(RolloutLossType<Sapo>);

}  // namespace temper
