// Our side of benchmarks/compare_offline: one optimizer step over given answers for each line "go"
// of standard input.
// Usage: offline_round FOLDER METHOD WEIGHTS MICRO_BATCH_TOKENS REFERENCE
// The folder holds model/ and work.json ({"rows": [{"prompt", "chosen", "rejected": ids}, ...]}). A
// line "check" writes temper.logprob.f32, the log-probs of the preferred answers.
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "forced_work.h"
#include "peak_memory.h"
#include "roof.h"
#include "rounds.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/offline.h"

namespace {

using namespace temper;
using namespace temper::benchmarks;

std::vector<AnswerGroup> read_rows(const std::string& folder, bool pairs) {
  const auto work = nlohmann::json::parse(read_text_file(folder + "/work.json"));
  std::vector<AnswerGroup> out;
  for (const auto& row : work.at("rows")) {
    AnswerGroup g;
    g.prompt = row.at("prompt").get<std::vector<int32_t>>();
    g.answers = {{row.at("chosen").get<std::vector<int32_t>>(), {}}};
    if (pairs) g.answers.push_back({row.at("rejected").get<std::vector<int32_t>>(), {}});
    out.push_back(std::move(g));
  }
  return out;
}

/// Operations of the matrix products of a step: 2 a weight and row forward, 4 backward; for the
/// head 2 to score and 4 backward; a live reference's forward besides.
double step_flops(const CausalLM& lm, const std::vector<AnswerGroup>& rows, bool live) {
  const MatrixWeights w = count_weights(lm);
  double trunk = 0, head = 0;
  for (const AnswerGroup& g : rows) {
    trunk += static_cast<double>(g.rows());
    for (size_t a = 0; a < g.answers.size(); ++a) head += static_cast<double>(g.predicted(a));
  }
  return (live ? 8 : 6) * (trunk * w.trunk + head * w.head);
}

void check(const std::string& folder, CausalLM& lm, const std::vector<AnswerGroup>& rows) {
  std::ofstream out(folder + "/temper.logprob.f32", std::ios::binary);
  for (AnswerGroup g : rows) {
    g.answers.resize(1);
    const AnswerGroup* one[] = {&g};
    const AnswerTokens packed = pack_answers(one);
    const auto scores = score(lm, packed.tokens, {packed.rows, packed.targets}, 1.0).logprobs;
    out.write(static_cast<const char*>(scores.const_data_ptr()),
              static_cast<std::streamsize>(scores.nbytes()));
  }
  TEMPER_CHECK(out.flush(), "cannot write into ", folder);
}

void serve(char** argv) {
  const std::string folder = argv[1], method = argv[2], reference = argv[5];
  const OfflineLoss loss(method);
  const std::vector<AnswerGroup> rows = read_rows(folder, loss.needs().pairs);
  const RoofProbe probe(size_t{1} << 20);  // Reading is not asked for, and memory is measured.
  PolicyModel policy = PolicyModel::load(folder + "/model", parse_weight_dtype(argv[3]));
  OfflineTrainer::Parts parts;
  parts.config.rows_per_step = std::ssize(rows);
  parts.config.micro_batch_tokens = std::stoll(argv[4]);
  parts.config.shuffle = false;
  parts.config.reference = reference;
  parts.objective = loss.build();
  parts.needs = loss.needs();
  parts.schedule.learning_rate = 1e-6;
  parts.data.groups = rows;
  parts.total_steps = 1000;
  OfflineTrainer trainer(policy, std::move(parts));
  const bool live = trainer.wants_reference() && reference == "live";
  if (live) trainer.set_reference(ReferenceModel::copy_of(policy));
  if (trainer.wants_reference()) trainer.cache_reference(policy.lm(), nullptr);
  const double flops = step_flops(policy.lm(), rows, live);
  const auto answer = [](const nlohmann::ordered_json& json) {
    std::printf("%s\n", json.dump().c_str());
    std::fflush(stdout);
  };
  answer({{"ready", true}});
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "check") {
      check(folder, policy.lm(), rows);
      answer(nlohmann::ordered_json::object());
      continue;
    }
    const Roof roof = probe.measure();
    const double cpu = cpu_times().own;
    Metrics m;
    const double seconds = seconds_of([&] { m = trainer.step(); });
    answer({{"s", seconds},
            {"cpu_s", cpu_times().own - cpu},
            {"peak_mb", status_bytes("VmHWM") / 1e6},
            {"flops", flops},
            {"dot", roof.dot},
            {"loss", m.at("loss")}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr,
                 "usage: offline_round FOLDER METHOD WEIGHTS MICRO_BATCH_TOKENS REFERENCE\n");
    return 2;
  }
  try {
    serve(argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
