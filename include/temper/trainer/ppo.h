#pragma once

#include <optional>

#include "temper/objective/gae.h"
#include "temper/objective/rollout_objectives.h"
#include "temper/trainer/online.h"

namespace temper {

/// Proximal Policy Optimization (Schulman et al. 2017) with a value model, and a KL penalty to the
/// initial model in the reward (Ziegler et al. 2019). See docs/algorithms_ppo.md.
struct PpoConfig {
  GaeConfig gae;
  RolloutLoss loss{"ppo"};
  CriticConfig value;
  KlConfig kl{.reward_coef = 0.05, .controller = {}};
  double target_kl = 0;
  bool scale_rewards = false;
  OnlineConfig online{.group_size = 1, .prompts_per_step = 64, .iterations = 4,
                      .minibatch_order = "shuffled"};

  template <class V>
  void visit(V&& v) {
    online.visit(v);
    v(target_kl, "target_kl", "End the update of a rollout when a step's mean KL(old || new), nats a token, passes 1.5 times this; 0: never.");
    v(scale_rewards, "scale_rewards", "Divide scores by their running standard deviation.");
    v(gae, "gae");
    v(loss, "loss");
    v(value, "value");
    v(kl, "kl");
  }
};

/// PPO as a value of the online trainer: objective and advantage estimator.
[[nodiscard]] OnlineAlgorithm ppo(const PpoConfig& config);

/// The online trainer with PPO. `parts.algorithm`, `parts.config` and `parts.critic` are made from
/// `config`.
class PpoTrainer : public OnlineTrainer {
 public:
  /// @param value  the value model, for `value.model = own`; see `make_value_model`.
  PpoTrainer(PolicyModel& policy, const PpoConfig& config, OnlineTrainer::Parts parts,
             std::optional<ValueModel> value = std::nullopt);
};

}  // namespace temper
