#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"

namespace temper {

/// ORPO (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7): supervised fine-tuning on the preferred
/// answers and a log odds ratio in one loss over pairs, without a reference. With x_w and x_l the
/// means of an answer's active log-probs and S = log sigmoid:
///
///     o = x_w - x_l - log(1 - exp x_w) + log(1 - exp x_l)
///     loss = NLL - beta mean over the step's pairs of S(o)
///
/// NLL is the mean of -log p over the preferred answers' active tokens and the tokens of their
/// prompts (`AnswerBatch::prompt_logprobs`), of the whole step.
///
/// An x above -1e-6 counts as -1e-6 in o: an answer of probability 1 has infinite odds. Arithmetic
/// is float64, where TRL's is float32.
///
/// Metrics: `rewards/{chosen,rejected,margins,accuracies}` (beta x), `logps/{chosen,rejected}` (x),
/// `nll_loss`, `log_odds_ratio` (mean S(o)), `log_odds_chosen` (mean o).
class Orpo {
 public:
  struct Config {
    double beta = 0.1;

    template <class V>
    void visit(V&& v) {
      v(beta, "beta", "Weight of the odds ratio beside the likelihood, at least 0.");
    }
  };
  using Batch = AnswerBatch;

  /// @throws Error naming a setting that is out of range.
  explicit Orpo(const Config& config);
  Orpo() : Orpo(Config{}) {}

  [[nodiscard]] OfflineNeeds needs() const;
  /// @throws Error if `prompt_logprobs` is missing while the step counts some, or shapes or totals
  ///         disagree.
  LossOutput operator()(const AnswerBatch& batch) const;

 private:
  Config config_;
};
static_assert(Objective<Orpo>);

}  // namespace temper
