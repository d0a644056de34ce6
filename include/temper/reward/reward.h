#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "temper/data/dataset.h"

namespace temper {

/// One sampled completion, as a reward sees it.
struct Completion {
  std::string prompt;                ///< The rendered text that the model was given.
  std::string text;                  ///< The completion, special tokens left out.
  std::span<const int32_t> ids;      ///< Its tokens, the end token included if there is one.
  bool truncated = false;            ///< Cut by the token limit: no end token.
  const Example* example = nullptr;  ///< The dataset row (answer, extra columns), or null.
};

/// One score per completion, in order. NaN = not scored: that function is left out of the row's
/// sum. A reward may throw; `score` then excludes the rows that are to blame.
using RewardFn = std::function<std::vector<float>(std::span<const Completion>)>;

/// A reward with the name under which it is logged and its weight in the sum.
struct NamedReward {
  std::string name;
  RewardFn fn;
  double weight = 1.0;
};

/// Scores of B completions by K functions.
struct RewardScores {
  std::vector<std::string> names;     ///< [K]
  std::vector<float> values;          ///< [B x K] row-major; NaN = not scored, never infinite.
  std::vector<std::string> problems;  ///< Sentences about rows that were not scored, and why.

  [[nodiscard]] size_t rows() const { return names.empty() ? 0 : values.size() / names.size(); }
  [[nodiscard]] float at(size_t row, size_t k) const { return values[row * names.size() + k]; }
};

/// Calls every reward once with all completions.
///
/// A NaN or infinite score becomes NaN. A function that throws is called again row by row, and only
/// the rows on which it throws again become NaN; a function whose scores depend on the other rows
/// sees one row at a time then. Each case leaves a sentence that names function and sample.
/// @throws Error if there is no reward, a name is empty or used twice, a function is empty, or one
/// returns another number of scores than it was given completions (naming it), and RewardTimeout
/// (reward/timeout.h) as it comes.
[[nodiscard]] RewardScores score(std::span<const NamedReward> rewards,
                                 std::span<const Completion> completions);

/// Weighted sum per row, [B]: NaN terms are left out. A row without a score that counts stays NaN: a
/// function of weight 0 is only looked at, and its score does not make an unscored row one of 0.
/// @throws Error unless there is one weight per function.
[[nodiscard]] std::vector<float> total_rewards(const RewardScores& scores,
                                               std::span<const double> weights);

/// A reward from a function of one completion: `float f(const Completion&)`.
template <class F>
[[nodiscard]] RewardFn per_completion(F f) {
  return [f = std::move(f)](std::span<const Completion> completions) {
    std::vector<float> scores;
    scores.reserve(completions.size());
    for (const Completion& c : completions) scores.push_back(f(c));
    return scores;
  };
}

}  // namespace temper
