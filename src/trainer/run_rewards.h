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

/// What a run's rewards are made of.
struct RewardSources {
  const OnlineRunConfig& config;
  const Task& task;
  const std::vector<NamedReward>& extra;  ///< Those that come with the run's options.
  const ModelRewards& models;
  const PolicyModel& policy;
};
/// Whether the config names rewards of its own, or the task has some.
[[nodiscard]] bool has_rewards(const RewardSources& sources);
/// The extra ones, those of rules (the task's where none is named), and that of models, in this
/// order. @throws Error where there is none.
[[nodiscard]] std::vector<NamedReward> run_rewards(const RewardSources& sources);

/// The rewards with `timeout_seconds`, where that is set. @throws Error for one below 0.
[[nodiscard]] std::vector<NamedReward> in_time(std::vector<NamedReward> rewards, double seconds);

/// Their scores by the config's rule, as one reward.
[[nodiscard]] RewardFn model_reward(const ModelRewards& rewards, const ModelRewardConfig& config,
                                    const PolicyModel& policy);

}  // namespace temper
