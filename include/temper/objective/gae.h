#pragma once

#include "temper/objective/advantage.h"

namespace temper {

/// Settings of `Gae`.
struct GaeConfig : TokenRewardConfig {
  double gamma = 1;
  double lambda = 0.95;
  double lambda_value = -1;
  double length_adaptive_alpha = 0;
  bool bootstrap_truncated = false;
  bool whiten = true;
  bool reward_whiten = false;
  bool trl_compat = false;

  template <class V>
  void visit(V&& v) {
    v(gamma, "gamma", "Discount of a later reward, in [0, 1].");
    v(lambda, "lambda",
      "Trace decay of the advantages, in [0, 1]: 0 trusts the critic, 1 the rewards.");
    v(lambda_value, "lambda_value",
      "Trace decay of the value targets, in [0, 1]; negative: that of the advantages.");
    v(length_adaptive_alpha, "length_adaptive_alpha",
      "Above 0: lambda = 1 - 1 / (alpha n) for a completion of n tokens (VAPO: 0.05); 0: off.");
    v(bootstrap_truncated, "bootstrap_truncated",
      "Behind a completion that was cut, use the critic's value instead of 0.");
    v(whiten, "whiten", "Give the advantages of the rollout mean 0 and standard deviation 1.");
    v(reward_whiten, "reward_whiten",
      "Divide the tokens' rewards by their standard deviation; their mean stays.");
    v(trl_compat, "trl_compat",
      "Put the score where TRL's PPO puts it: one step behind the last token.");
    TokenRewardConfig::visit(v);
  }
};

/// Generalized advantage estimation (Schulman et al. 2015, eq. 16) over rewards with a KL penalty:
/// PPO's estimator. Needs a `TokenTable` with values; fills `Advantages::tokens` and `returns`.
///
///     delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lambda A_{t+1},
///     return_t = A_t + V_t  (with lambda_value, and before whitening)
///
/// Whitening is over all active tokens of the rollout (n - 1, epsilon 1e-8). A row that nobody
/// scored has advantage 0 and return V everywhere and is left out of every mean. With
/// `length_adaptive_alpha`, lambda is that of VAPO (Yue et al. 2025, arXiv 2504.05118), at least 0.
///
/// With `trl_compat`, a row shorter than the rollout's longest has one step more, whose value is
/// `bootstrap_values` and whose reward is the score: in TRL the first pad slot. Its own return,
/// which is the score, trains nothing here.
class Gae {
 public:
  using Config = GaeConfig;

  /// @throws Error for a setting out of range.
  explicit Gae(const Config& config = {});
  /// @throws Error if the table has no tokens, values or (where they are read) bootstrap values.
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;

 private:
  Config config_;
};

}  // namespace temper
