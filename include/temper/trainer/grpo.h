#pragma once

#include <string>

#include "temper/objective/rollout_objectives.h"
#include "temper/trainer/online.h"

namespace temper {

/// Group Relative Policy Optimization (Shao et al. 2024) and its descendants: rewards relative to the
/// group instead of a value model. The loss is picked by name (docs/algorithms_grpo.md).
struct GrpoConfig {
  std::string advantages = "group";
  RolloutLoss loss;
  OnlineConfig online;

  template <class V>
  void visit(V&& v) {
    online.visit(v);
    v(advantages, "advantages", "How rewards become advantages.", advantage_names());
    v(loss, "loss");
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
