#include "temper/objective/advantage.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "temper/core/error.h"
#include "temper/kernels/group_advantages.h"
#include "temper/objective/gae.h"
#include "temper/objective/reinforce_pp.h"
#include "temper/objective/remax.h"

namespace temper {
namespace {

using kernels::GroupRule;
using kernels::GroupStat;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The kernel over rows [0, values.size()) in groups of `group`.
std::vector<GroupStat> grouped(std::span<const double> values, int64_t group, GroupRule rule,
                               double epsilon, double* advantages) {
  std::vector<int64_t> offsets;
  for (int64_t row = 0; row <= std::ssize(values); row += group) offsets.push_back(row);
  std::vector<GroupStat> stats(offsets.size() - 1);
  kernels::group_advantages({.rewards = values.data(),
                             .offsets = offsets.data(),
                             .groups = std::ssize(stats),
                             .rule = rule,
                             .eps = epsilon,
                             .advantages = advantages,
                             .stats = stats.data()});
  return stats;
}

/// Of all values: one group. The standard deviation is 0 for a single row.
GroupStat stat_of(std::span<const double> values) {
  if (values.empty()) return {.mean = kNaN, .std = kNaN};
  return grouped(values, std::ssize(values), GroupRule::kCentered, 0, nullptr)[0];
}

void check_table(const RewardTable& t) {
  TEMPER_CHECK(t.functions >= 1 && t.group_size >= 1,
               "[advantage] functions and group_size must be at least 1, got ", t.functions,
               " and ", t.group_size);
  TEMPER_CHECK(
      static_cast<int64_t>(t.values.size()) % t.functions == 0 && t.rows() % t.group_size == 0,
      "[advantage] ", t.values.size(), " rewards do not fill groups of ", t.group_size,
      " rows with ", t.functions, " rewards each");
  TEMPER_CHECK(t.weights.empty() || static_cast<int64_t>(t.weights.size()) == t.functions,
               "[advantage] ", t.functions, " reward functions and ", t.weights.size(), " weights");
  for (size_t i = 0; i < t.values.size(); ++i) {
    TEMPER_CHECK(!std::isinf(t.values[i]), "[advantage] reward function ",
                 i % static_cast<size_t>(t.functions), " returned an infinity for row ",
                 i / static_cast<size_t>(t.functions), "; return NaN for \"not scored\"");
  }
}

/// Weighted sums of each row's values, NaN left out; NaN for a row that no function scored whose
/// weight is not 0.
std::vector<double> weighted_sums(const RewardTable& t, std::span<const double> values) {
  const auto functions = static_cast<size_t>(t.functions);
  std::vector<double> sums(static_cast<size_t>(t.rows()), 0.0);
  for (size_t row = 0; row < sums.size(); ++row) {
    bool scored = false;
    for (size_t k = 0; k < functions; ++k) {
      const double weight = t.weights.empty() ? 1.0 : t.weights[k];
      scored = scored || (weight != 0 && !std::isnan(t.values[row * functions + k]));
      const double v = values[row * functions + k];
      if (!std::isnan(v)) sums[row] += v * weight;
    }
    if (!scored) sums[row] = kNaN;
  }
  return sums;
}

std::vector<double> column(const RewardTable& t, size_t function) {
  std::vector<double> out(static_cast<size_t>(t.rows()));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = t.values[i * static_cast<size_t>(t.functions) + function];
  }
  return out;
}

bool is_zero(double std) { return std::abs(std) <= 1e-8; }  // NaN is not zero.

double share_of_zero(std::span<const double> stds) {
  if (stds.empty()) return 0;
  return static_cast<double>(std::count_if(stds.begin(), stds.end(), is_zero)) /
         static_cast<double>(stds.size());
}

/// The sums, what there is to say about them, and the advantages by one of the kernel's rules.
Advantages by_group(const RewardTable& t, GroupRule rule, double epsilon) {
  check_table(t);
  Advantages a;
  a.rewards = weighted_sums(t, t.values);
  a.values.resize(a.rewards.size());
  for (const GroupStat& s : grouped(a.rewards, t.group_size, rule, epsilon, a.values.data())) {
    a.group_means.push_back(s.mean);
    a.group_stds.push_back(s.std);
    a.dead_groups.push_back(s.count < 2 || s.equal);
  }
  for (size_t k = 0; k < static_cast<size_t>(t.functions); ++k) {
    const GroupStat s = stat_of(column(t, k));
    a.function_means.push_back(s.mean);
    a.function_stds.push_back(s.count < 2 ? kNaN : s.std);
  }
  const GroupStat all = stat_of(a.rewards);
  a.reward_mean = all.mean;
  a.reward_std = all.count < 2 ? kNaN : all.std;
  a.frac_reward_zero_std = share_of_zero(a.group_stds);
  return a;
}

/// Leave-one-out over the rewards less their KL. What is said of groups follows the new spread.
void subtract_kl(const RewardTable& t, Advantages& a) {
  check_token_table(*t.tokens, t.rows(), t.group_size);
  a.kl_sums = token_kl(*t.tokens, kernels::KlEstimator::kK1).sums;
  if (!t.tokens->has_kl()) return;
  a.shaped_rewards = a.rewards;
  for (size_t i = 0; i < a.rewards.size(); ++i) {
    a.shaped_rewards[i] -= t.tokens->kl_coef * a.kl_sums[i];
  }
  const std::vector<GroupStat> stats = grouped(a.shaped_rewards, t.group_size,
                                               GroupRule::kLeaveOneOut, 0, a.values.data());
  std::vector<double> stds;
  for (size_t g = 0; g < stats.size(); ++g) {
    a.dead_groups[g] = stats[g].count < 2 || stats[g].equal;
    stds.push_back(stats[g].std);
  }
  a.frac_reward_zero_std = share_of_zero(stds);
}

/// `(x - mean) / (std + epsilon)` over all rows; 0 for NaN.
void normalize_rows(std::vector<double>& values, double epsilon) {
  if (values.empty()) return;
  grouped(values, std::ssize(values), GroupRule::kStandardized, epsilon, values.data());
}

}  // namespace

RewardTable reward_table(std::span<const std::vector<float>> per_function, int64_t group_size,
                         std::vector<double> weights) {
  TEMPER_CHECK(!per_function.empty(), "[advantage] there must be at least one reward function");
  const size_t rows = per_function[0].size();
  RewardTable t{.values = std::vector<double>(rows * per_function.size()),
                .functions = static_cast<int64_t>(per_function.size()),
                .group_size = group_size,
                .weights = std::move(weights)};
  for (size_t k = 0; k < per_function.size(); ++k) {
    TEMPER_CHECK(per_function[k].size() == rows, "[advantage] reward function ", k, " returned ",
                 per_function[k].size(), " rewards for ", rows, " completions");
    for (size_t i = 0; i < rows; ++i) {
      t.values[i * per_function.size() + k] = static_cast<double>(per_function[k][i]);
    }
  }
  return t;
}

Advantages GroupAdvantage::operator()(const RewardTable& t) const {
  return by_group(t, GroupRule::kStandardized, epsilon);
}

Advantages BatchAdvantage::operator()(const RewardTable& t) const {
  Advantages a = by_group(t, GroupRule::kCentered, 0);
  const double std = stat_of(a.rewards).std;
  a.frac_reward_zero_std = is_zero(std) ? 1 : 0;
  for (double& v : a.values) v = std::isnan(std) ? 0 : v / (std + epsilon);
  return a;
}

Advantages CenteredAdvantage::operator()(const RewardTable& t) const {
  return by_group(t, GroupRule::kCentered, 0);
}

Advantages DecoupledAdvantage::operator()(const RewardTable& t) const {
  Advantages a = by_group(t, GroupRule::kCentered, 0);
  const auto functions = static_cast<size_t>(t.functions);
  a.dead_groups.assign(a.dead_groups.size(), true);
  std::vector<double> z(t.values.size());
  for (size_t k = 0; k < functions; ++k) {
    std::vector<double> one = column(t, k);
    const std::vector<GroupStat> stats =
        grouped(one, t.group_size, GroupRule::kStandardized, epsilon, one.data());
    for (size_t g = 0; g < stats.size(); ++g) {
      if (stats[g].count >= 2 && !stats[g].equal) a.dead_groups[g] = false;
    }
    for (size_t i = 0; i < one.size(); ++i) z[i * functions + k] = one[i];
  }
  a.values = weighted_sums(t, z);
  a.frac_reward_zero_std = is_zero(stat_of(a.values).std) ? 1 : 0;
  normalize_rows(a.values, epsilon);
  return a;
}

Advantages LeaveOneOutAdvantage::operator()(const RewardTable& t) const {
  Advantages a = by_group(t, GroupRule::kLeaveOneOut, 0);
  if (t.tokens != nullptr) subtract_kl(t, a);
  if (!normalize) return a;
  // Rows without others to compare with stay out of the batch's mean.
  for (size_t i = 0; i < a.values.size(); ++i) {
    const bool alone =
        t.group_size == 1 || std::isnan(a.group_stds[i / static_cast<size_t>(t.group_size)]);
    if (alone || std::isnan(a.rewards[i])) a.values[i] = kNaN;
  }
  normalize_rows(a.values, epsilon);
  return a;
}

const std::vector<AdvantageEntry>& advantage_estimators() {
  static const std::vector<AdvantageEntry> table = {
      {"group", "Minus the group's mean, over the group's standard deviation.", GroupAdvantage{}},
      {"batch", "Minus the group's mean, over the batch's standard deviation.", BatchAdvantage{}},
      {"none", "Minus the group's mean.", CenteredAdvantage{}},
      {"gdpo", "Each reward function normalised in its group, then summed.", DecoupledAdvantage{}},
      {.name = "rloo",
       .doc = "Minus the mean of the group's other rows.",
       .estimator = LeaveOneOutAdvantage{},
       .needs_reference = true},
      {.name = "rloo_normalized",
       .doc = "As rloo, then normalised over the batch.",
       .estimator = LeaveOneOutAdvantage{.normalize = true},
       .needs_reference = true},
      {.name = "gae",
       .doc = "PPO: a critic's temporal differences, discounted and whitened.",
       .estimator = Gae{},
       .needs_tokens = true,
       .needs_reference = true,
       .needs_values = true,
       .compares_group = false},
      {.name = "reinforce_pp",
       .doc = "Rewards to go, whitened over the tokens of the rollout.",
       .estimator = ReinforcePp{},
       .needs_tokens = true,
       .needs_reference = true,
       .compares_group = false},
      {.name = "reinforce_pp_baseline",
       .doc = "As reinforce_pp, of scores less their group's mean.",
       .estimator = ReinforcePpBaseline{},
       .needs_tokens = true,
       .needs_reference = true},
      {.name = "remax",
       .doc = "Rewards to go, less the score of the prompt's greedy completion.",
       .estimator = ReMax{},
       .needs_tokens = true,
       .needs_reference = true,
       .needs_greedy = true,
       .compares_group = false},
  };
  return table;
}

std::vector<std::string> advantage_names() {
  std::vector<std::string> names;
  for (const AdvantageEntry& entry : advantage_estimators()) {
    if (!entry.needs_tokens) names.push_back(entry.name);
  }
  return names;
}

std::vector<std::string> all_advantage_names() {
  std::vector<std::string> names;
  for (const AdvantageEntry& entry : advantage_estimators()) names.push_back(entry.name);
  return names;
}

const AdvantageEntry& find_advantage_entry(std::string_view name) {
  for (const AdvantageEntry& entry : advantage_estimators()) {
    if (entry.name == name) return entry;
  }
  const std::string nearest = nearest_name(name, all_advantage_names());
  fail("[advantage] unknown estimator \"", name, "\"",
       nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
}

const AdvantageEstimator& find_advantage(std::string_view name) {
  return find_advantage_entry(name).estimator;
}

}  // namespace temper
