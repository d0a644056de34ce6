#pragma once

#include <string>

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// Losses over pairs without a reference. With x_w and x_l the sum (sigmoid, hinge) or the mean
/// (ipo, simpo, alphapo) of an answer's active log-probs, or (1 - exp(-alpha x)) / alpha of it
/// where alpha is not 0, D = x_w - x_l, S = log sigmoid, e = label_smoothing:
///
///     sigmoid  -(1 - e) S(beta D) - e S(-beta D)          CPO, Xu et al. 2024, arXiv 2401.08417
///     hinge    max(0, 1 - beta D)                         SLiC, arXiv 2305.10425
///     ipo      (D - 1 / (2 beta))^2                       arXiv 2310.12036
///     simpo    as sigmoid with beta D - simpo_gamma       Meng et al. 2024, arXiv 2405.14734
///     alphapo  simpo without the likelihood term          Gupta et al. 2025, arXiv 2501.03884
///
/// loss = mean over the step's pairs + cpo_alpha times the mean of -log p over the active tokens of
/// the step's preferred answers. Exponents of alpha are held to 80.
///
/// Metrics: `rewards/{chosen,rejected,margins,accuracies}` (beta x), `logps/{chosen,rejected}` (the
/// sum or mean, as above), `nll_loss` (0 where cpo_alpha is 0).
class Cpo {
 public:
  struct Config {
    std::string loss_type = "sigmoid";
    double beta = 0.1;
    double cpo_alpha = 1;
    double simpo_gamma = 0.5;
    double label_smoothing = 0;
    double alpha = 0;

    template <class V>
    void visit(V&& v) {
      v(loss_type, "loss_type",
        "sigmoid and hinge compare sums of log-probs; ipo, simpo and alphapo their means.",
        {"sigmoid", "hinge", "ipo", "simpo", "alphapo"});
      v(beta, "beta", "Scale of the difference of log-probs, above 0.");
      v(cpo_alpha, "cpo_alpha",
        "Weight of the likelihood of the preferred answers, at least 0; alphapo takes it as 0.");
      v(simpo_gamma, "simpo_gamma",
        "By how much beta times the preferred answer's mean is to exceed the other's, at least 0; "
        "read by simpo and alphapo.");
      v(label_smoothing, "label_smoothing",
        "Share of preferences that are taken to be the wrong way round, in [0, 0.5); read by "
        "sigmoid, simpo and alphapo.");
      v(alpha, "alpha", "Shape of AlphaPO's reward; 0: the log-prob itself.");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range or does not go with another.
  explicit Cpo(const Config& config);
  Cpo() : Cpo(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if shapes or totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  Config config_;
  at::Tensor (*loss_)(const at::Tensor& difference, const Config& config) = nullptr;
  bool means_ = false;
};
static_assert(Objective<Cpo>);

}  // namespace temper
