#pragma once

#include "temper/objective/cpo.h"

namespace temper {

/// SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6): the value of `Cpo` with loss_type simpo and
/// no likelihood term, with the paper's scale of beta.
///
///     loss = mean over the step's pairs of -S(beta (mean log p_w - mean log p_l) - simpo_gamma)
///
/// Metrics: those of `Cpo`.
class Simpo {
 public:
  struct Config {
    double beta = 2;
    double simpo_gamma = 1;
    double label_smoothing = 0;

    template <class V>
    void visit(V&& v) {
      v(beta, "beta", "Scale of the difference of mean log-probs, above 0; 2 to 10 is usual.");
      v(simpo_gamma, "simpo_gamma",
        "By how much beta times the preferred answer's mean is to exceed the other's, at least 0; "
        "0.3 to 0.8 times beta is usual.");
      v(label_smoothing, "label_smoothing",
        "Share of preferences that are taken to be the wrong way round, in [0, 0.5).");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range.
  explicit Simpo(const Config& config)
      : loss_({.loss_type = "simpo",
               .beta = config.beta,
               .cpo_alpha = 0,
               .simpo_gamma = config.simpo_gamma,
               .label_smoothing = config.label_smoothing}) {}
  Simpo() : Simpo(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const { return loss_.needs(); }
  /// @throws Error if shapes or totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const { return loss_(batch); }

 private:
  Cpo loss_;
};
static_assert(Objective<Simpo>);

}  // namespace temper
