// Whole distillation runs: what they leave behind, what they refuse, and that a kill changes nothing.
#include "temper/trainer/distill_run.h"

#include "distill_case.h"
#include "killed_run.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"

namespace temper::testing_trainer {
namespace {

struct RunCase {
  explicit RunCase(const TemporaryFolder& folder) : data(folder.path() / "rows.jsonl") {
    std::ofstream(data) << question_lines(40);
    settings = {"model=" + tiny_model().string(),
                "data.path=" + data.string(),
                "data.held_out_fraction=0.3",
                "distill.teacher_system_prompt=Answer in capitals.",
                "distill.rows_per_step=4",
                "distill.micro_batch_tokens=80",
                "rollout.max_new_tokens=5",
                "schedule.learning_rate=0.01",
                "trainer.steps=12",
                "trainer.threads=1"};
  }
  [[nodiscard]] DistillRunConfig config(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = settings;
    all.insert(all.end(), more.begin(), more.end());
    return read_distill_config("", "", all);
  }
  fs::path data;
  std::vector<std::string> settings;
};

TEST(DistillRun, LeavesAModelMetricsAndAReport) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  const RunResult r = train_distill(c.config({"trainer.checkpoint_every=6", "eval.every=6"}),
                                    {.output = output, .observers = default_observers()});
  EXPECT_TRUE(r.completed);
  const auto lines = lasting_lines(output / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 12u);
  for (const char* name : {"loss", "divergence", "nll_loss", "entropy", "top1_agreement",
                           "on_policy", "grad_norm", "learning_rate", "num_tokens", "epoch"}) {
    EXPECT_TRUE(lines.back().contains(name)) << name;
  }
  EXPECT_LT(r.after.metrics.at("eval/loss"), r.before.metrics.at("eval/loss"));
  EXPECT_EQ(r.after.metrics.at("eval/top1_agreement"),
            static_cast<double>(r.after.correct) / static_cast<double>(r.after.count));
  EXPECT_EQ(list_checkpoints(output).size(), 2u);
  EXPECT_TRUE(fs::exists(output / "report.html"));
  (void)PolicyModel::load(r.model.string(), WeightDType::kFloat32);
}

TEST(DistillRun, AnAdapterLearnsFromTheModelBelowIt) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  std::ofstream(folder.path() / "told.txt") << "Answer in capitals.\n";
  const auto run = [&](const char* name, std::vector<std::string> more) {
    more.insert(more.end(), {"adapter.r=8", "adapter.save_merged=false"});
    return train_distill(c.config(std::move(more)), {.output = folder.path() / name});
  };
  const RunResult below = run("below", {});
  EXPECT_LT(below.after.metrics.at("eval/divergence"),
            0.7 * below.before.metrics.at("eval/divergence"));
  // A teacher of its own, in memory or mapped from a file, and words from a file: the same numbers.
  const RunResult copy = run("copy", {"distill.teacher=" + tiny_model().string()});
  const RunResult mapped = run("mapped", {"distill.teacher_file=" + (folder.path() / "t.panels").string()});
  const RunResult from_file =
      run("file", {"distill.teacher_system_prompt=", "distill.teacher_system_prompt_file=" +
                                                         (folder.path() / "told.txt").string()});
  for (const RunResult* other : {&copy, &mapped, &from_file}) {
    EXPECT_EQ(lasting(other->after.metrics), lasting(below.after.metrics));
  }
  EXPECT_EQ(read_text_file(folder.path() / "below/adapter/adapter_model.safetensors"),
            read_text_file(folder.path() / "mapped/adapter/adapter_model.safetensors"));
}

TEST(DistillRun, PromptsAloneAndAnInt8Teacher) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  std::ofstream(c.data) << question_lines(40, false);
  const RunResult r = train_distill(
      c.config({"distill.teacher_weights=int8", "distill.lambda=0.3", "trainer.steps=40",
                "schedule.learning_rate=0.003"}),
      {.output = folder.path() / "run"});
  EXPECT_LT(r.after.metrics.at("eval/divergence"), r.before.metrics.at("eval/divergence"));
}

TEST(DistillRun, RefusesBeforeAnythingIsMade) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  std::ofstream(folder.path() / "empty.txt") << " \n";
  const std::string empty = "distill.teacher_system_prompt_file=" + (folder.path() / "empty.txt").string();
  const auto expect = [&](std::vector<std::string> settings, const char* word) {
    const std::string error =
        error_of([&] { (void)train_distill(c.config(std::move(settings)), {.output = output}); });
    EXPECT_NE(error.find(word), std::string::npos) << word << ": " << error;
    EXPECT_FALSE(fs::exists(output)) << word;
  };
  expect({"model="}, "no model");
  expect({"data.path="}, "data.path");
  expect({"distill.teacher_system_prompt="}, "would be the same model");
  expect({"distill.teacher_system_prompt= "}, "has no words");
  expect({"distill.teacher_system_prompt=", empty}, "has no words");
  expect({empty}, "leave one out");
  expect({"data.loss_on=all"}, "leave it at answer");
  expect({"data.limit.packing=wrapped"}, "data.limit.packing");
  expect({"distill.beta=2"}, "distill.beta");
  expect({"rollout.temperature=-1"}, "temperature");
  expect({"eval.every=-2"}, "eval.every");
}

TEST(DistillRun, AnotherTeacherIsNotGoneOnWith) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  int asked = 0;
  (void)train_distill(c.config({"adapter.r=4"}),
                      {.output = output, .stop_requested = [&] { return ++asked == 3; }});
  const auto resume = [&](const std::string& setting) {
    return error_of([&] {
      (void)train_distill(c.config({"adapter.r=4", setting}), {.output = output, .resume = true});
    });
  };
  EXPECT_NE(resume("distill.teacher_system_prompt=Whisper.").find("training rows"), std::string::npos);
  EXPECT_NE(resume("distill.teacher_weights=int8").find("teacher's weights"), std::string::npos);
  EXPECT_EQ(resume("distill.micro_batch_tokens=30"), "");
}

TEST(DistillKilled, EndsAsARunThatNeverWas) {
  const TemporaryFolder folder;
  std::vector<std::string> settings = RunCase(folder).settings;
  settings.insert(settings.end(), {"trainer.checkpoint_every=1", "eval.every=4", "distill.lambda=0.5"});
  expect_same_after_kills(folder.path(), {"train", "distill"}, settings, {});
}

}  // namespace
}  // namespace temper::testing_trainer
