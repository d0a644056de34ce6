#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/objective/token_table.h"

namespace temper {

/// Rewards of one rollout. Rows are completions, those of one prompt contiguous.
struct RewardTable {
  std::vector<double> values;   ///< [rows, functions], row-major; NaN: not scored.
  int64_t functions = 1;        ///< Reward functions.
  int64_t group_size = 1;       ///< Completions of one prompt; divides the rows.
  std::vector<double> weights;  ///< [functions]; empty: all 1.
  const TokenTable* tokens = nullptr;  ///< Of the same rows, for the estimators that read it.

  [[nodiscard]] int64_t rows() const {
    return static_cast<int64_t>(values.size()) / functions;
  }
};

/// A table from one list of rewards a function.
/// @throws Error if the lists differ in length.
[[nodiscard]] RewardTable reward_table(std::span<const std::vector<float>> per_function,
                                       int64_t group_size, std::vector<double> weights = {});

/// Advantages and what they were made from. Standard deviations are unbiased (n - 1), and NaN
/// where fewer than two values are scored; means are NaN where none is.
struct Advantages {
  std::vector<double> values;           ///< [rows]; 0 for a row that no function scored.
  std::vector<double> rewards;          ///< [rows] weighted sums; NaN for an unscored row.
  std::vector<double> group_means;      ///< [groups] of `rewards`.
  std::vector<double> group_stds;       ///< [groups] of `rewards`.
  std::vector<bool> dead_groups;        ///< [groups] nothing to learn from: equal rewards, or fewer
                                        ///< than two scored rows.
  std::vector<double> function_means;   ///< [functions] unweighted: `rewards/<name>/mean`.
  std::vector<double> function_stds;    ///< [functions] `rewards/<name>/std`.
  double reward_mean = 0;               ///< `reward`.
  double reward_std = 0;                ///< `reward_std`, over all rows.
  double frac_reward_zero_std = 0;      ///< Share of rows whose divisor is 0, in [0, 1].

  /// [total tokens] one advantage a token, 0 where masked; empty: a row's value is its tokens'.
  /// If set, `values` are its means over each row's active tokens.
  std::vector<float> tokens;
  std::vector<float> returns;  ///< [total tokens] a critic's targets; empty: none.
  /// [rows] KL to the reference, summed over active tokens, nats: `objective/kl` is their mean.
  /// Empty without a reference, or for an estimator that does not read it.
  std::vector<double> kl_sums;
  /// [rows] rewards summed over active tokens, KL penalty included: `objective/rlhf_reward` is
  /// their mean. NaN for an unscored row; empty for an estimator that does not shape rewards.
  std::vector<double> shaped_rewards;
};

/// Any rule from rewards to advantages, as a value. Pure: permuting groups permutes advantages.
/// @throws Error for a table whose sizes disagree or a reward that is infinite.
using AdvantageEstimator = std::function<Advantages(const RewardTable&)>;

/// Added to every divisor, as TRL does.
inline constexpr double kAdvantageEpsilon = 1e-4;

/// `(R - mean of the group) / (std of the group + epsilon)`: GRPO (Shao et al. 2024).
struct GroupAdvantage {
  double epsilon = kAdvantageEpsilon;
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;
};
/// `(R - mean of the group) / (std of all rows + epsilon)`.
struct BatchAdvantage {
  double epsilon = kAdvantageEpsilon;
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;
};
/// `R - mean of the group`: Dr. GRPO (Liu et al. 2025).
struct CenteredAdvantage {
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;
};
/// GDPO: each function is normalised within the group, then the weighted sum over all rows.
/// No function drowns another by its scale.
struct DecoupledAdvantage {
  double epsilon = kAdvantageEpsilon;
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;
};
/// `R - mean of the group's other rows`: RLOO (Ahmadian et al. 2024), equal to
/// `G / (G - 1) (R - mean of the group)`. With a `TokenTable` that has a KL, `R` is less `kl_coef`
/// times the row's summed k1; `rewards` and their statistics stay those before the KL.
struct LeaveOneOutAdvantage {
  bool normalize = false;  ///< Then `(A - mean) / (std + epsilon)` over all rows.
  double epsilon = kAdvantageEpsilon;
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;
};

/// One row of the table of estimators.
struct AdvantageEntry {
  std::string name;
  std::string doc;  ///< One line.
  AdvantageEstimator estimator;
  bool needs_tokens = false;     ///< Fails without `RewardTable::tokens`.
  bool needs_reference = false;  ///< Reads `ref_logprobs` where `TokenTable::kl_coef` is not 0.
  bool needs_values = false;     ///< Reads `TokenTable::values`: there must be a critic.
  bool needs_greedy = false;     ///< Reads `TokenTable::greedy_scores`.
  bool compares_group = true;    ///< Every advantage is 0 in groups of one completion.
};

/// `group` (the default), `batch`, `none`, `gdpo`, `rloo`, `rloo_normalized`; and those that need a
/// `TokenTable`, with their default settings: `gae`, `reinforce_pp`, `reinforce_pp_baseline`,
/// `remax`.
[[nodiscard]] const std::vector<AdvantageEntry>& advantage_estimators();

/// The names of the estimators that need nothing but rewards, in order: the choices of a config
/// field.
[[nodiscard]] std::vector<std::string> advantage_names();

/// The names of all of `advantage_estimators`.
[[nodiscard]] std::vector<std::string> all_advantage_names();

/// @throws Error for an unknown name, with the nearest known one.
[[nodiscard]] const AdvantageEntry& find_advantage_entry(std::string_view name);

/// @throws Error for an unknown name, with the nearest known one.
[[nodiscard]] const AdvantageEstimator& find_advantage(std::string_view name);

}  // namespace temper
