// Our side of benchmarks/compare_ppo: one whole step of PPO (rollout, rewards, values, reference,
// all passes) for each line "go" of standard input.
// Usage: ppo_round FOLDER [weights] [micro_batch_tokens] [moments]
// The folder is that of forced_work.h. A line "check" writes temper.logprob.f32, temper.value.f32
// [prompts x responses] and temper.score.f32 [prompts] of the given completions into it.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "forced_work.h"
#include "peak_memory.h"
#include "roof.h"
#include "rounds.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/data/packing.h"
#include "temper/nn/scoring.h"

namespace {

using namespace temper;
using namespace temper::benchmarks;

void write(const std::string& path, std::span<const float> values) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  TEMPER_CHECK(out, "cannot write ", path);
}

/// Log-probs, values and scores of the given completions, by the functions that a step calls and in
/// forwards as large as its own, so that the check does not raise the peak.
void check(const ForcedWork& work, const ForcedTrainer& t) {
  CausalLM& lm = t.policy->lm();
  const int64_t row_tokens = work.prompt_tokens() + work.response_tokens();
  const auto width = static_cast<size_t>(
      std::max<int64_t>(1, t.trainer->parts().config.micro_batch_tokens / row_tokens));
  std::vector<float> logprobs, values;
  std::vector<PromptedText> texts;
  for (size_t begin = 0; begin < work.prompts.size(); begin += width) {
    std::vector<PackedGroup> groups;
    for (size_t i = begin; i < std::min(begin + width, work.prompts.size()); ++i) {
      groups.push_back({work.prompt_ids[i], {work.response_ids[i]}});
      texts.push_back({work.prompt_ids[i], work.response_ids[i]});
    }
    const CompletionBatch packed = pack_completions(groups);
    const at::Tensor scored = score(lm, packed.tokens, {packed.rows, packed.targets}, 1.0).logprobs;
    const float* from = scored.const_data_ptr<float>();
    logprobs.insert(logprobs.end(), from, from + scored.numel());
    const auto of_rows = t.trainer->parts().critic->values(lm, packed.tokens, packed.rows);
    values.insert(values.end(), of_rows.begin(), of_rows.end());
  }
  write(work.folder + "/temper.logprob.f32", logprobs);
  write(work.folder + "/temper.value.f32", values);
  write(work.folder + "/temper.score.f32", t.reward->score(texts));
}

void answer(const nlohmann::ordered_json& json) {
  std::printf("%s\n", json.dump().c_str());
  std::fflush(stdout);
}

nlohmann::ordered_json go(const ForcedWork& work, ForcedTrainer& t, const RoofProbe& probe) {
  const Roof roof = probe.measure();
  Rollout r;
  const double cpu = cpu_times().own;
  const double seconds = seconds_of([&] { r = t.trainer->step(); });
  const double cpu_seconds = cpu_times().own - cpu;
  for (const Sample& s : r.samples) {
    TEMPER_CHECK(std::ssize(s.ids) == work.response_tokens(), "a completion ended early");
  }
  const int64_t passes = t.trainer->parts().config.iterations;
  nlohmann::ordered_json json{
      {"s", seconds},
      {"cpu_s", cpu_seconds},
      {"peak_mb", status_bytes("VmHWM") / 1e6},
      {"flops", ppo_step_flops(count_weights(t.policy->lm()), work, passes)},
      {"fma", roof.fma},
      {"dot", roof.dot},
      {"mismatched", r.metrics.at("sampling/mismatched_tokens")},
      {"grad_norm", r.metrics.at("grad_norm")}};
  for (const auto& [name, value] : r.metrics) {
    if (name.starts_with("time/")) json[name] = value;
  }
  return json;
}

void serve(const std::string& folder, const ForcedRun& run) {
  const RoofProbe probe(size_t{1} << 20);  // Reading is not asked for, and memory is measured.
  const ForcedWork work = ForcedWork::read(folder);
  ForcedTrainer t = make_forced_trainer(work, run);
  at::set_num_threads(num_threads());
  answer({{"ready", true}});
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "check") {
      check(work, t);
      answer(nlohmann::ordered_json::object());
    } else {
      answer(go(work, t, probe));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: ppo_round FOLDER [weights] [micro_batch_tokens] [moments]\n");
    return 2;
  }
  try {
    ForcedRun run;
    if (argc > 2) run.weights = parse_weight_dtype(argv[2]);
    if (argc > 3) run.micro_batch_tokens = std::stoll(argv[3]);
    if (argc > 4) run.moments = argv[4];
    serve(argv[1], run);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
