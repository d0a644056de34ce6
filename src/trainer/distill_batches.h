#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/trainer/distill.h"

namespace temper {

/// Rows of one forward of both models.
struct DistillTrainer::MicroBatch {
  TokenBatch student, teacher;
  ScoreRequest tokens;                ///< Tokens that count.
  std::vector<int32_t> teacher_rows;  ///< [tokens]
  std::vector<float> weights;         ///< [tokens] of their row.
  std::vector<size_t> row;            ///< [tokens] which row of the micro-batch they belong to.
};

/// Sums over a step's tokens, one after the other, so that they do not depend on how it is cut.
struct DistillTrainer::Sums {
  double divergence = 0, nll = 0;  ///< Weighted by the tokens' rows.
  double entropy = 0, agree = 0, tokens = 0;

  /// @throws Error naming the row of a number that is not finite.
  void add(const DivergenceScores& scores, const MicroBatch& batch, const Rows& rows,
           const std::string& source);
  void write_to(Metrics& out, double nll_weight, const std::string& prefix) const;
};

/// Tokens of these rows that count.
[[nodiscard]] double active_tokens(const std::vector<DistillRow>& rows);

/// The number of tokens with which all of the teacher's prompts begin, less than each has.
[[nodiscard]] size_t common_beginning(const std::vector<DistillRow>& a,
                                      const std::vector<DistillRow>& b);

}  // namespace temper
