#include "temper/trainer/ppo.h"

#include <cmath>

#include "temper/core/error.h"

namespace temper {
namespace {

OnlineTrainer::Parts with_ppo(const PpoConfig& config, const PolicyModel& policy,
                              OnlineTrainer::Parts parts, std::optional<ValueModel> value) {
  parts.algorithm = ppo(config);
  parts.config = config.online;
  parts.critic = std::make_shared<Critic>(config.value, policy, std::move(value), parts.optimizer,
                                          ~parts.seed);
  return parts;
}

}  // namespace

OnlineAlgorithm ppo(const PpoConfig& config) {
  const double loss_kl = config.loss.setting("kl_coef");
  TEMPER_CHECK(std::isfinite(config.target_kl) && config.target_kl >= 0,
               "ppo.target_kl must be at least 0, got ", config.target_kl);
  // Trained on zero: a token without advantage still teaches the critic.
  return {.name = "ppo", .objective = config.loss.build(), .advantages = Gae(config.gae),
          .needs_reference = loss_kl != 0 || config.kl.reward_coef != 0, .trains_on_zero = true,
          .compares_group = false, .loss_kl_coef = loss_kl, .kl = config.kl,
          .target_kl = config.target_kl, .scale_rewards = config.scale_rewards};
}

PpoTrainer::PpoTrainer(PolicyModel& policy, const PpoConfig& config, OnlineTrainer::Parts parts,
                       std::optional<ValueModel> value)
    : OnlineTrainer(policy, with_ppo(config, policy, std::move(parts), std::move(value))) {}

}  // namespace temper
