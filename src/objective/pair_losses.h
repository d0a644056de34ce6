#pragma once

#include <string_view>
#include <vector>

#include "temper/objective/dpo.h"

namespace temper {

/// What the losses of `Dpo` read of a micro-batch of P pairs; float64.
struct PairTerms {
  const DpoConfig* config = nullptr;
  const AnswerTotals* totals = nullptr;
  int64_t pairs = 0;        ///< P.
  at::Tensor chosen;        ///< [P] c, differentiable; undefined where no loss reads a reference.
  at::Tensor rejected;      ///< [P] r, likewise.
  at::Tensor delta;         ///< [P] D = f(c) - f(r).
  at::Tensor mean_delta;    ///< [P] h = f(c) / n_w - f(r) / n_l.
  at::Tensor policy;        ///< [2 P] sums of log pi, differentiable.
  at::Tensor reference;     ///< [2 P] sums of log ref.
  at::Tensor chosen_total;  ///< [P] sum of log pi over the preferred answer, each token weighing 1.
};

/// One loss of the family and the settings that it goes with.
struct PairLossEntry {
  const char* name;
  at::Tensor (*loss)(const PairTerms&);  ///< [P]; its mean over the step's pairs is the loss.
  bool divergences;                      ///< Has a form for every f-divergence.
  bool smoothing;                        ///< Reads `label_smoothing`.
  bool reference;                        ///< Reads the reference.
  bool sorted;                           ///< Sorts over the whole step.
  bool weighted;                         ///< Allows a weight a pair.
};

[[nodiscard]] const std::vector<PairLossEntry>& pair_losses();

/// The values of one side that stand at the rank of the other's: `at` of the sorted `values` for
/// each of the `count` entries of `others` from `first` on. Equal values rank in their order.
/// @throws Error if a value is not finite.
[[nodiscard]] std::vector<double> of_equal_rank(const std::vector<double>& values,
                                                const std::vector<double>& others, int64_t first,
                                                int64_t count);

}  // namespace temper
