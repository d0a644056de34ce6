#include "temper/objective/remax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "temper/core/error.h"
#include "token_rewards.h"

namespace temper {

ReMax::ReMax(const Config& config) : config_(config) {
  const TokenRewardTerms checked(config, "remax");
}

Advantages ReMax::operator()(const RewardTable& table) const {
  const TokenTable& t = tokens_of(table, "remax");
  const TokenRewardTerms terms(config_, "remax");
  TEMPER_CHECK(!t.greedy_scores.empty() || t.rows() == 0,
               "[remax] this estimator needs each prompt's greedy score "
               "(TokenTable::greedy_scores)");
  Advantages a = CenteredAdvantage{}(table);
  std::vector<double> scores = row_scores(t, a.rewards, terms);
  const auto group = static_cast<size_t>(table.group_size);
  for (size_t row = 0; row < scores.size(); ++row) {
    // Nothing to compare with: as a row that was not scored.
    if (std::isnan(t.greedy_scores[row / group])) {
      scores[row] = std::numeric_limits<double>::quiet_NaN();
    }
  }
  const TokenRewards r = token_rewards(t, scores, terms, a);
  a.tokens = rewards_to_go(t, r, /*gamma=*/1);
  for (size_t row = 0; row < scores.size(); ++row) {
    double baseline = t.reward_scale * t.greedy_scores[row / group];
    if (terms.reward_clip > 0) {
      baseline = std::clamp(baseline, -terms.reward_clip, terms.reward_clip);
    }
    for (auto i = static_cast<size_t>(t.offsets[row]); i < static_cast<size_t>(t.offsets[row + 1]);
         ++i) {
      if (r.active[i] != 0) a.tokens[i] = static_cast<float>(double{a.tokens[i]} - baseline);
    }
  }
  finish_rows(t, r.active, table.group_size, a);
  return a;
}

}  // namespace temper
