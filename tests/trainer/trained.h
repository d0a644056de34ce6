// Whole runs of GRPO on the tiny model.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tiny_model.h"

namespace temper::testing_trainer {

/// What a whole run leaves.
struct Trained {
  std::vector<std::vector<float>> weights;
  std::vector<Metrics> metrics;
};

inline Trained train(const GrpoConfig& grpo, OnlineTrainer::Parts parts,
                     WeightDType dtype = WeightDType::kFloat32) {
  PolicyModel policy = tiny_policy(dtype);
  GrpoTrainer trainer(policy, grpo, std::move(parts));
  Trained out;
  while (trainer.steps_done() < trainer.total_steps()) out.metrics.push_back(trainer.step().metrics);
  out.weights = weights_of(policy);
  return out;
}

inline void set(GrpoConfig& grpo, const std::string& assignment) {
  config_set(config_fields(grpo), assignment);
}

}  // namespace temper::testing_trainer
