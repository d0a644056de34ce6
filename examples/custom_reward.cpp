// A reward is any callable. This one likes answers that end in an exclamation mark and are short;
// it is combined with a rule that comes with Temper.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "temper/core/error.h"
#include "temper/data/tasks.h"
#include "temper/reward/builtin.h"
#include "temper/reward/combinators.h"
#include "temper/trainer/grpo.h"

namespace {

/// 1 for an excited end, less the longer the text is.
float cheerful(const temper::Completion& c) {
  if (c.truncated || c.text.empty() || c.text.back() != '!') return 0.0f;
  return 1.0f / (1.0f + static_cast<float>(c.ids.size()) / 16.0f);
}

void train(const std::string& model, int64_t steps) {
  temper::PolicyModel policy = temper::PolicyModel::load(model, temper::WeightDType::kBfloat16);
  temper::OnlineTrainer::Parts parts;
  parts.rewards = {{"cheerful", temper::per_completion(cheerful)},
                   {"repetition", temper::repetition(3, -1.0)}};
  parts.rollout.max_new_tokens = 24;
  parts.schedule = {.shape = "constant", .learning_rate = 1e-5};
  parts.total_steps = steps;
  parts.prompts.source = "two greetings";
  for (const char* text : {"Say hello to a friend.", "Wish me good luck."}) {
    temper::Example e;
    e.messages = {{"user", text}};
    parts.prompts.examples.push_back(e);
  }
  temper::GrpoConfig grpo;
  grpo.online.prompts_per_step = 2;
  temper::GrpoTrainer trainer(policy, grpo, parts);
  for (int64_t i = 0; i < steps; ++i) {
    const temper::Rollout r = trainer.step();
    std::printf("step %lld  cheerful %.3f  \"%s\"\n", static_cast<long long>(i + 1),
                r.metrics.at("rewards/cheerful/mean"), r.samples.front().text.c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("GRPO with a reward written in this file.");
  std::string model = TEMPER_DEFAULT_MODEL;
  int64_t steps = 5;
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
