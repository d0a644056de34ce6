#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "temper/reward/reward.h"

namespace temper {

/// Two answers to one prompt, in the order in which a judge is shown them. Copies; what `ids` and
/// `example` refer to outlives the call that they are passed to.
struct AnswerPair {
  Completion first, second;
};

/// What says which of the policy's own answers is better: a rule, a reward model, a judge that reads
/// both, the policy itself. At least one of its functions is set.
struct Labeler {
  std::string name;
  /// A mark for each completion, higher is better, NaN = none. May be empty.
  RewardFn scores;
  /// P(the first answer is preferred) of each pair, in [0, 1], NaN = no label. Empty: by their marks.
  std::function<std::vector<double>(std::span<const AnswerPair>)> prefer;
  /// How two marks become that probability where `prefer` is empty. Empty: 1, 1/2 or 0, as the first
  /// mark is above, equal to or below the second; `bradley_terry` for marks that are log-odds.
  std::function<double(double first, double second)> link;
};

/// Marks by the weighted sum of rewards, rules and reward models alike (`total_rewards`): a function
/// that throws or gives no number leaves its term out and a warning in the log.
/// @throws Error if there is no reward. The labeler throws as `score` does (RewardTimeout, too).
[[nodiscard]] Labeler reward_labeler(std::vector<NamedReward> rewards);

/// sigmoid(first - second) (Bradley and Terry 1952): what the marks of a reward model mean.
[[nodiscard]] double bradley_terry(double first, double second);

/// P(the first is preferred) by two marks, as the labeler links them; NaN where one of them is NaN.
[[nodiscard]] double preference_by_marks(const Labeler& labeler, double first, double second);

/// The labeler with `penalty` taken off the marks of answers that the length limit cut. @throws Error
/// for a labeler without marks and a penalty other than 0.
[[nodiscard]] Labeler penalize_cut_answers(Labeler labeler, double penalty);

/// P(the first is preferred) of each pair, NaN where there is no label.
/// @throws Error, naming the labeler, if it has no function, returns another number of labels than
/// there are pairs, or a number outside [0, 1].
[[nodiscard]] std::vector<double> preferences(const Labeler& labeler,
                                              std::span<const AnswerPair> pairs);

/// A mark for each of the completions, which are groups of `group_size` answers to one prompt each;
/// NaN = none. From `scores`; a labeler that has none compares every two answers of a group (n (n -
/// 1) / 2 questions), and a mark is the mean of P(preferred) over the others, where there is one.
/// @throws Error as `preferences`, or if the completions are no whole number of groups.
[[nodiscard]] std::vector<double> marks(const Labeler& labeler,
                                        std::span<const Completion> completions,
                                        size_t group_size);

/// The pair that a group of answers makes.
struct PairChoice {
  size_t chosen = 0;    ///< Index in the group.
  size_t rejected = 0;
  double margin = 0;    ///< Difference of their marks, above 0.
};

/// The answer with the highest mark against the one with the lowest; of equal marks the earlier.
/// Answers without a mark (NaN) are left out. @return nothing where fewer than two have one, all are
/// equal, or the difference is below `min_margin`.
[[nodiscard]] std::optional<PairChoice> best_against_worst(std::span<const double> marks,
                                                           double min_margin = 0);

}  // namespace temper
