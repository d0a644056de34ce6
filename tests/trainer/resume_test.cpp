// A run that stops at any moment goes on as if it had not.
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>

#include "killed_run.h"
#include "temper/core/file.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Json = nlohmann::ordered_json;

// --- The trainer's own state ------------------------------------------------------------------------

struct Case {
  std::string name;
  std::vector<std::string> settings;
  WeightDType dtype = WeightDType::kFloat32;
};

class SaveLoad : public testing::TestWithParam<Case> {};

TEST_P(SaveLoad, ContinuesWithTheSameBits) {
  const TemporaryFolder folder;
  GrpoConfig grpo = tiny_grpo();
  for (const auto& s : GetParam().settings) config_set(config_fields(grpo), s);
  OnlineTrainer::Parts parts = tiny_parts(8);  // 24 prompts of 20: into a second epoch.
  parts.schedule.shape = "cosine";
  PolicyModel policy = tiny_policy(GetParam().dtype);
  GrpoTrainer whole(policy, grpo, parts);
  for (int i = 0; i < 4; ++i) (void)whole.step();
  whole.save(folder.path());

  PolicyModel restored = PolicyModel::load((folder.path() / "model").string(), GetParam().dtype);
  EXPECT_EQ(weights_of(restored), weights_of(policy));
  GrpoTrainer resumed(restored, grpo, parts);
  if (resumed.has_reference() && grpo.online.ref_sync_every == 0) {
    resumed.set_reference(ReferenceModel::load(tiny_model().string(), GetParam().dtype));
  }
  resumed.load(folder.path());
  EXPECT_EQ(resumed.steps_done(), 4);
  for (int i = 4; i < 8; ++i) {
    const Rollout a = whole.step();
    const Rollout b = resumed.step();
    EXPECT_EQ(a.rows, b.rows) << i;
    EXPECT_EQ(lasting(a.metrics), lasting(b.metrics)) << i;
  }
  EXPECT_EQ(weights_of(restored), weights_of(policy));
}

INSTANTIATE_TEST_SUITE_P(
    Settings, SaveLoad,
    testing::Values(Case{"plain", {}}, Case{"bf16", {}, WeightDType::kBfloat16},
                    Case{"bf16_dot", {}, WeightDType::kBfloat16Dot},
                    Case{"kl", {"loss.kl_coef=0.1"}},
                    Case{"float16", {}, WeightDType::kFloat16},
                    Case{"kl_bf16", {"loss.kl_coef=0.1"}, WeightDType::kBfloat16},
                    Case{"moving_reference", {"loss.kl_coef=0.1", "ref_sync_every=3", "iterations=2"}},
                    Case{"entropy", {"loss.entropy_coef=0.02", "top_entropy_quantile=0.6"}},
                    Case{"masked", {"mask_truncated=true", "minibatches=3"}}),
    [](const auto& test) { return test.param.name; });

TEST(SavedState, AMovingReferenceMoves) {
  const auto kl = [](int64_t every) {
    GrpoConfig grpo = tiny_grpo();
    config_set(config_fields(grpo), "loss.kl_coef=0.1");
    grpo.online.ref_sync_every = every;
    grpo.online.ref_sync_mix = 1;
    PolicyModel policy = tiny_policy();
    GrpoTrainer trainer(policy, grpo, tiny_parts(2));
    (void)trainer.step();
    return trainer.step().metrics.at("kl");
  };
  EXPECT_GT(kl(0), 0);
  EXPECT_EQ(kl(1), 0) << "after a full move the reference is the policy";
}

TEST(SavedState, WhatDoesNotFitIsRefused) {
  const TemporaryFolder folder;
  GrpoConfig grpo = tiny_grpo();
  config_set(config_fields(grpo), "loss.kl_coef=0.1");
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, grpo, tiny_parts());
  trainer.save(folder.path());
  const auto error = [&](auto change, bool give_reference = true) {
    OnlineTrainer::Parts parts = tiny_parts();
    change(parts);
    PolicyModel p = tiny_policy();
    GrpoTrainer t(p, grpo, parts);
    if (give_reference) t.set_reference(ReferenceModel::copy_of(p));
    return error_of([&] { t.load(folder.path()); });
  };
  using P = OnlineTrainer::Parts;
  EXPECT_EQ(error([](P&) {}), "");
  EXPECT_NE(error([](P& p) { p.seed = 12; }).find("seed"), std::string::npos);
  EXPECT_NE(error([](P& p) { p.prompts.content_hash++; }).find("prompts"), std::string::npos);
  EXPECT_NE(error([](P&) {}, false).find("set_reference"), std::string::npos);
  std::ofstream(folder.path() / "trainer.json") << "{\"step\": ";
  EXPECT_NE(error([](P&) {}).find("trainer.json"), std::string::npos);
}

// --- The program, killed ----------------------------------------------------------------------------

constexpr int kSteps = 30;

/// What is trained, and the settings that give it state to lose.
struct Algorithm {
  std::string name;
  std::vector<std::string> settings;
};

const Algorithm kGrpo{"grpo",
                      {"grpo.group_size=3", "grpo.prompts_per_step=2", "grpo.loss.kl_coef=0.05",
                       "grpo.ref_sync_every=4"}};
const Algorithm kPpo{"ppo",
                     {"ppo.group_size=1", "ppo.prompts_per_step=6", "ppo.iterations=2", "ppo.minibatches=2",
                      "ppo.minibatch_order=by_tokens", "ppo.kl.kind=dual", "ppo.kl.target=0.5",
                      "ppo.value.normalise=popart", "ppo.scale_rewards=true"}};

/// A child that runs the program; what it says goes to `output`.log.
pid_t start_run(const Algorithm& algorithm, const fs::path& output, bool resume) {
  std::vector<std::string> words{"train", algorithm.name, "--output", output.string()};
  if (resume) {
    words.push_back("--resume");
  } else {
    words.insert(words.end(), {"--model", tiny_model().string()});
    for (const char* s :
         {"task.prompt_template={question}=", "task.train_size=30", "task.held_out_size=4",
          "reward.functions=length_penalty", "rollout.max_new_tokens=12",
          "rollout.stop=[\"a\",\"e\",\"i\",\"0\",\"5\",\"7\",\"T\",\"?\"]",
          "schedule.learning_rate=0.01", "trainer.checkpoint_every=1", "trainer.threads=1"}) {
      words.insert(words.end(), {"--set", s});
    }
    for (const auto& s : algorithm.settings) words.insert(words.end(), {"--set", s});
    words.insert(words.end(), {"--set", "trainer.steps=" + std::to_string(kSteps)});
  }
  return start_program(std::move(words), output.string() + ".log");
}

class Killed : public testing::TestWithParam<Algorithm> {};

TEST_P(Killed, EndsAsARunThatNeverWas) {
  const auto start = [](const fs::path& output, bool resume) {
    return start_run(GetParam(), output, resume);
  };
  const TemporaryFolder folder;
  const fs::path whole = folder.path() / "whole", broken = folder.path() / "broken";
  ASSERT_EQ(wait_for(start(whole, false), [] { return false; }), 0)
      << read_text_file(whole.string() + ".log");

  RngStream rng(2026, RngPurpose::kTest, 1);
  bool resume = false;
  int kills = 0, kills_while_saving = 0;
  for (int round = 0; round < 8; ++round) {
    const int64_t step = 1 + 3 * round + static_cast<int64_t>(rng.next_below(3));
    // Odd rounds: the moment a checkpoint's first bytes are there. Even: when its step was logged.
    const auto now = [&] {
      return round % 2 == 1 ? is_saving(broken, step, kSteps) : lines_in(broken / "metrics.jsonl") >= step;
    };
    const int code = wait_for(start(broken, resume), now);
    ASSERT_TRUE(code == -1 || code == 0) << code << read_text_file(broken.string() + ".log");
    if (code == 0) break;
    ++kills;
    kills_while_saving += is_saving(broken, 1, kSteps) ? 1 : 0;
    // A kill before the first checkpoint leaves a run to begin again, which --resume does too.
    resume = fs::exists(broken / "config.json");
  }
  EXPECT_GE(kills, 5);
  EXPECT_GE(kills_while_saving, 1);
  ASSERT_EQ(wait_for(start(broken, resume), [] { return false; }), 0)
      << read_text_file(broken.string() + ".log");

  EXPECT_EQ(read_text_file(whole / "model/model.safetensors"),
            read_text_file(broken / "model/model.safetensors"));
  const auto expected = lasting_lines(whole / "metrics.jsonl");
  const auto got = lasting_lines(broken / "metrics.jsonl");
  ASSERT_EQ(expected.size(), static_cast<size_t>(kSteps));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].dump(), expected[i].dump());
  for (const char* name : {"completions.jsonl", "eval.jsonl", "alarms.jsonl"}) {
    EXPECT_EQ(lasting_lines(whole / name), lasting_lines(broken / name)) << name;
  }

  // Once more, though it is done: nothing new, the evaluation after the last step not twice.
  ASSERT_EQ(wait_for(start(broken, true), [] { return false; }), 0);
  EXPECT_EQ(lines_in(broken / "eval.jsonl"), 2);
  EXPECT_EQ(lines_in(broken / "metrics.jsonl"), kSteps);
  EXPECT_EQ(read_text_file(whole / "model/model.safetensors"),
            read_text_file(broken / "model/model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Algorithms, Killed, testing::Values(kGrpo, kPpo),
                         [](const auto& test) { return test.param.name; });

TEST(KilledGently, TermSavesACheckpointAndEndsInOrder) {
  const TemporaryFolder folder;
  const fs::path run = folder.path() / "run";
  const pid_t child = start_run(kGrpo, run, false);
  bool sent = false;
  const int code = wait_for(child, [&] {
    if (!sent && lines_in(run / "metrics.jsonl") >= 2) {
      kill(child, SIGTERM);
      sent = true;
    }
    return false;
  });
  EXPECT_NE(code, -1) << "the signal was not handled";
  EXPECT_NE(code, 0);
  EXPECT_TRUE(fs::exists(run / "report.html"));
  const int64_t done = lines_in(run / "metrics.jsonl");
  EXPECT_LT(done, kSteps);
  EXPECT_TRUE(fs::exists(run / "checkpoints" / ("step-" + std::to_string(done)) / "MANIFEST.json"));
}

}  // namespace
}  // namespace temper::testing_trainer
