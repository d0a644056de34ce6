#include "temper/trainer/grpo.h"

#include <variant>

#include "temper/core/config.h"

namespace temper {
namespace {

/// A number among a loss's settings; 0 where the loss has no such setting.
double loss_setting(RolloutLoss loss, std::string_view name) {
  for (const ConfigField& f : config_fields(loss)) {
    if (f.name == name && std::holds_alternative<double*>(f.value)) return *std::get<double*>(f.value);
  }
  return 0;
}

OnlineTrainer::Parts with_grpo(const GrpoConfig& config, OnlineTrainer::Parts parts) {
  parts.algorithm = grpo(config);
  parts.config = config.online;
  return parts;
}

}  // namespace

OnlineAlgorithm grpo(const GrpoConfig& config) {
  const bool kl = loss_setting(config.loss, "kl_coef") != 0;
  const bool entropy = loss_setting(config.loss, "entropy_coef") != 0;
  return {.name = "grpo", .objective = config.loss.build(),
          .advantages = find_advantage(config.advantages), .needs_reference = kl,
          .trains_on_zero = kl || entropy};
}

GrpoTrainer::GrpoTrainer(PolicyModel& policy, const GrpoConfig& config, OnlineTrainer::Parts parts)
    : OnlineTrainer(policy, with_grpo(config, std::move(parts))) {}

}  // namespace temper
