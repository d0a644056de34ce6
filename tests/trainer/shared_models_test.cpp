// A reference that processes map, and rewards that are heads on it: the same numbers as with copies
// of one's own.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "temper/core/file.h"
#include "temper/nn/scalar_model.h"
#include "temper/trainer/run.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> settings(const std::vector<std::string>& more) {
  std::vector<std::string> out{"model=" + tiny_model().string(),
                               "task.prompt_template={question}=",
                               "task.train_size=20",
                               "task.held_out_size=6",
                               "rollout.max_new_tokens=8",
                               "grpo.group_size=3",
                               "grpo.prompts_per_step=2",
                               "grpo.loss.kl_coef=0.1",
                               "schedule.learning_rate=0.005",
                               "eval.every=-1",
                               "trainer.steps=3",
                               "trainer.threads=1"};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

RunResult train(const fs::path& output, const std::vector<std::string>& more,
                std::function<bool()> stop = {}, bool resume = false) {
  return train_grpo(read_grpo_config("", "", settings(more)),
                    {.output = output, .resume = resume,
                     .observers = {std::make_shared<JsonlObserver>()},
                     .stop_requested = std::move(stop)});
}

/// What a run leaves: its metrics without the clock, and its model's file.
std::string left_by(const fs::path& folder) {
  std::string out;
  std::ifstream in(folder / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    Json kept = Json::object();
    const Json all = Json::parse(line);
    for (const auto& [name, value] : all.items()) {
      if (!is_wall_clock(name)) kept[name] = value;
    }
    out += kept.dump() + "\n";
  }
  return out + read_text_file(folder / "model" / "model.safetensors");
}

std::string by_length() { return "reward.functions=length_penalty"; }

TEST(MappedReference, IsMadeOnceAndTheRunHasTheBitsOfACopy) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "reference.safetensors";
  for (const std::string& type : {std::string("same"), std::string("int8")}) {
    const std::string weights = "trainer.reference_weights=" + type;
    const std::string mapped = "trainer.reference_file=" + file.string();
    (void)train(folder.path() / ("copy_" + type), {by_length(), weights});
    (void)train(folder.path() / ("mapped_" + type), {by_length(), weights, mapped});
    EXPECT_EQ(left_by(folder.path() / ("mapped_" + type)), left_by(folder.path() / ("copy_" + type)));
    const auto made = fs::last_write_time(file);
    (void)train(folder.path() / ("again_" + type), {by_length(), weights, mapped});
    EXPECT_EQ(fs::last_write_time(file), made) << "a file that fits is not written again";
  }
}

TEST(MappedReference, AResumedRunMapsItAgain) {
  const TemporaryFolder folder;
  const std::vector<std::string> more{
      by_length(), "trainer.reference_file=" + (folder.path() / "reference.safetensors").string()};
  (void)train(folder.path() / "whole", more);
  int asked = 0;
  const RunResult half = train(folder.path() / "cut", more, [&] { return ++asked == 1; });
  EXPECT_EQ(half.steps, 1);
  (void)train(folder.path() / "cut", more, {}, true);
  EXPECT_EQ(left_by(folder.path() / "cut"), left_by(folder.path() / "whole"));
}

TEST(MappedReference, WhatCannotBeIsNamed) {
  const TemporaryFolder folder;
  const std::string file = "trainer.reference_file=" + (folder.path() / "file").string();
  const auto error = [&](const std::vector<std::string>& more) {
    return error_of([&] { (void)train(folder.path() / "run", more); });
  };
  EXPECT_NE(error({by_length(), file, "grpo.loss.kl_coef=0"}).find("trainer.reference_file is set"),
            std::string::npos);
  EXPECT_NE(error({by_length(), file, "grpo.ref_sync_every=2"}).find("grpo.ref_sync_every"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "run")) << "no half-made folder";
}

/// Reward models over the tiny model: backbones as they are, heads of their own.
std::string reward_models(const fs::path& folder, int count) {
  std::string list;
  for (int i = 0; i < count; ++i) {
    RewardModel model = RewardModel::from_language_model(tiny_model().string(),
                                                         WeightDType::kFloat32, Trainable::kNo);
    std::vector<float> head(32);
    for (size_t k = 0; k < head.size(); ++k) head[k] = 0.1f * static_cast<float>((k + i) % 5) - 0.2f;
    model.head().set(head);
    const fs::path path = folder / ("reward_" + std::to_string(i));
    model.save(path);
    if (i > 0) list += ',';
    list += path.string();
  }
  return "reward_model.models=" + list;
}

TEST(SharedBackbone, RewardsOnTheReferenceHaveTheBitsOfTheirOwn) {
  const TemporaryFolder folder;
  const std::string models = reward_models(folder.path(), 2);
  for (const std::string& reference :
       {std::string(), "trainer.reference_file=" + (folder.path() / "file").string()}) {
    const fs::path runs = folder.path() / (reference.empty() ? "copied" : "mapped");
    std::vector<std::string> more{models, "reward_model.rule=min", "reward_model.weights=float32"};
    if (!reference.empty()) more.push_back(reference);
    (void)train(runs / "apart", more);
    more.push_back("reward_model.share_reference=true");
    (void)train(runs / "shared", more);
    EXPECT_EQ(left_by(runs / "shared"), left_by(runs / "apart"));
    int asked = 0;
    (void)train(runs / "cut", more, [&] { return ++asked == 2; });
    (void)train(runs / "cut", more, {}, true);
    EXPECT_EQ(left_by(runs / "cut"), left_by(runs / "apart")) << "resumed";
  }
}

TEST(SharedBackbone, ModelsWithOtherWeightsAndRunsWithoutAReferenceAreRefused) {
  const TemporaryFolder folder;
  const std::string models = reward_models(folder.path(), 1);
  const std::string share = "reward_model.share_reference=true";
  const auto error = [&](const std::vector<std::string>& more) {
    return error_of([&] { (void)train(folder.path() / "run", more); });
  };
  EXPECT_NE(error({models, share, "grpo.loss.kl_coef=0"}).find("reward_model.share_reference is set"),
            std::string::npos);
  EXPECT_NE(error({models, share, "grpo.ref_sync_every=2"}).find("ref_sync_every"), std::string::npos);
  RewardModel moved = RewardModel::load((folder.path() / "reward_0").string(), WeightDType::kFloat32);
  for (const auto& p : moved.backbone().parameters()) {
    if (p->name == "model.layers.1.down") p->data()[3] += 0.5f;
  }
  moved.save(folder.path() / "moved");
  const std::string text = error({"reward_model.models=" + (folder.path() / "moved").string(), share});
  EXPECT_NE(text.find("has another model.layers.1.down than the reference"), std::string::npos) << text;
}

}  // namespace
}  // namespace temper::testing_trainer
