// Losses over rollouts by name, for tests of what all of them share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "rollout_case.h"
#include "temper/core/config.h"
#include "temper/objective/rollout_objectives.h"

namespace temper {

inline const std::vector<std::string> kLevels = {"token", "sequence"};

/// A loss with settings.
inline RolloutObjective objective(const std::string& loss,
                                  const std::vector<std::string>& assignments) {
  RolloutLoss settings(loss);
  for (const std::string& a : assignments) config_set(config_fields(settings), a);
  return settings.build();
}

/// Every loss at both levels, with `assignments` on top.
inline void for_every_loss(const std::vector<std::string>& assignments,
                           const std::function<void(const RolloutObjective&)>& body) {
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    for (const std::string& level : kLevels) {
      SCOPED_TRACE(entry.name + " " + level);
      std::vector<std::string> all = assignments;
      all.push_back("importance_level=" + level);
      body(objective(entry.name, all));
    }
  }
}

}  // namespace temper
