#pragma once

#include "temper/objective/advantage.h"

namespace temper {

/// Settings of `ReinforcePp`.
struct ReinforcePpConfig : TokenRewardConfig {
  double gamma = 1;

  ReinforcePpConfig() { reward_clip = 10; }

  template <class V>
  void visit(V&& v) {
    v(gamma, "gamma", "Discount of a later reward, in [0, 1].");
    TokenRewardConfig::visit(v);
  }
};

/// REINFORCE++ (Hu 2025, arXiv 2501.03262): rewards to go, whitened over all active tokens of the
/// rollout (n - 1, epsilon 1e-8); no critic and no group.
///
///     G_t = sum_{s >= t} gamma^(s - t) r_s,  A = (G - mean) / sqrt(variance + 1e-8)
///
/// Needs a `TokenTable`; fills `Advantages::tokens`. A row that nobody scored has advantage 0.
class ReinforcePp {
 public:
  using Config = ReinforcePpConfig;

  /// @throws Error for a setting out of range.
  explicit ReinforcePp(const Config& config = {});
  /// @throws Error if the table has no tokens.
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;

 private:
  Config config_;
};

/// Settings of `ReinforcePpBaseline`.
struct ReinforcePpBaselineConfig : TokenRewardConfig {
  ReinforcePpBaselineConfig() { reward_clip = 10; }
};

/// REINFORCE++-baseline: each score less the mean of its group's scored rows, itself included;
/// then as `ReinforcePp` with gamma 1. The clip is applied to the difference.
class ReinforcePpBaseline {
 public:
  using Config = ReinforcePpBaselineConfig;

  /// @throws Error for a setting out of range.
  explicit ReinforcePpBaseline(const Config& config = {});
  /// @throws Error if the table has no tokens.
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;

 private:
  Config config_;
};

}  // namespace temper
