// The trainer's parts called one by one: sample, score, estimate advantages, update. The same steps
// as OnlineTrainer::step(), with the same bits; put between them what you need.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "temper/core/error.h"
#include "temper/data/tasks.h"
#include "temper/reward/builtin.h"
#include "temper/trainer/grpo.h"

namespace {

void train(const std::string& model, int64_t steps) {
  temper::PolicyModel policy = temper::PolicyModel::load(model, temper::WeightDType::kBfloat16);
  const temper::Task task = temper::make_task({.name = "arithmetic", .level = 2});

  temper::GrpoConfig grpo;
  grpo.loss.select("dr_grpo");
  grpo.advantages = "none";
  grpo.online.prompts_per_step = 4;

  temper::OnlineTrainer::Parts parts;
  parts.rollout.max_new_tokens = 16;
  parts.schedule = {.shape = "constant", .learning_rate = 1e-5};
  parts.rewards = {{"numeric_answer", temper::numeric_answer()}};
  parts.prompts = task.train;
  parts.total_steps = steps;
  temper::GrpoTrainer trainer(policy, grpo, parts);

  while (trainer.steps_done() < trainer.total_steps()) {
    temper::Rollout r = trainer.rollout();
    trainer.score(r);
    trainer.estimate_advantages(r);
    trainer.update(r);
    std::printf("step %lld  reward %.3f  entropy %.2f  mismatched tokens %.0f\n",
                static_cast<long long>(trainer.steps_done()), r.metrics["reward"],
                r.metrics["entropy"], r.metrics["sampling/mismatched_tokens"]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A training loop of one's own over the online trainer's parts.");
  std::string model = TEMPER_DEFAULT_MODEL;
  int64_t steps = 3;
  app.add_option("--model", model, "GGUF file, Hugging Face folder or hub id")
      ->capture_default_str();
  app.add_option("--steps", steps, "Rollouts")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    train(model, steps);
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
