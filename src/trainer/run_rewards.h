// Rewards that models give, as a run is told of them.
#pragma once

#include <memory>
#include <vector>

#include "temper/nn/scalar_model.h"
#include "temper/reward/reward.h"
#include "temper/trainer/run_config.h"

namespace temper {

/// The reward models of a run, loaded; they outlive the rewards made of them.
struct ModelRewards {
  std::vector<std::shared_ptr<RewardModel>> models;
};
/// @param reference  that `share_reference` means; null: there is none.
[[nodiscard]] ModelRewards load_model_rewards(const ModelRewardConfig& config,
                                              const ReferenceModel* reference);

/// The rewards with `timeout_seconds`, where that is set. @throws Error for one below 0.
[[nodiscard]] std::vector<NamedReward> in_time(std::vector<NamedReward> rewards, double seconds);

/// Their scores by the config's rule, as one reward.
[[nodiscard]] RewardFn model_reward(const ModelRewards& rewards, const ModelRewardConfig& config,
                                    const PolicyModel& policy);

}  // namespace temper
