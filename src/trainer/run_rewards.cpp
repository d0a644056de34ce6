#include "run_rewards.h"

#include <array>
#include <utility>

#include "temper/core/error.h"
#include "temper/trainer/model_reward.h"

namespace temper {
namespace {

constexpr std::array kRules{std::pair{"mean", EnsembleRule::kMean}, std::pair{"min", EnsembleRule::kMin},
                            std::pair{"mean_minus_std", EnsembleRule::kMeanMinusStd},
                            std::pair{"mean_minus_variance", EnsembleRule::kMeanMinusVariance}};

}  // namespace

ModelRewards load_model_rewards(const ModelRewardConfig& config) {
  ModelRewards out;
  for (const std::string& path : config.models) {
    out.models.push_back(std::make_shared<RewardModel>(
        RewardModel::load(path, parse_weight_dtype(config.weights), Trainable::kNo)));
  }
  return out;
}

RewardFn model_reward(const ModelRewards& rewards, const ModelRewardConfig& config,
                      const PolicyModel& policy) {
  for (const auto& [name, rule] : kRules) {
    if (config.rule != name) continue;
    return ensemble_reward(rewards.models, policy.text(), {rule, config.uncertainty});
  }
  fail("reward_model.rule is \"", config.rule, "\", which is no rule; see --keys");
}

}  // namespace temper
