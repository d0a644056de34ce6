// Whole runs over given answers: what they leave behind, and that a kill changes nothing of it.
#include "temper/trainer/offline_run.h"

#include <gtest/gtest.h>

#include "killed_run.h"
#include "temper/core/file.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Json = nlohmann::ordered_json;

/// A file of pairs in which the preferred answer is always a nine.
void write_pairs(const fs::path& path, int count) {
  RngStream rng(9, RngPurpose::kTest, 1);
  std::ofstream out(path);
  for (int i = 0; i < count; ++i) {
    const auto low = rng.next_below(5);
    const auto digit = [](uint64_t n) { return std::string(1, static_cast<char>('0' + n)); };
    const Json row{{"prompt", "max" + std::string(rng.next_below(6), '?') + digit(low)},
                   {"chosen", "9"},
                   {"rejected", digit(low)}};
    out << row.dump() << "\n";
  }
}

struct RunCase {
  explicit RunCase(const TemporaryFolder& folder) : data(folder.path() / "pairs.jsonl") {
    write_pairs(data, 60);
    settings = {"model=" + tiny_model().string(), "data.path=" + data.string(),
                "data.held_out_fraction=0.3",     "offline.rows_per_step=6",
                "offline.micro_batch_tokens=40",  "schedule.learning_rate=0.01",
                "trainer.steps=12",               "trainer.threads=1"};
  }
  OfflineRunConfig config(const std::string& method, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = settings;
    all.insert(all.end(), more.begin(), more.end());
    return read_offline_config(method, "", "", all);
  }
  fs::path data;
  std::vector<std::string> settings;
};

TEST(OfflineRun, EveryMethodLeavesAModelMetricsAndAReport) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  for (const OfflineMethod& m : offline_methods()) {
    const fs::path output = folder.path() / m.name;
    const RunResult r = train_offline(c.config(m.name, {"trainer.steps=4", "trainer.checkpoint_every=2"}),
                                      {.output = output, .observers = default_observers()});
    EXPECT_TRUE(r.completed) << m.name;
    const auto lines = lasting_lines(output / "metrics.jsonl");
    ASSERT_EQ(lines.size(), 4u) << m.name;
    for (const char* name : {"loss", "entropy", "grad_norm", "learning_rate", "num_tokens", "epoch"}) {
      EXPECT_TRUE(lines.back().contains(name)) << m.name << " " << name;
    }
    EXPECT_LT(r.after.metrics.at("eval/loss"), r.before.metrics.at("eval/loss")) << m.name;
    EXPECT_EQ(list_checkpoints(output).size(), 2u);
    EXPECT_TRUE(fs::exists(output / "report.html"));
    (void)PolicyModel::load(r.model.string(), WeightDType::kFloat32);
  }
}

TEST(OfflineRun, PreferencesAreLearnt) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const RunResult r = train_offline(c.config("dpo"), {.output = folder.path() / "run"});
  EXPECT_EQ(r.before.correct, 0);  // Nothing is preferred yet.
  EXPECT_GE(r.after.correct, r.after.count - 1);
  EXPECT_GE(r.after.count, 10);
}

TEST(OfflineRun, AnAdapterIsItsOwnReference) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const auto run = [&](const char* name, const char* reference) {
    return train_offline(c.config("dpo", {"adapter.r=4", std::string("offline.reference=") + reference}),
                         {.output = folder.path() / name});
  };
  const RunResult live = run("live", "live"), cached = run("cached", "cached");
  EXPECT_GE(live.after.correct, live.after.count - 1);
  EXPECT_EQ(lasting(live.after.metrics), lasting(cached.after.metrics));
  EXPECT_TRUE(fs::exists(folder.path() / "live/adapter/adapter_model.safetensors"));
  EXPECT_EQ(read_text_file(folder.path() / "live/adapter/adapter_model.safetensors"),
            read_text_file(folder.path() / "cached/adapter/adapter_model.safetensors"));
}

TEST(OfflineRun, RefusesBeforeAnythingIsMade) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  const auto expect = [&](const char* method, std::vector<std::string> settings, const char* word) {
    const std::string error = error_of([&] {
      (void)train_offline(c.config(method, std::move(settings)), {.output = output});
    });
    EXPECT_NE(error.find(word), std::string::npos) << word << ": " << error;
    EXPECT_FALSE(fs::exists(output)) << word;
  };
  expect("dpo", {"data.path="}, "data.path");
  expect("dpo", {"data.path=/nowhere.jsonl"}, "no such file");
  expect("sft", {"model="}, "no model");
  expect("sft", {"offline.rows_per_step=0"}, "offline.rows_per_step");
  expect("sft", {"data.loss_on=assistant"}, "data.loss_on");
  expect("dpo", {"data.limit.max_length=2"}, "data.limit.max_length");
  expect("dpo", {"loss.beta=0"}, "beta");
  std::ofstream(folder.path() / "plain.jsonl") << R"({"prompt":"a","completion":"b"})" << "\n";
  const std::string plain = "data.path=" + (folder.path() / "plain.jsonl").string();
  expect("dpo", {plain, "data.held_out_fraction=0"}, "chosen");
  expect("kto", {plain, "data.held_out_fraction=0"}, "label");
}

TEST(OfflineRun, AnotherFileIsNotGoneOnWith) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  int asked = 0;
  const RunResult first = train_offline(
      c.config("dpo"), {.output = output, .stop_requested = [&] { return ++asked == 3; }});
  EXPECT_EQ(first.steps, 3);
  write_pairs(c.data, 61);
  const std::string error = error_of(
      [&] { (void)train_offline(c.config("dpo"), {.output = output, .resume = true}); });
  EXPECT_NE(error.find("training rows"), std::string::npos) << error;
}

TEST(OfflineKilled, EndsAsARunThatNeverWas) {
  const TemporaryFolder folder;
  std::vector<std::string> settings = RunCase(folder).settings;
  settings.insert(settings.end(), {"trainer.checkpoint_every=1", "eval.every=4"});
  expect_same_after_kills(folder.path(), {"train", "dpo"}, settings, {});
}

}  // namespace
}  // namespace temper::testing_trainer
