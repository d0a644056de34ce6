// Runs of a reward model that is an adapter and a head: what they leave, and that a stop changes no bit.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "temper/core/file.h"
#include "temper/core/rng.h"
#include "temper/nn/adapter.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

/// Pairs in which the preferred answer is the larger digit.
void write_pairs(const fs::path& path, int count, uint64_t stream) {
  RngStream rng(9, RngPurpose::kTest, stream);
  std::ofstream out(path);
  for (int i = 0; i < count; ++i) {
    const auto low = rng.next_below(5);
    const auto digit = [](uint64_t n) { return std::string(1, static_cast<char>('0' + n)); };
    out << nlohmann::ordered_json{{"prompt", "max" + std::string(rng.next_below(6), '?') + digit(low)},
                                  {"chosen", digit(low + 1 + rng.next_below(5))},
                                  {"rejected", digit(low)}}
               .dump()
        << "\n";
  }
}

struct RewardCase {
  RewardCase() {
    write_pairs(folder.path() / "pairs.jsonl", 60, 1);
    write_pairs(folder.path() / "held_out.jsonl", 30, 2);
  }
  RewardRunConfig config(std::vector<std::string> more = {}) const {
    std::vector<std::string> all{"model=" + tiny_model().string(),
                                 "data.path=" + (folder.path() / "pairs.jsonl").string(),
                                 "data.eval_path=" + (folder.path() / "held_out.jsonl").string(),
                                 "reward.pairs_per_step=6",
                                 "reward.micro_batch_tokens=40",
                                 "reward.head_init_std=0.02",
                                 "schedule.learning_rate=0.02",
                                 "adapter.r=4",
                                 "adapter.alpha=16",
                                 "adapter.use_dora=true",
                                 "trainer.epochs=2",
                                 "trainer.checkpoint_every=5",
                                 "trainer.threads=1"};
    all.insert(all.end(), more.begin(), more.end());
    return read_reward_config("", "", all);
  }
  std::string file(const char* run, const char* name) const {
    return read_text_file(folder.path() / run / name);
  }
  TemporaryFolder folder;
};

class RewardAdapter : public testing::TestWithParam<const char*> {};

TEST_P(RewardAdapter, LearnsOverAFrozenModelAndResumesWithTheSameBits) {
  const RewardCase c;
  const std::string weights = std::string("trainer.weights=") + GetParam();
  const auto config = c.config({weights, "adapter.dropout=0.05"});
  const RunResult whole = train_reward(config, {.output = c.folder.path() / "whole"});
  EXPECT_TRUE(whole.completed);
  EXPECT_GE(whole.after.correct, 24);
  EXPECT_GT(whole.after.correct, whole.before.correct);
  RunOptions stopped{.output = c.folder.path() / "parts"};
  int steps = 0;
  stopped.stop_requested = [&] { return ++steps == 7; };
  EXPECT_FALSE(train_reward(config, stopped).completed);
  const auto last = list_checkpoints(stopped.output).back().folder;
  EXPECT_TRUE(fs::exists(last / "adapter/adapter_model.safetensors"));
  EXPECT_FALSE(fs::exists(last / "model"));
  const RunResult resumed = train_reward(config, {.output = stopped.output, .resume = true});
  EXPECT_TRUE(resumed.completed);
  for (const char* name : {"adapter/adapter_model.safetensors", "adapter/adapter_config.json",
                           "model/model.safetensors"}) {
    EXPECT_EQ(c.file("whole", name), c.file("parts", name)) << name;
  }
  // Both folders open, and score alike but for the rounding of the merge.
  RewardModel merged = RewardModel::load(whole.model.string(), WeightDType::kFloat32);
  RewardModel apart = RewardModel::load_with_adapter(tiny_model().string(), parse_weight_dtype(GetParam()),
                                                     c.folder.path() / "whole/adapter", Trainable::kNo);
  const std::vector<std::vector<int32_t>> texts{{5, 9, 3, 7}, {4, 4, 8}};
  const auto a = merged.score(texts), b = apart.score(texts);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-4) << GetParam();
}
INSTANTIATE_TEST_SUITE_P(Types, RewardAdapter, testing::Values("float32", "q4"),
                         [](const auto& type) { return std::string(type.param); });

TEST(RewardAdapterRun, WhatDoesNotFitIsRefusedByItsKey) {
  const RewardCase c;
  const auto error = [&](const std::vector<std::string>& more) {
    return error_of([&] { (void)train_reward(c.config(more), {.output = c.folder.path() / "run"}); });
  };
  EXPECT_NE(error({"adapter.r=0", "trainer.weights=q4"}).find("trainer.weights=q4"), std::string::npos);
  EXPECT_NE(error({"reward.freeze_backbone=true"}).find("take one of them"), std::string::npos);
  EXPECT_FALSE(fs::exists(c.folder.path() / "run"));
  const RunResult alone = train_reward(c.config({"adapter.save_merged=false", "trainer.steps=1"}),
                                       {.output = c.folder.path() / "alone"});
  EXPECT_EQ(alone.model, c.folder.path() / "alone/adapter");
  const RunResult further = train_reward(c.config({"adapter.path=" + alone.model.string(), "trainer.steps=1"}),
                                         {.output = c.folder.path() / "further"});
  EXPECT_EQ(further.before.correct, alone.after.correct);
}

}  // namespace
}  // namespace temper::testing_trainer
