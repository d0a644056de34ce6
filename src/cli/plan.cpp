// plan: what a run will take, before a weight is read.
#include <CLI/App.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "plan_options.h"
#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;

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
  const PlanInput input = read_plan_input(o);
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
      "What a run of train grpo, ppo, reward, sft, dpo or its family, online-dpo or its kin will take:\n"
      "bytes by part, operations and seconds of a step. Reads the headers of the models and the prompts, no weights.\n"
      "Memory is the peak with every completion at rollout.max_new_tokens; operations are those\n"
      "of matrix products, 2 a weight and row forward and 4 backward, attention apart; seconds\n"
      "come from the rates that products reach on this machine, probed in 0.1 s.\n"
      "Exit code 1 when the run does not fit in --memory: then it says which setting saves what,\n"
      "the biggest saving first, each planned anew.\n"
      "Example: temper plan --model M --set grpo.loss.kl_coef=0.05 --memory 3GiB --scale 1B,7B");
  auto o = std::make_shared<PlanOptions>();
  cmd->add_option("config", o->config_file, "JSON file with any of the keys of those commands")
      ->check(CLI::ExistingFile);
  cmd->add_option("--set", o->assignments,
                  "One key=value, such as grpo.micro_batch_tokens=1024; may be given many times")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_option("--model", o->model, "The same as --set model=");
  cmd->add_option("--algorithm", o->algorithm,
                  "Default: what the keys say. A section preference: online-dpo or its kin; else a\n"
                  "loss.name: that method; a key that only train reward has: reward; one that begins\n"
                  "with ppo: ppo; else grpo")
      ->check(CLI::IsMember(planned_algorithms()));
  cmd->add_option("--memory", o->memory,
                  "What the run may take, such as 8GiB; default: what this machine has available");
  cmd->add_option("--scale", o->scale,
                  "The same bill on paper for other sizes: 1B, 7B, 70B, with commas between")
      ->delimiter(',');
  cmd->add_option("--prompt-tokens", o->prompt_tokens,
                  "Tokens of every prompt, or of each side of a reward model's pair; default: the run's are\n"
                  "read and tokenized");
  cmd->add_option("--mean-tokens", o->mean_tokens,
                  "Mean tokens of a completion, for operations and seconds; default: the most. With\n"
                  "--prompt-tokens and given answers: of every answer");
  cmd->add_option("--gflops", o->gflops,
                  "Rate of matrix products, 1e9 operations a second; default: probed");
  cmd->add_flag("--json", o->json, "One JSON object: parts, phases, peak_bytes, fits, changes");
  cmd->callback([o, &code] { code = run_plan(*o); });
}

}  // namespace temper::cli
