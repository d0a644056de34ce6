// plan: what a run will take, before a weight is read.
#include <CLI/App.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/threads.h"
#include "temper/trainer/plan.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run_config.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;

struct PlanOptions {
  std::string config_file;
  std::vector<std::string> assignments;
  std::string model;
  std::string algorithm;
  std::string memory;
  std::vector<std::string> scale;
  std::optional<int64_t> prompt_tokens;
  std::optional<int64_t> mean_tokens;
  std::optional<double> gflops;
  bool json = false;
};

/// What the configuration names. The run's prompts are read and tokenized, as their lengths decide
/// much: the first ones stand for all.
PlanSources read_sources(const PlanOptions& o, const OnlineRunConfig& config) {
  TEMPER_CHECK(!config.model.empty(),
               "no model was named: give --model or the config key \"model\"");
  const ModelSource source = open_model(config.model);
  PlanSources out;
  out.policy = source.config;
  for (const std::string& path : config.reward_model.models) {
    out.rewards.push_back(open_model(path).config);
  }
  if (o.prompt_tokens) {
    TEMPER_CHECK(*o.prompt_tokens >= 1, "--prompt-tokens must be at least 1, got ",
                 *o.prompt_tokens);
    out.prompt_tokens = {*o.prompt_tokens};
    out.held_out = config.eval.prompts;
    return out;
  }
  constexpr size_t kMostPrompts = 2000;
  const Task task = make_task(config.task);
  const ModelText text(source);
  for (const auto* part : {&task.train, &task.held_out}) {
    for (size_t i = 0; i < std::min(kMostPrompts, part->examples.size()); ++i) {
      out.prompt_tokens.push_back(std::ssize(encode_prompt(part->examples[i], text).ids));
    }
  }
  out.held_out = std::ssize(task.held_out.examples);
  return out;
}

void set_mean(const PlanOptions& o, PlanInput& input) {
  if (!o.mean_tokens) return;
  const int64_t most = input.rollout.max_new_tokens;
  TEMPER_CHECK(*o.mean_tokens >= 1 && *o.mean_tokens <= most,
               "--mean-tokens must be in [1, rollout.max_new_tokens = ", most, "], got ",
               *o.mean_tokens);
  input.batch.mean_completion_tokens = *o.mean_tokens;
}

/// Whether a configuration is one of PPO: it has that section, or a setting in it.
bool is_ppo(const std::string& text, const std::vector<std::string>& assignments) {
  const Json json = Json::parse(text, nullptr, false);
  return (json.is_object() && json.contains("ppo")) ||
         std::any_of(assignments.begin(), assignments.end(),
                     [](const std::string& a) { return a.starts_with("ppo."); });
}

/// Whether it is one of `train reward`: its settings have keys that no other run's have.
bool is_reward(const std::string& text, const std::vector<std::string>& assignments) {
  static const Json::json_pointer kKeys[] = {Json::json_pointer("/reward/pairs_per_step"),
                                             Json::json_pointer("/data/max_length")};
  const Json json = Json::parse(text, nullptr, false);
  return std::any_of(std::begin(kKeys), std::end(kKeys),
                     [&](const auto& key) { return json.is_object() && json.contains(key); }) ||
         std::any_of(assignments.begin(), assignments.end(), [](const std::string& a) {
           return a.starts_with("reward.pairs_per_step=") || a.starts_with("reward.loss.") ||
                  a.starts_with("data.max_length=");
         });
}

/// Rows of the run's pairs; the first ones stand for all.
std::vector<int64_t> read_pair_rows(const PlanOptions& o, const RewardRunConfig& config,
                                    const ModelSource& source) {
  if (o.prompt_tokens) {
    TEMPER_CHECK(*o.prompt_tokens >= 1, "--prompt-tokens must be at least 1, got ", *o.prompt_tokens);
    return {2 * *o.prompt_tokens};
  }
  constexpr size_t kMostPairs = 2000;
  const ModelText text(source);
  PreferenceReadOptions read = config.data.read;
  if (read.transcripts == "auto" && !text.has_template()) read.transcripts = "text";
  TEMPER_CHECK(!config.data.path.empty(), "no pairs were named: set data.path, or give --prompt-tokens");
  PreferenceData data = read_preferences(config.data.path, read);
  data.pairs.resize(std::min(kMostPairs, data.pairs.size()));
  std::vector<int64_t> rows;
  for (const TokenPair& pair : tokenize_pairs(data, text, config.data.max_length).pairs) {
    rows.push_back(pair.rows());
  }
  return rows;
}

/// The input of the plan, and the threads that the run would have.
PlanInput read_input(const PlanOptions& o) {
  std::vector<std::string> assignments = o.assignments;
  if (!o.model.empty()) assignments.push_back("model=" + o.model);
  const std::string text = o.config_file.empty() ? "" : read_text_file(o.config_file);
  PlanInput input;
  int64_t threads = 0;
  if (o.algorithm == "reward" || (o.algorithm.empty() && is_reward(text, assignments))) {
    const RewardRunConfig config = read_reward_config(text, o.config_file, assignments);
    TEMPER_CHECK(!config.model.empty(), "no model was named: give --model or the config key \"model\"");
    config.reward.validate();
    const ModelSource source = open_model(config.model);
    if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
    return plan_input(config, source.config, read_pair_rows(o, config, source));
  }
  if (o.algorithm == "ppo" || (o.algorithm.empty() && is_ppo(text, assignments))) {
    const PpoRunConfig config = read_ppo_config(text, o.config_file, assignments);
    PlanSources sources = read_sources(o, config);
    if (!config.ppo.value.init.empty()) sources.value = open_model(config.ppo.value.init).config;
    input = plan_input(config, sources);
    threads = config.trainer.threads;
  } else {
    const GrpoRunConfig config = read_grpo_config(text, o.config_file, assignments);
    input = plan_input(config, read_sources(o, config));
    threads = config.trainer.threads;
  }
  if (threads > 0) set_num_threads(static_cast<int>(threads));
  set_mean(o, input);
  return input;
}

MachineRates rates_of(const PlanOptions& o, WeightDType dtype) {
  MachineRates rates = probe_rates(dtype);
  if (o.gflops) {
    TEMPER_CHECK(*o.gflops > 0, "--gflops must be above 0, got ", *o.gflops);
    rates.flops = *o.gflops * 1e9;
  }
  return rates;
}

std::vector<ScaleShape> chosen_shapes(const PlanOptions& o) {
  std::vector<ScaleShape> chosen;
  for (const std::string& name : o.scale) {
    const auto& all = scale_shapes();
    const auto at = std::find_if(all.begin(), all.end(), [&](const auto& s) { return s.name == name; });
    TEMPER_CHECK(at != all.end(), "--scale knows 1B, 7B and 70B, got \"", name, "\"");
    chosen.push_back(*at);
  }
  return chosen;
}

Json scale_json(const PlanInput& input, const std::vector<ScaleShape>& shapes,
                const MachineRates& rates) {
  Json out = Json::array();
  for (const ScaleShape& s : shapes) {
    Json one{{"name", s.name}, {"shape_of", s.source}};
    one.update(plan_json(make_plan(scaled(input, s.config)), rates));
    out.push_back(one);
  }
  return out;
}

void print_scale(const PlanInput& input, const std::vector<ScaleShape>& shapes) {
  if (shapes.empty()) return;
  std::printf("\nThe same run on paper, for models that were not run:\n%-28s %10s %11s %11s %11s "
              "%11s %11s %11s\n", "", "parameters", "weights", "gradients", "optimizer", "frozen",
              "the rest", "peak");
  for (const ScaleShape& s : shapes) {
    const Plan p = make_plan(scaled(input, s.config));
    const uint64_t frozen = p.bytes("reference", "weights") + p.bytes("reward", "weights");
    const uint64_t weights = p.bytes("", "float32 weights") + p.bytes("", "16-bit weights");
    const uint64_t gradients = p.bytes("", "gradients"), moments = p.bytes("", "optimizer");
    const uint64_t rest = p.training - frozen - weights - gradients - moments;
    std::printf("%-4s %-23s %8.2f G", s.name.c_str(), ("(" + s.source + ")").c_str(),
                static_cast<double>(p.parameters) / 1e9);
    for (const uint64_t bytes : {weights, gradients, moments, frozen, rest, p.peak()}) {
      std::printf(" %7.1f GiB", static_cast<double>(bytes) / 0x1p30);
    }
    std::printf("\n");
  }
  std::printf("Each trained weight takes 4 bytes, 2 more for a 16-bit copy, 4 of gradient and 8 of "
              "moments\n(4 in bfloat16); a frozen one 4 or 2. The rest is rows times widths (docs/memory.md).\n");
}

/// What to change where the memory is not enough; on stderr.
void refuse(const PlanInput& input, uint64_t peak, uint64_t memory) {
  const auto fit = changes_that_fit(input, memory);
  std::fprintf(stderr, "error: this run takes %s at its peak and may take %s\n",
               bytes_text(peak).c_str(), bytes_text(memory).c_str());
  for (const PlanChange& c : plan_changes(input)) {
    std::fprintf(stderr, "  %-38s saves %10s%s: %s\n", c.setting.c_str(),
                 bytes_text(c.saved).c_str(), peak - c.saved <= memory ? ", fits" : "",
                 c.effect.c_str());
  }
  if (!fit) {
    std::fprintf(stderr, "All of these together are not enough: take a smaller model or more "
                         "memory.\n");
    return;
  }
  std::string line;
  for (const PlanChange& c : *fit) line += " --set " + c.setting;
  std::fprintf(stderr, "It fits with%s\n", line.c_str());
}

int run_plan(const PlanOptions& o) {
  const uint64_t memory = o.memory.empty() ? available_memory() : parse_bytes(o.memory);
  const std::vector<ScaleShape> shapes = chosen_shapes(o);
  const PlanInput input = read_input(o);
  const Plan plan = make_plan(input);
  const MachineRates rates = rates_of(o, input.dtype);
  const bool fits = plan.peak() <= memory;
  if (o.json) {
    Json out = plan_json(plan, rates);
    out["memory_bytes"] = memory;
    out["fits"] = fits;
    out["changes"] = Json::array();
    for (const PlanChange& c : plan_changes(input)) {
      out["changes"].push_back({{"setting", c.setting}, {"saved_bytes", c.saved}});
    }
    if (!shapes.empty()) out["scale"] = scale_json(input, shapes, rates);
    print_line(out.dump(2));
  } else {
    std::printf("%s", plan_text(plan, rates).c_str());
    print_scale(input, shapes);
    finish_output();
  }
  if (!fits) refuse(input, plan.peak(), memory);
  return fits ? kOk : kError;
}

}  // namespace

void add_plan(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand(
      "plan",
      "What a run of train grpo, ppo or reward will take: bytes by part, operations and seconds of a\n"
      "step. Reads the headers of the models and the prompts, no weights.\n"
      "Memory is the peak with every completion at rollout.max_new_tokens; operations are those\n"
      "of matrix products, 2 a weight and row forward and 4 backward, attention apart; seconds\n"
      "come from the rates that products reach on this machine, probed in 0.1 s.\n"
      "Exit code 1 when the run does not fit in --memory: then it says which setting saves what,\n"
      "the biggest saving first, each planned anew.\n"
      "Example: temper plan --model M --set grpo.loss.kl_coef=0.05 --memory 3GiB --scale 1B,7B");
  auto o = std::make_shared<PlanOptions>();
  cmd->add_option("config", o->config_file, "JSON file with any of the keys of train grpo, ppo or reward")
      ->check(CLI::ExistingFile);
  cmd->add_option("--set", o->assignments,
                  "One key=value, such as grpo.micro_batch_tokens=1024; may be given many times")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_option("--model", o->model, "The same as --set model=");
  cmd->add_option("--algorithm", o->algorithm,
                  "Default: reward where the config or a --set has a key that only train reward has, ppo\n"
                  "where one begins so, else grpo")
      ->check(CLI::IsMember({"grpo", "ppo", "reward"}));
  cmd->add_option("--memory", o->memory,
                  "What the run may take, such as 8GiB; default: what this machine has available");
  cmd->add_option("--scale", o->scale,
                  "The same bill on paper for other sizes: 1B, 7B, 70B, with commas between")
      ->delimiter(',');
  cmd->add_option("--prompt-tokens", o->prompt_tokens,
                  "Tokens of every prompt, or of each side of a pair; default: the run's are read and\n"
                  "tokenized");
  cmd->add_option("--mean-tokens", o->mean_tokens,
                  "Mean tokens of a completion, for operations and seconds; default: the most");
  cmd->add_option("--gflops", o->gflops,
                  "Rate of matrix products, 1e9 operations a second; default: probed");
  cmd->add_flag("--json", o->json, "One JSON object: parts, phases, peak_bytes, fits, changes");
  cmd->callback([o, &code] { code = run_plan(*o); });
}

}  // namespace temper::cli
