#pragma once

#include <string>
#include <vector>

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

struct PairTerms;

/// Settings of `Dpo`. Names and defaults are TRL's where TRL has them.
struct DpoConfig {
  std::vector<std::string> loss_type = {"sigmoid"};
  std::vector<double> loss_weights;
  double beta = 0.1;
  double label_smoothing = 0;
  std::string f_divergence = "reverse_kl";
  double f_alpha = 0.5;
  double discopop_tau = 0.05;
  double ld_alpha = 1;
  bool use_weighting = false;

  template <class V>
  void visit(V&& v) {
    v(loss_type, "loss_type",
      "One loss or several that are added: sigmoid, cdpo, hinge, ipo, sigmoid_norm, exo_pair, "
      "robust, discopop, sft, nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, "
      "apo_down.");
    v(loss_weights, "loss_weights", "Weight of each loss in loss_type; empty: 1 each.");
    v(beta, "beta", "How strongly the policy is held to the reference, above 0.");
    v(label_smoothing, "label_smoothing",
      "Share of preferences that are taken to be the wrong way round, in [0, 0.5); read by cdpo, "
      "robust, exo_pair (there above 0; 0.001 is usual), aot and aot_unpaired.");
    v(f_divergence, "f_divergence", "Divergence from the reference that the reward stands for.",
      {"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"});
    v(f_alpha, "f_alpha", "Order of alpha_divergence; 1 is reverse_kl.");
    v(discopop_tau, "discopop_tau", "Temperature of the blend in discopop, above 0.");
    v(ld_alpha, "ld_alpha",
      "Weight of an answer's tokens beyond the length of the pair's shorter one, in [0, 1]; 1: "
      "all count the same.");
    v(use_weighting, "use_weighting",
      "Weight pairs by how likely the policy would be to write them (WPO); not with aot, "
      "aot_unpaired, sft.");
  }
};

/// Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) and its relatives over
/// pairs. With c and r the sums of log pi - log ref over the active tokens of the preferred and the
/// other answer, S = log sigmoid, sg = sigmoid, e = label_smoothing, n_w and n_l active tokens:
///
///     f(x)  x  |  1 - exp(-x)  |  log 2 + S(x)  |  (exp((a - 1) x) - 1) / (a - 1)
///     D     f(c) - f(r);   h = f(c) / n_w - f(r) / n_l
///
///     sigmoid       -S(beta D)                           arXiv 2305.18290
///     cdpo          -(1 - e) S(beta D) - e S(-beta D)    conservative DPO, Mitchell 2023
///     robust        [-(1 - e) S(beta D) + e S(-beta D)] / (1 - 2 e)           arXiv 2403.00409
///     hinge         max(0, 1 - beta D)                   arXiv 2305.10425
///     ipo           (h - 1 / (2 beta))^2                 arXiv 2310.12036
///     sigmoid_norm  -S(beta h)
///     exo_pair      KL(sg(beta D) | 1 - e)               arXiv 2402.00856
///     discopop      -S(u) sg(-u / tau) + exp(-u) sg(u / tau),  u = beta D      arXiv 2406.08414
///     sft           -sum log pi of the preferred, over the step's chosen tokens
///     nca_pair      -S(beta c) - S(-beta c) / 2 - S(-beta r) / 2               arXiv 2402.05369
///     bco_pair      -S(beta c) - S(-beta r)              arXiv 2404.04656
///     sppo_hard     (c - 1 / (2 beta))^2 + (r + 1 / (2 beta))^2                arXiv 2405.00675
///     apo_zero      1 - sg(beta c) + sg(beta r)          arXiv 2408.06266
///     apo_down      sg(beta c) + 1 - sg(beta (c - r))
///     aot           cdpo of x = sort(lp_w - lp_l) - sort(ref_w - ref_l)        arXiv 2406.05882
///     aot_unpaired  cdpo of x = sort(c) - sort(r)
///
/// loss = sum_j loss_weights_j mean over the step's pairs. Arithmetic is float64; exponents of f
/// are held to 80, so no log-ratio overflows.
///
/// `aot` and `aot_unpaired` sort over the whole step (`AnswerTotals::sums`): an answer of the
/// micro-batch meets its partner of equal rank as a constant. A term of `aot_unpaired` is counted
/// once at each end with half its value and its whole slope, so values and gradients add up to
/// those of the step in one piece.
///
/// Departures from TRL 1.16.0: `sft` divides by the step's tokens, `aot*` sort over the step, where
/// TRL does both by the micro-batch; a smoothing that no loss reads is an error.
///
/// Metrics: `rewards/{chosen,rejected,margins,accuracies}` (beta times log-ratios whatever f is; a
/// tie is not right; where there is a reference), `logps/{chosen,rejected}`.
class Dpo {
 public:
  using Config = DpoConfig;
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range or does not go with another.
  explicit Dpo(const Config& config);
  Dpo() : Dpo(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if something that `needs` names is missing, or shapes or totals disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  using PairLoss = at::Tensor (*)(const PairTerms&);
  struct Term {
    PairLoss loss;
    double weight;
  };

  DpoConfig config_;
  at::Tensor (*score_)(const at::Tensor& log_ratio, double alpha) = nullptr;
  std::vector<Term> terms_;
  OfflineNeeds needs_;
};
static_assert(Objective<Dpo>);

}  // namespace temper
