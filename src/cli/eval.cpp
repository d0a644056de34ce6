#include <CLI/App.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/ops/reference.h"
#include "temper/trainer/report.h"
#include "temper/trainer/run_config.h"

namespace temper::cli {
namespace {

struct EvalOptions {
  std::string model;
  std::string task;
  std::string kernels;
  std::string config_file;
  std::vector<std::string> assignments;
  bool samples = false;
};

int run_eval(const EvalOptions& o) {
  std::vector<std::string> assignments = o.assignments;
  assignments.push_back("model=" + o.model);
  if (!o.task.empty()) assignments.push_back("task.name=" + o.task);
  if (!o.kernels.empty()) assignments.push_back("trainer.kernels=" + o.kernels);
  GrpoRunConfig c = read_grpo_config(o.config_file.empty() ? "" : read_text_file(o.config_file),
                                     o.config_file, assignments);
  const Task task = make_task(c.task);
  if (c.reward.functions.empty()) c.reward.functions = task.default_rewards;
  const auto rewards = make_rewards(c.reward, c.rollout.max_new_tokens);
  const ops::KernelScope kernels(c.trainer.kernels);
  const WeightDType dtype = parse_weight_dtype(c.trainer.weights);
  const std::filesystem::path adapter = c.adapter.path;
  PolicyModel policy = adapter.empty()
                           ? PolicyModel::load(c.model, dtype, Trainable::kNo)
                           : PolicyModel::load_with_adapter(c.model, dtype, adapter, Trainable::kNo);
  RolloutConfig rollout = c.rollout;
  rollout.temperature = c.eval.temperature;
  std::vector<Example> examples = task.held_out.examples;
  TEMPER_CHECK(!examples.empty(), "task ", c.task.name, " has no held-out prompts; raise ",
               "task.held_out_size or task.held_out_fraction");
  if (c.eval.prompts > 0 && std::ssize(examples) > c.eval.prompts) {
    examples.resize(static_cast<size_t>(c.eval.prompts));
  }
  const EvalResult r =
      evaluate(policy, examples, rewards, rollout, static_cast<uint64_t>(c.trainer.seed), 0);
  const Interval interval = wilson_interval(r.correct, r.count);
  nlohmann::ordered_json out{{"task", c.task.name},
                             {"model", c.model},
                             {"correct", r.correct},
                             {"count", r.count},
                             {"interval_95", {interval.low, interval.high}},
                             {"metrics", r.metrics}};
  for (size_t i = 0; o.samples && i < r.samples.size(); ++i) {
    out["samples"].push_back({{"prompt", r.prompt_texts[i]}, {"completion", r.samples[i].text}});
  }
  print_line(out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  return kOk;
}

}  // namespace

void add_eval(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand("eval", "Score a model on a task's held-out prompts, as JSON");
  auto o = std::make_shared<EvalOptions>();
  cmd->add_option("--model", o->model, "GGUF file, Hugging Face folder or hub id")->required();
  cmd->add_option("--task", o->task, "The same as --set task.name=: arithmetic, gsm8k or jsonl");
  cmd->add_option("--config", o->config_file, "JSON file with any of train grpo's keys")
      ->check(CLI::ExistingFile);
  cmd->add_option("--set", o->assignments,
                  "One key=value, such as task.level=2; may be given many times")
      ->take_all()
      ->allow_extra_args(false);
  add_kernels_option(cmd, o->kernels);
  cmd->add_flag("--samples", o->samples, "Show prompts and completions too");
  cmd->callback([o, &code] { code = run_eval(*o); });
}

}  // namespace temper::cli
