#include "temper/trainer/grpo.h"

#include "temper/core/error.h"

namespace temper {
namespace {

OnlineTrainer::Parts with_grpo(const GrpoConfig& config, OnlineTrainer::Parts parts) {
  parts.algorithm = grpo(config);
  parts.config = config.online;
  return parts;
}

}  // namespace

std::vector<std::string> grpo_advantages() {
  std::vector<std::string> names;
  for (const AdvantageEntry& e : advantage_estimators()) {
    if (!e.needs_values) names.push_back(e.name);
  }
  return names;
}

OnlineAlgorithm grpo(const GrpoConfig& config) {
  const double loss_kl = config.loss.setting("kl_coef");
  const AdvantageEntry& rule = find_advantage_entry(config.advantages);
  TEMPER_CHECK(!rule.needs_values, "grpo.advantages=", rule.name, " needs a value model: use PPO");
  TEMPER_CHECK(config.kl.reward_coef == 0 || rule.needs_reference, "grpo.advantages=", rule.name,
               " puts no KL into rewards: leave grpo.kl.reward_coef at 0 and set grpo.loss.kl_coef");
  return {.name = "grpo", .objective = config.loss.build(), .advantages = rule.estimator,
          .needs_reference = loss_kl != 0 || config.kl.reward_coef != 0,
          .trains_on_zero = loss_kl != 0 || config.loss.setting("entropy_coef") != 0,
          .needs_greedy = rule.needs_greedy, .compares_group = rule.compares_group,
          .loss_kl_coef = loss_kl, .kl = config.kl, .target_kl = config.target_kl,
          .scale_rewards = config.scale_rewards};
}

GrpoTrainer::GrpoTrainer(PolicyModel& policy, const GrpoConfig& config, OnlineTrainer::Parts parts)
    : OnlineTrainer(policy, with_grpo(config, std::move(parts))) {}

}  // namespace temper
