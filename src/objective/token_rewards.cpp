#include "token_rewards.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "temper/core/error.h"
#include "temper/kernels/gae.h"
#include "temper/kernels/masked_stats.h"

namespace temper {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The mask without the tokens of rows that have no score.
std::vector<uint8_t> scored_tokens(const TokenTable& t, std::span<const double> scores) {
  std::vector<uint8_t> active(static_cast<size_t>(t.tokens()), 1);
  if (!t.mask.empty()) active = t.mask;
  for (size_t row = 0; row < scores.size(); ++row) {
    if (std::isnan(scores[row])) {
      std::fill(active.begin() + t.offsets[row], active.begin() + t.offsets[row + 1], uint8_t{0});
    }
  }
  return active;
}

/// Each row's rewards, summed; NaN for a row without a score.
std::vector<double> sums_of_rows(const TokenTable& t, std::span<const double> scores,
                                 const TokenRewards& r) {
  std::vector<double> sums;
  for (size_t row = 0; row < scores.size(); ++row) {
    double sum = std::isnan(scores[row]) ? kNaN : 0;
    for (int64_t i = t.offsets[row]; i < t.offsets[row + 1]; ++i) {
      const float reward = r.rewards[static_cast<size_t>(i)];
      TEMPER_CHECK(std::isfinite(reward), "[advantage] the reward of token ", i - t.offsets[row],
                   " of row ", row, " is ", reward, "; its log-probabilities may be infinite");
      sum += double{reward};
    }
    sums.push_back(sum);
  }
  return sums;
}

}  // namespace

TokenRewardTerms::TokenRewardTerms(const TokenRewardConfig& c, const char* estimator)
    : missing_eos_penalty(c.missing_eos_penalty), reward_clip(c.reward_clip) {
  TEMPER_CHECK(c.kl_estimator == "k1" || c.kl_estimator == "k3", "[", estimator,
               "] kl_estimator must be \"k1\" or \"k3\", got \"", c.kl_estimator, "\"");
  if (c.kl_estimator == "k3") kl_estimator = kernels::KlEstimator::kK3;
  TEMPER_CHECK(std::isfinite(missing_eos_penalty) && missing_eos_penalty >= 0, "[", estimator,
               "] missing_eos_penalty must be finite and at least 0, got ", missing_eos_penalty);
  TEMPER_CHECK(reward_clip >= 0, "[", estimator, "] reward_clip must be at least 0, got ",
               reward_clip);
}

void check_share(double value, const char* estimator, const char* name) {
  TEMPER_CHECK(value >= 0 && value <= 1, "[", estimator, "] ", name, " must be in [0, 1], got ",
               value);
}

const TokenTable& tokens_of(const RewardTable& table, const char* estimator) {
  TEMPER_CHECK(table.tokens != nullptr, "[", estimator,
               "] this estimator needs the rollout's tokens (RewardTable::tokens)");
  check_token_table(*table.tokens, table.rows(), table.group_size);
  return *table.tokens;
}

std::vector<double> row_scores(const TokenTable& t, std::span<const double> rewards,
                               const TokenRewardTerms& terms) {
  std::vector<double> scores(rewards.begin(), rewards.end());
  for (size_t row = 0; row < scores.size(); ++row) {
    if (!t.truncated.empty() && t.truncated[row] != 0) scores[row] -= terms.missing_eos_penalty;
    scores[row] *= t.reward_scale;
  }
  return scores;
}

TokenRewards token_rewards(const TokenTable& t, std::span<const double> scores,
                           const TokenRewardTerms& terms, Advantages& a) {
  TokenRewards r{.active = scored_tokens(t, scores),
                 .rewards = std::vector<float>(static_cast<size_t>(t.tokens()))};
  TokenKl kl = token_kl(t, terms.kl_estimator);
  const std::vector<float> rounded(scores.begin(), scores.end());
  kernels::shape_rewards({.kl = t.has_kl() ? kl.tokens.data() : nullptr,
                          .scores = rounded.data(),
                          .mask = r.active.data(),
                          .offsets = t.offsets.data(),
                          .sequences = t.rows(),
                          .kl_coef = t.kl_coef,
                          .score_clip = terms.reward_clip,
                          .rewards = r.rewards.data()});
  a.kl_sums = std::move(kl.sums);
  a.shaped_rewards = sums_of_rows(t, scores, r);
  return r;
}

std::vector<float> rewards_to_go(const TokenTable& t, const TokenRewards& r, double gamma) {
  // With all values 0 and lambda 1 the recursion is the discounted sum.
  const std::vector<float> zeros(r.rewards.size());
  std::vector<float> out(r.rewards.size());
  kernels::gae({.rewards = r.rewards.data(),
                .values = zeros.data(),
                .mask = r.active.data(),
                .offsets = t.offsets.data(),
                .sequences = t.rows(),
                .gamma = gamma,
                .lambda = 1,
                .advantages = out.data()});
  return out;
}

void whiten_active(std::vector<float>& x, std::span<const uint8_t> active, bool shift_mean) {
  const auto count = static_cast<int64_t>(x.size());
  const kernels::MaskedStats stats = kernels::masked_stats(x.data(), active.data(), count);
  kernels::whiten({.x = x.data(),
                   .mask = active.data(),
                   .count = count,
                   .stats = &stats,
                   .shift_mean = shift_mean,
                   .y = x.data()});
}

void finish_rows(const TokenTable& t, std::span<const uint8_t> active, int64_t group_size,
                 Advantages& a) {
  std::fill(a.dead_groups.begin(), a.dead_groups.end(), true);
  for (size_t row = 0; row < a.values.size(); ++row) {
    double sum = 0;
    int64_t count = 0;
    bool teaches = false;
    for (auto i = static_cast<size_t>(t.offsets[row]); i < static_cast<size_t>(t.offsets[row + 1]);
         ++i) {
      if (active[i] == 0) continue;
      ++count;
      sum += double{a.tokens[i]};
      teaches = teaches || !a.returns.empty() || a.tokens[i] != 0;
    }
    a.values[row] = count == 0 ? 0 : sum / static_cast<double>(count);
    if (teaches) a.dead_groups[row / static_cast<size_t>(group_size)] = false;
  }
}

}  // namespace temper
