#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// VESPO: REINFORCE weighted by a gamma-shaped function of the completion's whole ratio, which is a
/// constant in the gradient. It is 1 where the ratio is 1, at its largest near k/lambda, and fades
/// on both sides.
///
/// `loss = 1/N sum_i sum_t -phi_i A lp`, `phi = exp(lambda + k log W - lambda W)`,
/// `log W_i = sum_t (lp - old)`; (k, lambda) by the sign of A.
class Vespo {
 public:
  struct Config : PolicyLossConfig {
    double k_pos = 2;
    double lambda_pos = 3;
    double k_neg = 3;
    double lambda_neg = 2;
    template <class V>
    void visit(V&& v) {
      v(k_pos, "k_pos", "Power of the ratio where A >= 0, at least 0.");
      v(lambda_pos, "lambda_pos", "Decay in the ratio where A >= 0, positive.");
      v(k_neg, "k_neg", "Power of the ratio where A < 0, at least 0.");
      v(lambda_neg, "lambda_neg", "Decay in the ratio where A < 0, positive.");
      PolicyLossConfig::visit(v);
    }
  };
  using Batch = RolloutBatch;

  /// @throws Error for a negative power or a decay that is not positive.
  explicit Vespo(const Config& config);
  Vespo() : Vespo(Config{}) {}
  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const;

 private:
  [[nodiscard]] at::Tensor weight(const at::Tensor& log_ratio, const at::Tensor& advantages) const;

  PolicyTerms terms_;
  Config config_;
};
static_assert(RolloutLossType<Vespo>);

}  // namespace temper
