#include "temper/trainer/run.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "temper/core/file.h"
#include "temper/kernels/backend.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Json = nlohmann::ordered_json;

/// Remembers what it is told.
struct Recorder : Observer {
  void on_start(const RunInfo& info) override { starts.push_back(info); }
  void on_step(const StepEvent& event) override {
    steps.push_back(event.step);
    samples += event.samples.size();
  }
  void on_eval(const EvalEvent& event) override {
    evals.push_back(event.step);
    accuracy.emplace_back(event.correct, event.count);
  }
  void on_checkpoint(int64_t step, const fs::path& folder) override {
    checkpoints.push_back(step);
    EXPECT_EQ(checkpoint_damage(folder, VerifyLevel::kHashes), std::nullopt);
  }
  void on_alarm(const Alarm& alarm) override { alarms.push_back(alarm); }
  void on_end(const EndEvent& event) override { ends.push_back(event); }

  std::vector<RunInfo> starts;
  std::vector<int64_t> steps, evals, checkpoints;
  std::vector<std::pair<int64_t, int64_t>> accuracy;
  std::vector<Alarm> alarms;
  std::vector<EndEvent> ends;
  size_t samples = 0;
};

std::vector<std::string> settings(std::vector<std::string> more = {}) {
  std::vector<std::string> out{"model=" + tiny_model().string(),
                               "task.prompt_template={question}=",
                               "task.train_size=20",
                               "task.held_out_size=6",
                               "reward.functions=length_penalty",
                               "rollout.max_new_tokens=10",
                               "rollout.stop=[\"a\",\"e\",\"i\",\"0\",\"5\",\"7\",\"T\",\"?\"]",
                               "grpo.group_size=3",
                               "grpo.prompts_per_step=2",
                               "schedule.learning_rate=0.005",
                               "trainer.steps=5",
                               "trainer.threads=1"};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

RunResult run(const fs::path& output, const std::vector<std::string>& assignments,
              const std::shared_ptr<Recorder>& recorder = std::make_shared<Recorder>(),
              bool resume = false, std::function<bool()> stop = {}) {
  return train_grpo(read_grpo_config("", "", assignments),
                    {.output = output, .resume = resume,
                     .observers = {std::make_shared<JsonlObserver>(), recorder},
                     .stop_requested = std::move(stop)});
}

/// metrics.jsonl without the clock.
std::string lasting_text(const fs::path& file) {
  std::string out;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    Json kept = Json::object();
    const Json all = Json::parse(line);
    for (const auto& [name, value] : all.items()) {
      if (!is_wall_clock(name)) kept[name] = value;
    }
    out += kept.dump() + "\n";
  }
  return out;
}

TEST(Run, TellsItsObserversEverythingInOrder) {
  const TemporaryFolder folder;
  const auto seen = std::make_shared<Recorder>();
  const RunResult r = run(folder.path() / "run", settings({"trainer.checkpoint_every=2", "eval.every=2"}), seen);
  EXPECT_TRUE(r.completed);
  EXPECT_EQ(r.reason, "");
  EXPECT_EQ(r.steps, 5);
  EXPECT_EQ(seen->steps, (std::vector<int64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(seen->evals, (std::vector<int64_t>{0, 2, 4, 5}));
  EXPECT_EQ(seen->checkpoints, (std::vector<int64_t>{2, 4, 5}));
  EXPECT_EQ(seen->samples, 5u * 6u) << "all six completions: fewer than samples_per_step";
  EXPECT_EQ(r.before.count, 6);
  EXPECT_EQ(r.after.count, 6);
  ASSERT_EQ(seen->ends.size(), 1u);
  EXPECT_TRUE(seen->ends[0].completed);
  ASSERT_EQ(seen->starts.size(), 1u);
  EXPECT_EQ(seen->starts[0].total_steps, 5);
  EXPECT_EQ(list_checkpoints(folder.path() / "run").size(), 2u) << "trainer.keep_last is 2";

  const std::string page = read_text_file(folder.path() / "run/report.html");
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_NE(page.find("<h3>Reward</h3>"), std::string::npos);
  PolicyModel trained = PolicyModel::load(r.model.string(), WeightDType::kFloat32);
  EXPECT_NE(weights_of(trained), weights_of(tiny_policy()));
}

TEST(Run, StoredConfigReplays) {
  const TemporaryFolder folder;
  const fs::path first = folder.path() / "first", second = folder.path() / "second";
  (void)run(first, settings({"grpo.loss.name=cispo", "grpo.loss.ratio_max=4", "rollout.temperature=0.8"}));
  const std::string stored = read_text_file(first / "config.json");
  const GrpoRunConfig again = read_grpo_config(stored, "config.json", {});
  (void)train_grpo(again, {.output = second, .observers = {std::make_shared<JsonlObserver>()}, .stop_requested = {}});
  EXPECT_EQ(read_text_file(second / "config.json"), stored);
  EXPECT_EQ(lasting_text(second / "metrics.jsonl"), lasting_text(first / "metrics.jsonl"));
  EXPECT_EQ(read_text_file(second / "model/model.safetensors"),
            read_text_file(first / "model/model.safetensors"));
}

TEST(Run, SeedChangesTheRun) {
  const TemporaryFolder folder;
  (void)run(folder.path() / "a", settings());
  (void)run(folder.path() / "b", settings({"trainer.seed=43"}));
  EXPECT_NE(lasting_text(folder.path() / "a/metrics.jsonl"), lasting_text(folder.path() / "b/metrics.jsonl"));
}

TEST(Run, ObserversAndCheckpointsChangeNoBit) {
  const TemporaryFolder folder;
  (void)run(folder.path() / "a", settings());
  (void)run(folder.path() / "b", settings({"trainer.checkpoint_every=1", "eval.every=1", "trainer.samples_per_step=0"}));
  EXPECT_EQ(lasting_text(folder.path() / "a/metrics.jsonl"), lasting_text(folder.path() / "b/metrics.jsonl"));
  EXPECT_EQ(read_text_file(folder.path() / "a/model/model.safetensors"),
            read_text_file(folder.path() / "b/model/model.safetensors"));
}

TEST(Run, ExistingRunIsNotOverwritten) {
  const TemporaryFolder folder;
  (void)run(folder.path() / "run", settings({"trainer.steps=1"}));
  const std::string before = read_text_file(folder.path() / "run/metrics.jsonl");
  const std::string error = error_of([&] { (void)run(folder.path() / "run", settings()); });
  EXPECT_NE(error.find("resume"), std::string::npos) << error;
  EXPECT_EQ(read_text_file(folder.path() / "run/metrics.jsonl"), before);
}

TEST(Run, BadSettingsAreNamedBeforeTraining) {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& setting) {
    const auto seen = std::make_shared<Recorder>();
    const std::string text = error_of([&] { (void)run(folder.path() / "run", settings({setting}), seen); });
    EXPECT_TRUE(seen->steps.empty()) << setting;
    fs::remove_all(folder.path() / "run");
    return text;
  };
  EXPECT_NE(error("grpo.group_siz=4").find("grpo.group_size"), std::string::npos);
  EXPECT_NE(error("grpo.loss.clip_lo=0.1").find("grpo.loss.clip_low"), std::string::npos);
  EXPECT_NE(error("grpo.loss.name=dap").find("dapo"), std::string::npos);
  EXPECT_NE(error("trainer.steps=0").find("trainer.steps"), std::string::npos);
  EXPECT_NE(error("trainer.keep_last=0").find("trainer.keep_last"), std::string::npos);
  EXPECT_NE(error("trainer.samples_per_step=-1").find("trainer.samples_per_step"), std::string::npos);
  EXPECT_NE(error("trainer.checkpoint_every=-1").find("trainer.checkpoint_every"), std::string::npos);
  EXPECT_NE(error("rollout.top_p=0").find("top_p"), std::string::npos);
  EXPECT_NE(error("schedule.min_lr_rate=2").find("min_lr_rate"), std::string::npos);
  EXPECT_NE(error("reward.functions=length_penalti").find("length_penalty"), std::string::npos);
  EXPECT_NE(error("task.name=arithmetics").find("arithmetic"), std::string::npos);
  EXPECT_NE(error("eval.temperature=-1").find("temperature"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)read_grpo_config("{\"grpo\": {\"group_sise\": 4}}", "my.json", {}); })
                .find("my.json"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)read_grpo_config("[1, 2", "my.json", {}); }).find("my.json"),
            std::string::npos);
}

TEST(Run, DiagnosisStopsTheRunWithItsReason) {
  const TemporaryFolder folder;
  const auto seen = std::make_shared<Recorder>();
  // The model knows no sums: every group is dead.
  const auto dead = settings({"reward.functions=exact_match", "diagnosis.action=stop", "diagnosis.patience=1",
                              "diagnosis.stop_after=2", "trainer.steps=9"});
  const RunResult r = run(folder.path() / "run", dead, seen);
  EXPECT_FALSE(r.completed);
  EXPECT_EQ(r.steps, 2);
  EXPECT_NE(r.reason.find("stopping"), std::string::npos) << r.reason;
  EXPECT_EQ(seen->checkpoints, (std::vector<int64_t>{2}));
  ASSERT_EQ(seen->ends.size(), 1u);
  EXPECT_EQ(seen->ends[0].reason, r.reason);
  EXPECT_TRUE(seen->alarms.back().stop);
  EXPECT_TRUE(r.model.empty());
  EXPECT_TRUE(fs::exists(folder.path() / "run/report.html"));
}

TEST(Run, StopRequestSavesAndResumeFinishes) {
  const TemporaryFolder folder;
  const auto first = std::make_shared<Recorder>();
  const auto second = std::make_shared<Recorder>();
  (void)run(folder.path() / "whole", settings());
  int asked = 0;
  const RunResult stopped =
      run(folder.path() / "run", settings(), first, false, [&] { return ++asked == 3; });
  EXPECT_FALSE(stopped.completed);
  EXPECT_NE(stopped.reason, "");
  EXPECT_EQ(first->checkpoints, (std::vector<int64_t>{3}));
  const RunResult r = run(folder.path() / "run", settings(), second, true);
  EXPECT_TRUE(r.completed);
  EXPECT_EQ(r.before.count, 0) << "not measured again";
  EXPECT_EQ(second->steps, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(second->starts[0].start_step, 3);
  EXPECT_EQ(lasting_text(folder.path() / "run/metrics.jsonl"), lasting_text(folder.path() / "whole/metrics.jsonl"));
  EXPECT_EQ(read_text_file(folder.path() / "run/model/model.safetensors"),
            read_text_file(folder.path() / "whole/model/model.safetensors"));
}

TEST(Run, ReferenceKernelsTrainWithoutAlarmAndNearTheCpuKernels) {
  const TemporaryFolder folder;
  const auto seen = std::make_shared<Recorder>();
  const auto more = settings({"trainer.steps=2", "eval.every=-1", "diagnosis.action=stop", "diagnosis.stop_after=1"});
  auto reference = more;
  reference.push_back("trainer.kernels=reference");
  (void)run(folder.path() / "cpu", more);
  const RunResult r = run(folder.path() / "reference", reference, seen);
  EXPECT_TRUE(r.completed) << r.reason;
  for (const Alarm& a : seen->alarms) EXPECT_NE(a.kind, "mismatched_tokens");
  ASSERT_EQ(seen->starts.size(), 1u);
  EXPECT_NE(seen->starts[0].model.find("reference kernels"), std::string::npos);
  EXPECT_EQ(kernels::kernel_table(), nullptr) << "the run's kernels end with it";
  const auto first_step = [&](const char* name) {
    std::ifstream in(folder.path() / name / "metrics.jsonl");
    std::string line;
    std::getline(in, line);
    return Json::parse(line);
  };
  const Json a = first_step("cpu"), b = first_step("reference");
  EXPECT_EQ(a["sampling/mismatched_tokens"], 0);
  EXPECT_GT(b["sampling/mismatched_tokens"], 0);
  EXPECT_EQ(a["completions/mean_length"], b["completions/mean_length"]);
  EXPECT_NEAR(a["entropy"].get<double>(), b["entropy"].get<double>(), 1e-5);
  EXPECT_NEAR(a["grad_norm"].get<double>(), b["grad_norm"].get<double>(),
              1e-4 * a["grad_norm"].get<double>());
}

TEST(Run, ResumingWithOtherNumericsIsRefusedByName) {
  const TemporaryFolder folder;
  const fs::path output = folder.path() / "run";
  const auto resume = [&](const std::string& assignment, bool force) {
    return train_grpo(read_grpo_config("", "", settings({"trainer.steps=2", "eval.every=-1", assignment})),
                      {.output = output, .resume = true, .force = force});
  };
  (void)run(output, settings({"trainer.steps=2", "eval.every=-1"}), std::make_shared<Recorder>(), false,
            [] { return true; });
  for (const std::string key : {"trainer.kernels", "trainer.weights"}) {
    const bool kernels = key == "trainer.kernels";
    const std::string now = kernels ? "reference" : "bfloat16", then = kernels ? "cpu" : "float32";
    const std::string message = error_of([&] { (void)resume(key + "=" + now, false); });
    EXPECT_EQ(message, "[resume] " + key + " is " + now + " but the checkpoint was trained with " + then +
                           ": set " + key + "=" + then +
                           ", or use --force to go on with other numbers");
  }
  EXPECT_TRUE(resume("trainer.kernels=reference", true).completed);
}

TEST(Run, AStopAtTheLastStepIsACompletedRun) {
  const TemporaryFolder folder;
  const RunResult r = run(folder.path() / "run", settings({"trainer.steps=1"}),
                          std::make_shared<Recorder>(), false, [] { return true; });
  EXPECT_TRUE(r.completed);
  EXPECT_EQ(r.reason, "");
  EXPECT_FALSE(r.model.empty());
}

TEST(Run, BestCheckpointIsWrittenAndKept) {
  const TemporaryFolder folder;
  const auto seen = std::make_shared<Recorder>();
  // length_target is above 0.5 for some completions, so evaluations count right ones.
  (void)run(folder.path() / "run",
            settings({"reward.functions=length_target", "reward.target_tokens=1", "reward.target_width=9",
                      "trainer.steps=6", "eval.every=1", "trainer.keep_best=true", "trainer.keep_last=1",
                      "trainer.checkpoint_every=4", "schedule.learning_rate=0.01"}),
            seen);
  int64_t best = -1, best_step = 0;
  for (size_t i = 0; i < seen->evals.size(); ++i) {
    const int64_t step = seen->evals[i];
    if (step == 0 || step == 6 || seen->accuracy[i].first <= best) continue;
    best = seen->accuracy[i].first;
    best_step = step;
  }
  ASSERT_GT(best_step, 0);
  std::set<int64_t> kept;
  for (const Checkpoint& c : list_checkpoints(folder.path() / "run")) kept.insert(c.step);
  EXPECT_EQ(kept, (std::set<int64_t>{best_step, 6}));
}

TEST(Run, DescribesItsBatchArithmetic) {
  GrpoRunConfig c = read_grpo_config("", "", settings({"grpo.iterations=2", "grpo.minibatches=2"}));
  const std::string text = describe_batch(c);
  EXPECT_NE(text.find("2 prompts x 3 completions = 6 sequences"), std::string::npos) << text;
  EXPECT_NE(text.find("2 x 2 = 4 optimizer steps"), std::string::npos) << text;
  EXPECT_NE(text.find("(3 sequences each)"), std::string::npos) << text;
}

}  // namespace
}  // namespace temper::testing_trainer
