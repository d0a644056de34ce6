#include <CLI/App.hpp>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "commands.h"
#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/distill_run.h"
#include "temper/trainer/offline_run.h"
#include "temper/trainer/preference_run.h"
#include "temper/trainer/report.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run.h"

namespace temper::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

struct TrainOptions {
  std::string config_file;
  std::vector<std::string> assignments;
  std::string model;
  std::string output;
  std::string kernels;
  std::optional<int64_t> seed;
  bool resume = false;
  bool force = false;
  bool print_config = false;
  bool help_keys = false;
};

/// The parts of `temper train` that differ by algorithm.
template <class Config>
struct Algorithm {
  std::function<Config(const std::string&, const std::string&, const std::vector<std::string>&)> read;
  RunResult (*run)(const Config&, const RunOptions&);
};

/// The config of this call: the file, or the run's own when it resumes, then --set and the flags.
template <class Config>
Config resolve(const Algorithm<Config>& algorithm, const TrainOptions& o) {
  std::vector<std::string> assignments = o.assignments;
  if (!o.model.empty()) assignments.push_back("model=" + o.model);
  if (o.seed) assignments.push_back("trainer.seed=" + std::to_string(*o.seed));
  if (!o.kernels.empty()) assignments.push_back("trainer.kernels=" + o.kernels);
  std::string file = o.config_file;
  const std::filesystem::path stored = std::filesystem::path(o.output) / "config.json";
  if (file.empty() && o.resume && !o.output.empty() && std::filesystem::exists(stored))
    file = stored.string();
  return algorithm.read(file.empty() ? "" : read_text_file(file), file, assignments);
}

void print_score(const char* when, const HeldOutScore& s) {
  if (s.count == 0) return;
  const Interval i = wilson_interval(s.correct, s.count);
  std::fprintf(stderr, "held-out %s: %.1f %% (%lld of %lld, 95 %% interval %.1f to %.1f)\n", when,
               100.0 * static_cast<double>(s.correct) / static_cast<double>(s.count),
               static_cast<long long>(s.correct), static_cast<long long>(s.count), 100 * i.low,
               100 * i.high);
  const auto error = s.metrics.find("eval/calibration_error");
  if (error == s.metrics.end()) return;
  std::fprintf(stderr, "                 calibration error %.3f\n", error->second);
}

template <class Config>
int train(const Algorithm<Config>& algorithm, const TrainOptions& o) {
  Config config = resolve(algorithm, o);
  if (o.help_keys) {
    print_line(config_help(config_fields(config)));
    return kOk;
  }
  std::fprintf(stderr, "%s\n", describe_batch(config).c_str());
  if (o.print_config) {
    std::string text = config_text(config);
    text.pop_back();  // Its own line end.
    print_line(text);
    return kOk;
  }
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  const RunResult r = algorithm.run(config, {.output = o.output,
                                             .resume = o.resume,
                                             .force = o.force,
                                             .observers = default_observers(),
                                             .stop_requested = [] { return interrupted != 0; }});
  print_score("before", r.before);
  print_score("after ", r.after);
  if (!r.model.empty()) std::fprintf(stderr, "model:  %s\n", r.model.c_str());
  std::fprintf(stderr, "report: %s/report.html\n", o.output.c_str());
  if (r.completed) return kOk;
  std::fprintf(stderr, "ended after step %lld: %s; go on with --resume\n",
               static_cast<long long>(r.steps), r.reason.c_str());
  return kStopped;
}

/// One algorithm's command, with the options that all have.
template <class Config>
void add_algorithm(CLI::App* group, const std::string& name, const std::string& help,
                   Algorithm<Config> algorithm, int& code) {
  CLI::App* cmd = group->add_subcommand(name, help);
  auto o = std::make_shared<TrainOptions>();
  cmd->add_option("--config", o->config_file,
                  "JSON file with any of the keys, nested or not all there")
      ->check(CLI::ExistingFile);
  cmd->add_option("--set", o->assignments,
                  "One key=value, such as trainer.steps=50; may be given many times")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_option("--model", o->model, "The same as --set model=");
  cmd->add_option("--output", o->output, "Run folder: made for a new run, or the one to --resume");
  cmd->add_option("--seed", o->seed, "The same as --set trainer.seed=");
  cmd->add_flag("--resume", o->resume, "Go on from the newest complete checkpoint of --output");
  cmd->add_flag("--force", o->force,
                "With --resume: go on though trainer.weights or trainer.kernels have changed");
  add_kernels_option(cmd, o->kernels);
  cmd->add_flag("--print-config", o->print_config, "Print the complete config as JSON and end");
  cmd->add_flag("--keys", o->help_keys, "Print every key with its default and meaning, and end");
  cmd->callback([o, algorithm, &code] { code = train(algorithm, *o); });
}

void add_offline_methods(CLI::App* group, int& code) {
  for (const OfflineMethod& m : offline_methods()) {
    const std::string name = m.name;
    add_algorithm<OfflineRunConfig>(
        group, name,
        m.doc + "\nExample: temper train " + name + " --model M --output runs/" + name +
            " --set data.path=rows.jsonl --set data.held_out_fraction=0.1\n"
            "--keys lists every key with its default and meaning.",
        {[name](const std::string& text, const std::string& source,
                const std::vector<std::string>& assignments) {
           return read_offline_config(name, text, source, assignments);
         },
         train_offline},
        code);
  }
}

void add_preference_methods(CLI::App* group, int& code) {
  for (const PreferenceMethod& m : preference_methods()) {
    const std::string name = m.name;
    add_algorithm<PreferenceRunConfig>(
        group, name,
        m.doc + "\nExample: temper train " + name + " --model M --output runs/" + name +
            " --set task.name=arithmetic --set trainer.steps=200\n"
            "Who judges: reward.functions (rules), reward_model.models (trained by temper train "
            "reward), judge.model (a language model; labeler.kind=judge: it alone).\n--keys lists every key with its default and meaning.",
        {[name](const std::string& text, const std::string& source,
                const std::vector<std::string>& assignments) {
           return read_preference_config(name, text, source, assignments);
         },
         train_preference},
        code);
  }
}

}  // namespace

void add_train(CLI::App& app, int& code) {
  CLI::App* group = app.add_subcommand("train", "Train a model");
  group->require_subcommand(1);
  add_algorithm<GrpoRunConfig>(
      group, "grpo",
      "Group Relative Policy Optimization on prompts whose answers a rule can check.\n"
      "Example: temper train grpo --model M --output runs/a --set task.name=arithmetic "
      "--set task.level=2 --set trainer.steps=50\n"
      "--keys lists every key with its default and meaning.",
      {read_grpo_config, train_grpo}, code);
  add_algorithm<PpoRunConfig>(
      group, "ppo",
      "Proximal Policy Optimization: a policy, the initial model that a KL penalty pulls it back to,\n"
      "rewards by rule or by reward models, and a value model.\n"
      "Example: temper train ppo --model M --output runs/a --set reward_model.models=runs/reward/model "
      "--set ppo.kl.reward_coef=0.05\n"
      "ppo.value.model=trunk puts the value on the policy's own trunk, which saves a model's memory.\n"
      "--keys lists every key with its default and meaning.",
      {read_ppo_config, train_ppo}, code);
  add_algorithm<RewardRunConfig>(
      group, "reward",
      "A reward model from pairs of answers of which one is preferred. A file has one pair a line:\n"
      "  {\"prompt\": \"2 + 2 =\", \"chosen\": \" 4\", \"rejected\": \" 5\"}\n"
      "A side may be messages [{\"role\": ..., \"content\": ...}], the prompt may be the common\n"
      "beginning of both sides, and hh-rlhf transcripts are understood.\n"
      "Example: temper train reward --model M --output runs/reward --set data.path=pairs.jsonl "
      "--set data.held_out_fraction=0.1\n"
      "transformers loads runs/reward/model as AutoModelForSequenceClassification.\n"
      "--keys lists every key with its default and meaning.",
      {read_reward_config, train_reward}, code);
  add_offline_methods(group, code);
  add_preference_methods(group, code);
  add_algorithm<DistillRunConfig>(
      group, "distill",
      "Distillation: the student learns a teacher's whole distribution over the next token, behind\n"
      "answers from a file, answers that the teacher writes (a file of prompts alone), or its own\n"
      "(distill.lambda, the share of steps on those). A file has one row a line:\n"
      "  {\"prompt\": [{\"role\": \"user\", \"content\": \"...\"}], \"completion\": [...]}\n"
      "Another model as teacher, of the same vocabulary:\n"
      "  temper train distill --model SMALL --output runs/a --set distill.teacher=LARGE "
      "--set data.path=rows.jsonl\n"
      "Context distillation, a long system prompt put into an adapter so that no request pays for it:\n"
      "  temper train distill --model M --output runs/b --set adapter.r=16 --set data.path=prompts.jsonl\n"
      "    --set distill.teacher_system_prompt_file=house_style.txt --set schedule.learning_rate=5e-4\n"
      "\"held-out\" is the share of tokens of which both find the same one likeliest.\n"
      "--keys lists every key with its default and meaning.",
      {read_distill_config, train_distill}, code);
}

}  // namespace temper::cli
