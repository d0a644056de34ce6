// Teaches a small chat model arithmetic by GRPO: it samples eight answers to each question, a rule
// checks them, and answers better than their group's mean become more likely. Held-out questions
// are asked before and after. Run it with --help for the few things that can be changed.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "temper/core/error.h"
#include "temper/kernels/linear.h"
#include "temper/trainer/report.h"
#include "temper/trainer/run.h"

namespace {

/// One line about a held-out score at temperature 1, the format apart, and the greedy answers: they
/// tell what was learned from what became merely less random.
std::string describe(const temper::HeldOutScore& s) {
  const temper::Interval i = temper::wilson_interval(s.correct, s.count);
  char line[200];
  std::snprintf(
      line, sizeof line,
      "%5.1f %% right (%lld of %lld; 95 %% interval %.1f to %.1f), %5.1f %% in the asked form; "
      "greedy %5.1f %% right",
      100.0 * static_cast<double>(s.correct) / static_cast<double>(s.count),
      static_cast<long long>(s.correct), static_cast<long long>(s.count), 100 * i.low, 100 * i.high,
      100 * s.metrics.at("eval/regex_format"), 100 * s.metrics.at("eval/greedy/numeric_answer"));
  return line;
}

temper::GrpoRunConfig demo_config(const std::string& model, int64_t steps) {
  temper::GrpoRunConfig c;
  c.model = model;
  c.task.name = "arithmetic";
  c.task.level = 2;            // a + b and a - b up to 20
  c.task.held_out_size = 300;  // never trained on
  c.task.prompt_template = "What is {question}? Reply with one line that ends with the result.";
  c.reward.functions = {"numeric_answer", "regex_format"};
  c.reward.weights = {1.0, 0.2};
  c.reward.pattern = "\\A[^\\n]*[0-9]\\s*\\.?\\s*\\z";  // one line that ends with a number
  c.rollout.max_new_tokens = 24;
  c.rollout.max_sequences = 128;
  c.eval.prompts = 0;
  c.eval.temperature = 1.0;  // as in training
  c.eval.greedy_too = true;
  c.grpo.online.group_size = 8;
  c.grpo.online.prompts_per_step = 16;
  c.schedule.shape = "constant";
  c.schedule.learning_rate = 1e-5;
  c.schedule.warmup_steps = 2;
  c.trainer.steps = steps;
  // Both are exact; which bits they give differs, so the choice stands in the run's config.json.
  c.trainer.weights = temper::kernels::has_dot_instruction() ? "bfloat16_dot" : "bfloat16";
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "GRPO on generated arithmetic, from a chat model's first answers to its trained ones.");
  std::string model = TEMPER_DEFAULT_MODEL;
  std::string output = "runs/demo";
  int64_t steps = 24;
  app.add_option("--model", model, "GGUF file, Hugging Face folder or hub id")
      ->capture_default_str();
  app.add_option("--output", output, "Run folder (must not hold a run)")->capture_default_str();
  app.add_option("--steps", steps, "Rollouts, each followed by one update")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const temper::GrpoRunConfig config = demo_config(model, steps);
    std::fprintf(stderr, "%s\n", temper::describe_batch(config).c_str());
    const temper::RunResult r =
        temper::train_grpo(config, {.output = output, .observers = temper::default_observers()});
    std::printf("held-out questions before: %s\n", describe(r.before).c_str());
    std::printf("held-out questions after:  %s\n", describe(r.after).c_str());
    std::printf("training took %.0f s; the report is %s/report.html, the model %s\n",
                r.train_seconds, output.c_str(), r.model.c_str());
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
