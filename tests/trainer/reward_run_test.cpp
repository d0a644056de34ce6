// Whole runs of a reward model: what they leave behind, and that a kill changes nothing of it.
#include "temper/trainer/reward_run.h"

#include <gtest/gtest.h>

#include "killed_run.h"
#include "temper/core/file.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Json = nlohmann::ordered_json;

/// A file of pairs in which the preferred answer is the larger digit.
void write_pairs(const fs::path& path, int count, int stream) {
  RngStream rng(9, RngPurpose::kTest, static_cast<uint64_t>(stream));
  std::ofstream out(path);
  for (int i = 0; i < count; ++i) {
    const auto low = rng.next_below(5);
    const auto digit = [](uint64_t n) { return std::string(1, static_cast<char>('0' + n)); };
    const Json row{{"prompt", "max" + std::string(rng.next_below(6), '?') + digit(low)},
                   {"chosen", digit(low + 1 + rng.next_below(5))},
                   {"rejected", digit(low)}};
    out << row.dump() << "\n";
  }
}

struct RunCase {
  explicit RunCase(const TemporaryFolder& folder) : data(folder.path() / "pairs.jsonl") {
    write_pairs(data, 60, 1);
    write_pairs(folder.path() / "held_out.jsonl", 30, 2);
    settings = {"model=" + tiny_model().string(),
                "data.path=" + data.string(),
                "data.eval_path=" + (folder.path() / "held_out.jsonl").string(),
                "reward.pairs_per_step=6",
                "reward.micro_batch_tokens=40",
                "reward.head_init_std=0.02",
                "schedule.learning_rate=0.01",
                "trainer.epochs=2",
                "trainer.threads=1"};
  }
  RewardRunConfig config(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = settings;
    all.insert(all.end(), more.begin(), more.end());
    return read_reward_config("", "", all);
  }
  fs::path data;
  std::vector<std::string> settings;
};

TEST(RewardRun, LeavesAModelMetricsAndAReport) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  const RunResult r = train_reward(c.config({"eval.every=7", "trainer.checkpoint_every=5"}),
                                   {.output = output, .observers = default_observers()});
  EXPECT_TRUE(r.completed);
  EXPECT_EQ(r.steps, 20);  // 2 x 60 pairs, 6 a step.
  EXPECT_EQ(r.before.count, 30);
  EXPECT_EQ(r.after.count, 30);
  EXPECT_GE(r.after.correct, 25);
  EXPECT_GT(r.after.correct, r.before.correct);
  EXPECT_TRUE(r.after.metrics.contains("eval/calibration_error"));
  const auto lines = lasting_lines(output / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 20u);
  for (const char* name : {"loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward",
                           "grad_norm", "learning_rate", "num_tokens", "epoch"}) {
    EXPECT_TRUE(lines.back().contains(name)) << name;
  }
  EXPECT_EQ(lines_in(output / "eval.jsonl"), 4);  // Before, 7, 14, after.
  EXPECT_EQ(list_checkpoints(output).size(), 2u);
  EXPECT_TRUE(fs::exists(output / "report.html"));
  RewardModel model = RewardModel::load(r.model.string(), WeightDType::kFloat32);
  const ModelText& text = model.text();
  const auto score = [&](const std::string& answer) {
    std::vector<int32_t> ids = text.tokenizer().encode("max??2" + answer);
    ids.push_back(*text.eos_id());
    return model.score(std::vector<std::vector<int32_t>>{ids}).at(0);
  };
  EXPECT_GT(score("9"), score("2"));

  // A reward model is trained on, not given a new head.
  const RunResult again = train_reward(c.config({"model=" + r.model.string(), "trainer.steps=1"}),
                                       {.output = folder.path() / "again"});
  EXPECT_EQ(again.before.correct, r.after.correct);
}

TEST(RewardRun, HoldsOutAShareOfTheFile) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const RunResult r =
      train_reward(c.config({"data.eval_path=", "data.held_out_fraction=0.3", "trainer.steps=1",
                             "eval.pairs=4", "reward.freeze_backbone=true"}),
                   {.output = folder.path() / "run"});
  EXPECT_EQ(r.after.count, 4);
}

TEST(RewardRun, RefusesBeforeAnythingIsMade) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  const auto expect = [&](std::vector<std::string> settings, const char* word) {
    const std::string error =
        error_of([&] { (void)train_reward(c.config(std::move(settings)), {.output = output}); });
    EXPECT_NE(error.find(word), std::string::npos) << word << ": " << error;
    EXPECT_FALSE(fs::exists(output)) << word;
  };
  expect({"data.path="}, "data.path");
  expect({"data.path=/nowhere.jsonl"}, "no such file");
  expect({"model="}, "no model");
  expect({"trainer.epochs=0"}, "trainer.epochs");
  expect({"trainer.keep_last=0"}, "trainer.keep_last");
  expect({"data.held_out_fraction=1"}, "data.held_out_fraction");
  expect({"reward.pairs_per_step=0"}, "reward.pairs_per_step");
  expect({"reward.freeze_backbone=true", "trainer.weights=bfloat16"}, "freeze_backbone");
  expect({"data.max_length=2"}, "data.max_length");
  expect({"schedule.warmup_steps=-1"}, "warmup_steps");
  const std::string misspelt = error_of([&] { (void)c.config({"reward.pair_per_step=3"}); });
  EXPECT_NE(misspelt.find("pairs_per_step"), std::string::npos) << misspelt;
}

TEST(RewardRun, AnotherFileIsNotGoneOnWith) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  int asked = 0;
  const RunResult first =
      train_reward(c.config(), {.output = output, .stop_requested = [&] { return ++asked == 3; }});
  EXPECT_FALSE(first.completed);
  EXPECT_EQ(first.steps, 3);
  write_pairs(c.data, 61, 1);
  const std::string error =
      error_of([&] { (void)train_reward(c.config(), {.output = output, .resume = true}); });
  EXPECT_NE(error.find("training pairs"), std::string::npos) << error;
  write_pairs(c.data, 60, 1);
  const std::string other = error_of([&] {
    (void)train_reward(c.config({"trainer.weights=bfloat16"}), {.output = output, .resume = true});
  });
  EXPECT_NE(other.find("trainer.weights"), std::string::npos) << other;
  EXPECT_EQ(train_reward(c.config(), {.output = output, .resume = true}).steps, 20);
}

TEST(RewardKilled, EndsAsARunThatNeverWas) {
  const TemporaryFolder folder;
  std::vector<std::string> settings = RunCase(folder).settings;
  settings.insert(settings.end(), {"trainer.checkpoint_every=1", "eval.every=4"});
  expect_same_after_kills(folder.path(), {"train", "reward"}, settings, {.rounds = 5, .stride = 4, .steps = 20, .least = 3});
}

}  // namespace
}  // namespace temper::testing_trainer
