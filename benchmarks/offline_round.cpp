// Our side of benchmarks/compare_offline: one optimizer step over given answers for each line "go"
// of standard input.
// Usage: offline_round FOLDER METHOD WEIGHTS MICRO_BATCH_TOKENS REFERENCE MOMENTS
// The folder holds model/, for METHOD "reward" reward/, and work.json ({"rows": [{"prompt", "chosen",
// "rejected": ids}, ...]}). A line "check" writes temper.logprob.f32, the log-probs of the preferred
// answers, or temper.score.f32, the scores of both.
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "forced_work.h"
#include "peak_memory.h"
#include "roof.h"
#include "rounds.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/offline.h"
#include "temper/trainer/reward_trainer.h"

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

/// What is measured, whichever trainer it is.
struct Work {
  std::function<Metrics()> step;
  std::function<void()> check;
  double flops = 0;
};

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

void check_logprobs(const std::string& folder, CausalLM& lm, const std::vector<AnswerGroup>& rows) {
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

/// A trainer over given answers, and everything that it refers to.
struct AnswerWork {
  std::vector<AnswerGroup> rows;
  PolicyModel policy;
  std::optional<OfflineTrainer> trainer;
};

Work answer_work(char** argv) {
  const std::string folder = argv[1], reference = argv[5];
  const OfflineLoss loss{std::string_view(argv[2])};
  auto work = std::make_shared<AnswerWork>(
      AnswerWork{read_rows(folder, loss.needs().pairs),
                 PolicyModel::load(folder + "/model", parse_weight_dtype(argv[3])), {}});
  if (loss.needs().labels) {
    for (size_t i = 1; i < work->rows.size(); i += 2) work->rows[i].label = 0;
  }
  OfflineTrainer::Parts parts;
  parts.config.rows_per_step = std::ssize(work->rows);
  parts.config.micro_batch_tokens = std::stoll(argv[4]);
  parts.config.shuffle = false;
  parts.config.reference = reference;
  parts.objective = loss.build();
  parts.needs = loss.needs();
  parts.schedule.learning_rate = 1e-6;
  parts.optimizer.moments = argv[6];
  parts.data.groups = work->rows;
  parts.total_steps = 1000;
  OfflineTrainer& trainer = work->trainer.emplace(work->policy, std::move(parts));
  const bool live = trainer.wants_reference() && reference == "live";
  if (live) trainer.set_reference(ReferenceModel::copy_of(work->policy));
  if (trainer.wants_reference()) trainer.cache_reference(work->policy.lm(), nullptr);
  return {[work] { return work->trainer->step(); },
          [work, folder] { check_logprobs(folder, work->policy.lm(), work->rows); },
          step_flops(work->policy.lm(), work->rows, live)};
}

/// A reward model on the same pairs, and what its trainer refers to.
struct RewardWork {
  RewardModel model;
  std::vector<std::vector<int32_t>> texts;  ///< [2 pairs] the preferred side of each pair first.
  std::optional<RewardTrainer> trainer;
};

Work reward_work(char** argv) {
  const std::string folder = argv[1];
  auto work = std::make_shared<RewardWork>(RewardWork{
      RewardModel::load(folder + "/reward", parse_weight_dtype(argv[3]), Trainable::kYes), {}, {}});
  RewardTrainer::Parts parts;
  double rows = 0;
  for (const AnswerGroup& g : read_rows(folder, true)) {
    for (const TokenAnswer& answer : g.answers) {
      work->texts.push_back(g.prompt);
      work->texts.back().insert(work->texts.back().end(), answer.ids.begin(), answer.ids.end());
    }
    const size_t n = work->texts.size();
    parts.data.pairs.push_back(token_pair(work->texts[n - 2], work->texts[n - 1]));
    rows += static_cast<double>(parts.data.pairs.back().rows());
  }
  parts.config.pairs_per_step = std::ssize(parts.data.pairs);
  parts.config.micro_batch_tokens = std::stoll(argv[4]);
  parts.config.shuffle = false;
  parts.schedule.learning_rate = 1e-6;
  parts.optimizer.moments = argv[6];
  parts.total_steps = 1000;
  work->trainer.emplace(work->model, std::move(parts));
  const auto check = [work, folder] {
    const std::vector<float> scores = work->model.score(work->texts);
    std::ofstream out(folder + "/temper.score.f32", std::ios::binary);
    out.write(reinterpret_cast<const char*>(scores.data()),
              static_cast<std::streamsize>(scores.size() * sizeof(float)));
    TEMPER_CHECK(out.flush(), "cannot write into ", folder);
  };
  const double trunk = count_weights(work->model.backbone()).trunk;
  return {[work] { return work->trainer->step(); }, check, 6 * rows * trunk};
}

void serve(char** argv) {
  const RoofProbe probe(size_t{1} << 20);  // Reading is not asked for, and memory is measured.
  const Work work = std::string_view(argv[2]) == "reward" ? reward_work(argv) : answer_work(argv);
  const auto answer = [](const nlohmann::ordered_json& json) {
    std::printf("%s\n", json.dump().c_str());
    std::fflush(stdout);
  };
  answer({{"ready", true}});
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "check") {
      work.check();
      answer(nlohmann::ordered_json::object());
      continue;
    }
    const Roof roof = probe.measure();
    const double cpu = cpu_times().own;
    Metrics m;
    const double seconds = seconds_of([&] { m = work.step(); });
    answer({{"s", seconds},
            {"cpu_s", cpu_times().own - cpu},
            {"peak_mb", status_bytes("VmHWM") / 1e6},
            {"flops", work.flops},
            {"dot", roof.dot},
            {"loss", m.at("loss")}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr,
                 "usage: offline_round FOLDER METHOD WEIGHTS MICRO_BATCH_TOKENS REFERENCE MOMENTS\n");
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
