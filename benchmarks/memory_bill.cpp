// What algorithms cost on the same work: one step of each in a process of its own, its peak of
// resident memory and its seconds, and what `plan.h` says of the memory beforehand.
// Usage: memory_bill FOLDER [weights] [micro_batch_tokens] [algorithm...]
// The folder is that of forced_work.h. 4 prompts with 4 completions each, one pass, the same frozen
// reward model. Peaks are the kernel's; seconds are those of the second of two steps.
#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "forced_work.h"
#include "peak_memory.h"
#include "rounds.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/formats/model_source.h"
#include "temper/trainer/plan.h"

namespace {

using namespace temper;
using namespace temper::benchmarks;

struct Cost {
  double peak = 0;
  double seconds = 0;
};

Cost measure(const ForcedWork& work, const ForcedRun& run) {
  ForcedTrainer t = make_forced_trainer(work, run);
  at::set_num_threads(num_threads());
  Cost cost;
  for (int step = 0; step < 2; ++step) {
    cost.seconds = seconds_of([&] { (void)t.trainer->step(); });
  }
  cost.peak = status_bytes("VmHWM");
  return cost;
}

/// `measure` in a child: a process has one peak, and memory that was given back may still count.
Cost measure_apart(const ForcedWork& work, const ForcedRun& run) {
  int ends[2];
  TEMPER_CHECK(pipe(ends) == 0, "cannot make a pipe");
  std::fflush(stdout);
  const pid_t child = fork();
  TEMPER_CHECK(child >= 0, "cannot fork");
  if (child == 0) {
    try {
      const Cost cost = measure(work, run);
      _exit(write(ends[1], &cost, sizeof(cost)) == sizeof(cost) ? 0 : 1);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "error: %s\n", e.what());
      _exit(1);
    }
  }
  close(ends[1]);
  Cost cost;
  const bool got = read(ends[0], &cost, sizeof(cost)) == sizeof(cost);
  close(ends[0]);
  waitpid(child, nullptr, 0);
  TEMPER_CHECK(got, run.algorithm, " gave no result");
  return cost;
}

Plan planned(const ForcedWork& work, const ForcedRun& run, const ModelConfig& model) {
  PlanInput input;
  input.policy = input.value_model = model;
  input.dtype = run.weights;
  const bool reference = run.algorithm != "grpo_no_reference" && run.algorithm != "rloo";
  input.reference = reference ? ReferencePlacement::kCopy : ReferencePlacement::kNone;
  if (run.algorithm == "ppo") input.value = ValuePlacement::kOwn;
  if (run.algorithm.starts_with("ppo_")) input.value = ValuePlacement::kSharedTrunk;
  input.rewards = {
      {.model = model, .dtype = run.weights, .batch_tokens = RewardModel::kScoreTokens}};
  input.rollout.max_new_tokens = work.response_tokens();
  input.batch.prompts = run.prompts;
  input.batch.group_size = run.group_size;
  input.batch.prompt_tokens = input.batch.mean_prompt_tokens = work.prompt_tokens();
  input.batch.mean_completion_tokens = work.response_tokens();
  input.batch.iterations = run.passes;
  input.batch.micro_batch_tokens = run.micro_batch_tokens;
  input.saves = false;
  return make_plan(input);
}

void bill(const ForcedWork& work, ForcedRun run, const std::vector<std::string>& algorithms) {
  const ModelConfig model = open_model(work.folder + "/policy").config;
  std::printf(
      "| algorithm | peak, MB | planned, MB | planned / peak | seconds |\n"
      "| --- | --- | --- | --- | --- |\n");
  for (const std::string& algorithm : algorithms) {
    run.algorithm = algorithm;
    const Cost cost = measure_apart(work, run);
    const double plan = static_cast<double>(planned(work, run, model).peak());
    std::printf("| %s | %.0f | %.0f | %.2f | %.1f |\n", algorithm.c_str(), cost.peak / 1e6,
                plan / 1e6, plan / cost.peak, cost.seconds);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: memory_bill FOLDER [weights] [micro_batch_tokens] [algorithm...]\n");
    return 2;
  }
  try {
    ForcedRun run{.prompts = 4, .group_size = 4, .passes = 1};
    if (argc > 2) run.weights = parse_weight_dtype(argv[2]);
    if (argc > 3) run.micro_batch_tokens = std::stoll(argv[3]);
    std::vector<std::string> algorithms(argv + std::min(argc, 4), argv + argc);
    if (algorithms.empty()) {
      algorithms = {"ppo", "ppo_trunk", "ppo_joint", "grpo", "grpo_no_reference", "rloo"};
    }
    bill(ForcedWork::read(argv[1]), run, algorithms);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
