// The labeler that a run over the policy's own answers is told of.
#pragma once

#include <memory>
#include <vector>

#include "temper/nn/models.h"
#include "temper/reward/reward.h"
#include "temper/trainer/judge.h"
#include "temper/trainer/labeler.h"
#include "temper/trainer/labeler_config.h"

namespace temper {

/// What a run has that a labeler can be made of. References outlive the labeler.
struct LabelerSources {
  const LabelerConfig& config;
  const std::vector<NamedReward>& rewards;  ///< Those of the run; they score evaluations, too.
  PolicyModel& policy;
  std::shared_ptr<ModelJudge> judge;  ///< Null: none was named.
};

/// @throws Error where the config asks for what the run does not have, or a number is out of range.
[[nodiscard]] Labeler make_run_labeler(const LabelerSources& sources);

}  // namespace temper
