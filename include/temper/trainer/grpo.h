#pragma once

#include <string>
#include <vector>

#include "temper/objective/rollout_objectives.h"
#include "temper/trainer/online.h"

namespace temper {

/// The names of the estimators that need no value model.
[[nodiscard]] std::vector<std::string> grpo_advantages();

/// Group Relative Policy Optimization (Shao et al. 2024) and its descendants: rewards relative to the
/// group instead of a value model. The loss is picked by name (docs/algorithms_grpo.md).
struct GrpoConfig {
  std::string advantages = "group";
  RolloutLoss loss;
  KlConfig kl;
  double target_kl = 0;
  bool scale_rewards = false;
  OnlineConfig online;

  template <class V>
  void visit(V&& v) {
    online.visit(v);
    v(advantages, "advantages", "How rewards become advantages.", grpo_advantages());
    v(target_kl, "target_kl", "End the update of a rollout when a step's mean KL(old || new), nats a token, passes 1.5 times this; 0: never.");
    v(scale_rewards, "scale_rewards", "Divide scores by their running standard deviation.");
    v(loss, "loss");
    v(kl, "kl");
  }
};

/// GRPO as a value of the online trainer: objective and advantage estimator.
[[nodiscard]] OnlineAlgorithm grpo(const GrpoConfig& config);

/// The online trainer with GRPO. `parts.algorithm` and `parts.config` are taken from `config`.
class GrpoTrainer : public OnlineTrainer {
 public:
  GrpoTrainer(PolicyModel& policy, const GrpoConfig& config, OnlineTrainer::Parts parts);
};

}  // namespace temper
