#include "temper/objective/reinforce_pp.h"

#include <cmath>

#include "token_rewards.h"

namespace temper {
namespace {

/// Shaped rewards of the scores, summed to the end and whitened.
Advantages whitened_to_go(const RewardTable& table, std::span<const double> scores,
                          const TokenRewardTerms& terms, double gamma, Advantages a) {
  const TokenTable& t = *table.tokens;
  const TokenRewards r = token_rewards(t, scores, terms, a);
  a.tokens = rewards_to_go(t, r, gamma);
  whiten_active(a.tokens, r.active, /*shift_mean=*/true);
  finish_rows(t, r.active, table.group_size, a);
  return a;
}

/// Takes the mean of each group's scored rows off its scores.
void center_groups(std::vector<double>& scores, int64_t group_size) {
  const auto size = static_cast<size_t>(group_size);
  for (size_t begin = 0; begin < scores.size(); begin += size) {
    double sum = 0;
    double count = 0;
    for (size_t i = begin; i < begin + size; ++i) {
      if (std::isnan(scores[i])) continue;
      sum += scores[i];
      ++count;
    }
    for (size_t i = begin; i < begin + size; ++i) scores[i] -= sum / count;
  }
}

}  // namespace

ReinforcePp::ReinforcePp(const Config& config) : config_(config) {
  const TokenRewardTerms checked(config, "reinforce_pp");
  check_share(config.gamma, "reinforce_pp", "gamma");
}

Advantages ReinforcePp::operator()(const RewardTable& table) const {
  const TokenTable& t = tokens_of(table, "reinforce_pp");
  const TokenRewardTerms terms(config_, "reinforce_pp");
  Advantages a = CenteredAdvantage{}(table);
  const std::vector<double> scores = row_scores(t, a.rewards, terms);
  return whitened_to_go(table, scores, terms, config_.gamma, std::move(a));
}

ReinforcePpBaseline::ReinforcePpBaseline(const Config& config) : config_(config) {
  const TokenRewardTerms checked(config, "reinforce_pp_baseline");
}

Advantages ReinforcePpBaseline::operator()(const RewardTable& table) const {
  const TokenTable& t = tokens_of(table, "reinforce_pp_baseline");
  const TokenRewardTerms terms(config_, "reinforce_pp_baseline");
  Advantages a = CenteredAdvantage{}(table);
  std::vector<double> scores = row_scores(t, a.rewards, terms);
  center_groups(scores, table.group_size);
  return whitened_to_go(table, scores, terms, /*gamma=*/1, std::move(a));
}

}  // namespace temper
