// The program of the README.
#include <cstdio>

#include "temper/data/tasks.h"
#include "temper/reward/builtin.h"
#include "temper/trainer/grpo.h"

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: readme_program MODEL\n"), 2;
  // README begin
  auto policy = temper::PolicyModel::load(argv[1], temper::WeightDType::kBfloat16);
  const auto task = temper::make_task({.name = "arithmetic", .level = 2});
  temper::GrpoConfig grpo;
  grpo.online.prompts_per_step = 8;  // x 8 completions each
  temper::OnlineTrainer::Parts parts;
  parts.rewards = {{"right", temper::numeric_answer()}};
  parts.prompts = task.train;
  parts.rollout.max_new_tokens = 24;
  parts.schedule = {.shape = "constant", .learning_rate = 1e-5};
  parts.total_steps = 10;
  temper::GrpoTrainer trainer(policy, grpo, parts);
  while (trainer.steps_done() < trainer.total_steps()) {
    const temper::Rollout r = trainer.step();
    std::printf("reward %.3f\n", r.metrics.at("reward"));
  }
  policy.save("trained");  // a folder that transformers loads
  // README end
  return 0;
}
