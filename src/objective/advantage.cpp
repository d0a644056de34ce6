#include "temper/objective/advantage.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "temper/core/error.h"

namespace temper {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Mean and unbiased standard deviation of the values that are no NaN.
struct Stats {
  int64_t count = 0;
  double mean = kNaN;
  double std = kNaN;
  /// All values are the same bits: then `mean` is that value and `std` is 0, without rounding.
  bool equal = false;
};

Stats stats_of(std::span<const double> values) {
  Stats s;
  double sum = 0;
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const double v : values) {
    if (std::isnan(v)) continue;
    ++s.count;
    sum += v;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  if (s.count == 0) return s;
  s.equal = low == high;
  s.mean = s.equal ? low : sum / static_cast<double>(s.count);
  if (s.count == 1) return s;
  double squares = 0;
  for (const double v : values) {
    if (!std::isnan(v)) squares += (v - s.mean) * (v - s.mean);
  }
  s.std = std::sqrt(squares / static_cast<double>(s.count - 1));
  return s;
}

/// A single completion a prompt has no spread: its standard deviation is taken as 0.
Stats group_stats(std::span<const double> values) {
  Stats s = stats_of(values);
  if (values.size() == 1) s.std = 0;
  return s;
}

void check_table(const RewardTable& t) {
  TEMPER_CHECK(t.functions >= 1 && t.group_size >= 1,
               "[advantage] functions and group_size must be at least 1, got ", t.functions,
               " and ", t.group_size);
  TEMPER_CHECK(static_cast<int64_t>(t.values.size()) % t.functions == 0 &&
                   t.rows() % t.group_size == 0,
               "[advantage] ", t.values.size(), " rewards do not fill groups of ", t.group_size,
               " rows with ", t.functions, " rewards each");
  TEMPER_CHECK(t.weights.empty() || static_cast<int64_t>(t.weights.size()) == t.functions,
               "[advantage] ", t.functions, " reward functions and ", t.weights.size(),
               " weights");
  for (size_t i = 0; i < t.values.size(); ++i) {
    TEMPER_CHECK(!std::isinf(t.values[i]), "[advantage] reward function ",
                 i % static_cast<size_t>(t.functions), " returned an infinity for row ",
                 i / static_cast<size_t>(t.functions), "; return NaN for \"not scored\"");
  }
}

/// Weighted sums of each row's values, NaN left out; NaN for a row of which `scored` has only NaN.
std::vector<double> weighted_sums(const RewardTable& t, std::span<const double> values) {
  const auto functions = static_cast<size_t>(t.functions);
  std::vector<double> sums(static_cast<size_t>(t.rows()), 0.0);
  for (size_t row = 0; row < sums.size(); ++row) {
    bool scored = false;
    for (size_t k = 0; k < functions; ++k) {
      scored = scored || !std::isnan(t.values[row * functions + k]);
      const double v = values[row * functions + k];
      if (!std::isnan(v)) sums[row] += v * (t.weights.empty() ? 1.0 : t.weights[k]);
    }
    if (!scored) sums[row] = kNaN;
  }
  return sums;
}

std::vector<double> column(const RewardTable& t, size_t function, size_t first, size_t rows) {
  std::vector<double> out(rows);
  for (size_t i = 0; i < rows; ++i) {
    out[i] = t.values[(first + i) * static_cast<size_t>(t.functions) + function];
  }
  return out;
}

/// Everything but the advantages.
Advantages summarize(const RewardTable& t) {
  check_table(t);
  Advantages a;
  a.rewards = weighted_sums(t, t.values);
  a.values.assign(a.rewards.size(), 0.0);
  const auto group = static_cast<size_t>(t.group_size);
  for (size_t first = 0; first < a.rewards.size(); first += group) {
    const Stats s = group_stats(std::span(a.rewards).subspan(first, group));
    a.group_means.push_back(s.mean);
    a.group_stds.push_back(s.std);
    a.dead_groups.push_back(s.count < 2 || s.equal);
  }
  for (size_t k = 0; k < static_cast<size_t>(t.functions); ++k) {
    const Stats s = stats_of(column(t, k, 0, a.rewards.size()));
    a.function_means.push_back(s.mean);
    a.function_stds.push_back(s.std);
  }
  const Stats all = stats_of(a.rewards);
  a.reward_mean = all.mean;
  a.reward_std = all.std;
  return a;
}

bool is_zero(double std) { return std::abs(std) <= 1e-8; }  // NaN is not zero.

double share_of_zero(std::span<const double> stds) {
  if (stds.empty()) return 0;
  return static_cast<double>(std::count_if(stds.begin(), stds.end(), is_zero)) /
         static_cast<double>(stds.size());
}

void unscored_to_zero(std::vector<double>& values) {
  for (double& v : values) {
    if (std::isnan(v)) v = 0;
  }
}

/// Standard deviation over all rows; 0 for a single row.
double batch_std(std::span<const double> values) { return group_stats(values).std; }

/// `R - mean of the group`, divided by `divisor(group)`; a NaN divisor gives 0.
template <class Divisor>
Advantages centered(const RewardTable& t, Advantages a, const Divisor& divisor) {
  for (size_t i = 0; i < a.values.size(); ++i) {
    const size_t group = i / static_cast<size_t>(t.group_size);
    a.values[i] = (a.rewards[i] - a.group_means[group]) / divisor(group);
  }
  unscored_to_zero(a.values);
  return a;
}

/// `(x - mean) / (std + epsilon)` over all rows.
void normalize_rows(std::vector<double>& values, double epsilon) {
  const double mean = stats_of(values).mean;
  const double divisor = batch_std(values) + epsilon;
  for (double& v : values) v = (v - mean) / divisor;
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
  Advantages a = summarize(t);
  a.frac_reward_zero_std = share_of_zero(a.group_stds);
  const std::vector<double> stds = a.group_stds;
  return centered(t, std::move(a), [&](size_t group) { return stds[group] + epsilon; });
}

Advantages BatchAdvantage::operator()(const RewardTable& t) const {
  Advantages a = summarize(t);
  const double std = batch_std(a.rewards);
  a.frac_reward_zero_std = is_zero(std) ? 1 : 0;
  return centered(t, std::move(a), [&](size_t) { return std + epsilon; });
}

Advantages CenteredAdvantage::operator()(const RewardTable& t) const {
  Advantages a = summarize(t);
  a.frac_reward_zero_std = share_of_zero(a.group_stds);
  return centered(t, std::move(a), [](size_t) { return 1.0; });
}

Advantages DecoupledAdvantage::operator()(const RewardTable& t) const {
  Advantages a = summarize(t);
  const auto group = static_cast<size_t>(t.group_size);
  const auto functions = static_cast<size_t>(t.functions);
  a.dead_groups.assign(a.dead_groups.size(), true);
  std::vector<double> z(t.values.size());
  for (size_t first = 0; first < a.rewards.size(); first += group) {
    for (size_t k = 0; k < functions; ++k) {
      const Stats s = group_stats(column(t, k, first, group));
      if (s.count >= 2 && !s.equal) a.dead_groups[first / group] = false;
      for (size_t i = first; i < first + group; ++i) {
        z[i * functions + k] = (t.values[i * functions + k] - s.mean) / (s.std + epsilon);
      }
    }
  }
  a.values = weighted_sums(t, z);
  a.frac_reward_zero_std = is_zero(batch_std(a.values)) ? 1 : 0;
  normalize_rows(a.values, epsilon);
  unscored_to_zero(a.values);
  return a;
}

Advantages LeaveOneOutAdvantage::operator()(const RewardTable& t) const {
  Advantages a = summarize(t);
  a.frac_reward_zero_std = share_of_zero(a.group_stds);
  const auto group = static_cast<size_t>(t.group_size);
  for (size_t first = 0; first < a.rewards.size(); first += group) {
    const Stats s = stats_of(std::span(a.rewards).subspan(first, group));
    const auto n = static_cast<double>(s.count);
    // The same as R minus the others' mean, and exactly 0 for equal rewards.
    for (size_t i = first; i < first + group; ++i) {
      a.values[i] = s.count < 2 ? kNaN : (a.rewards[i] - s.mean) * (n / (n - 1));
    }
  }
  if (normalize) normalize_rows(a.values, epsilon);
  unscored_to_zero(a.values);
  return a;
}

const std::vector<AdvantageEntry>& advantage_estimators() {
  static const std::vector<AdvantageEntry> table = {
      {"group", "Minus the group's mean, over the group's standard deviation.", GroupAdvantage{}},
      {"batch", "Minus the group's mean, over the batch's standard deviation.", BatchAdvantage{}},
      {"none", "Minus the group's mean.", CenteredAdvantage{}},
      {"gdpo", "Each reward function normalised in its group, then summed.", DecoupledAdvantage{}},
      {"rloo", "Minus the mean of the group's other rows.", LeaveOneOutAdvantage{}},
      {"rloo_normalized", "As rloo, then normalised over the batch.",
       LeaveOneOutAdvantage{.normalize = true}},
  };
  return table;
}

std::vector<std::string> advantage_names() {
  std::vector<std::string> names;
  for (const AdvantageEntry& entry : advantage_estimators()) names.push_back(entry.name);
  return names;
}

const AdvantageEstimator& find_advantage(std::string_view name) {
  for (const AdvantageEntry& entry : advantage_estimators()) {
    if (entry.name == name) return entry.estimator;
  }
  const std::string nearest = nearest_name(name, advantage_names());
  fail("[advantage] unknown estimator \"", name, "\"",
       nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
}

}  // namespace temper
