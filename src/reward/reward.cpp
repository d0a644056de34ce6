#include "temper/reward/reward.h"

#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "temper/core/error.h"
#include "temper/reward/timeout.h"

namespace temper {
namespace {

constexpr float kNotScored = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kListedProblems = 8;  ///< Sentences per function; the rest are counted.

std::string sample_name(std::span<const Completion> completions, size_t i) {
  const Example* example = completions[i].example;
  return example == nullptr ? concat("sample ", i)
                            : concat("sample ", i, " (prompt id ", example->id, ")");
}

/// One function's column, and the sentences about it.
class Column {
 public:
  Column(const NamedReward& reward, std::span<const Completion> completions)
      : reward_(reward), completions_(completions) {}

  std::vector<float> compute() {
    std::vector<float> scores;
    if (auto whole = attempt(completions_)) {
      scores = std::move(*whole);
    } else {
      scores = row_by_row();
    }
    for (size_t i = 0; i < scores.size(); ++i) check(scores[i], i);
    if (!unscored_.empty()) report_unscored();
    if (problems_.size() > kListedProblems) {
      const size_t more = problems_.size() - kListedProblems;
      problems_.resize(kListedProblems);
      problems_.push_back(concat("reward \"", reward_.name, "\": ", more, " more like these"));
    }
    return scores;
  }

  [[nodiscard]] std::vector<std::string> take_problems() { return std::move(problems_); }

 private:
  /// The function's answer, or nothing (and `reason_`) when it throws.
  std::optional<std::vector<float>> attempt(std::span<const Completion> rows) {
    std::vector<float> scores;
    try {
      scores = reward_.fn(rows);
    } catch (const RewardTimeout&) {
      throw;
    } catch (const std::exception& e) {
      reason_ = e.what();
      return std::nullopt;
    } catch (...) {
      reason_ = "an exception that is no std::exception";
      return std::nullopt;
    }
    TEMPER_CHECK(scores.size() == rows.size(), "[score] reward \"", reward_.name, "\" returned ",
                 scores.size(), " scores for ", rows.size(),
                 " completions: it must return one a completion, NaN for one it does not score");
    return scores;
  }

  std::vector<float> row_by_row() {
    std::vector<float> scores;
    for (size_t i = 0; i < completions_.size(); ++i) {
      if (auto one = attempt(completions_.subspan(i, 1))) {
        scores.push_back(one->front());
        continue;
      }
      scores.push_back(kNotScored);
      threw_.insert(i);
      problems_.push_back(concat("reward \"", reward_.name, "\" threw on ",
                                 sample_name(completions_, i), ", which is left out: ", reason_));
    }
    if (threw_.empty()) {
      problems_.push_back(concat("reward \"", reward_.name,
                                 "\" threw for the whole batch but for "
                                 "none of its rows alone; the rows' own scores are used: ",
                                 reason_));
    }
    return scores;
  }

  void check(float& value, size_t i) {
    if (threw_.contains(i)) return;
    if (std::isinf(value)) {
      problems_.push_back(concat("reward \"", reward_.name, "\" gave ",
                                 value > 0 ? "+infinity" : "-infinity", " for ",
                                 sample_name(completions_, i), ", which is left out"));
      value = kNotScored;
    } else if (std::isnan(value)) {
      unscored_.push_back(i);
    }
  }

  /// NaN is a legal answer and may be frequent: one sentence for all rows.
  void report_unscored() {
    std::string list;
    for (size_t n = 0; n < unscored_.size() && n < kListedProblems; ++n) {
      list += (n == 0 ? "" : ", ") + sample_name(completions_, unscored_[n]);
    }
    if (unscored_.size() > kListedProblems) list += ", ...";
    problems_.insert(problems_.begin(),
                     concat("reward \"", reward_.name, "\" did not score ", unscored_.size(),
                            " of ", completions_.size(), " completions (NaN): ", list));
  }

  const NamedReward& reward_;
  std::span<const Completion> completions_;
  std::set<size_t> threw_;
  std::vector<size_t> unscored_;
  std::vector<std::string> problems_;
  std::string reason_;
};

void check_rewards(std::span<const NamedReward> rewards) {
  TEMPER_CHECK(!rewards.empty(), "[score] at least one reward is needed");
  std::set<std::string> names;
  for (const NamedReward& reward : rewards) {
    TEMPER_CHECK(!reward.name.empty(), "[score] a reward has no name");
    TEMPER_CHECK(names.insert(reward.name).second, "[score] two rewards are called \"", reward.name,
                 "\": give each a name of its own");
    TEMPER_CHECK(reward.fn, "[score] reward \"", reward.name, "\" has no function");
  }
}

}  // namespace

RewardScores score(std::span<const NamedReward> rewards, std::span<const Completion> completions) {
  check_rewards(rewards);
  RewardScores out;
  out.values.assign(completions.size() * rewards.size(), kNotScored);
  for (size_t k = 0; k < rewards.size(); ++k) {
    out.names.push_back(rewards[k].name);
    if (completions.empty()) continue;
    Column column(rewards[k], completions);
    const std::vector<float> scores = column.compute();
    for (size_t i = 0; i < scores.size(); ++i) out.values[i * rewards.size() + k] = scores[i];
    for (auto& sentence : column.take_problems()) out.problems.push_back(std::move(sentence));
  }
  return out;
}

std::vector<float> total_rewards(const RewardScores& scores, std::span<const double> weights) {
  TEMPER_CHECK(weights.size() == scores.names.size(), "[total_rewards] expected ",
               scores.names.size(), " weights, one a reward, got ", weights.size());
  std::vector<float> totals(scores.rows(), kNotScored);
  for (size_t i = 0; i < totals.size(); ++i) {
    double sum = 0;
    bool any = false;
    for (size_t k = 0; k < weights.size(); ++k) {
      const float value = scores.at(i, k);
      if (std::isnan(value) || weights[k] == 0) continue;
      sum += weights[k] * value;
      any = true;
    }
    if (any) totals[i] = static_cast<float>(sum);
  }
  return totals;
}

}  // namespace temper
