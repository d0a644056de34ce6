// A reward that hangs in the middle of a run, and what the run keeps. It hangs on a latch that the
// test opens at its end.
#include "temper/reward/timeout.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <memory>

#include "temper/trainer/run.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

/// A reward of two completions a step that hangs in its n-th call, as long as it is told to.
struct Hanging {
  std::shared_ptr<std::latch> open = std::make_shared<std::latch>(1);
  std::shared_ptr<std::atomic<int>> calls = std::make_shared<std::atomic<int>>(0);
  int hangs_in = 0;

  ~Hanging() { open->count_down(); }
  [[nodiscard]] RewardFn fn() const {
    return [latch = open, count = calls, n = hangs_in,
            inner = id_sum_reward().front().fn](std::span<const Completion> completions) {
      if (++*count == n) latch->wait();
      return inner(completions);
    };
  }
};

TEST(RewardTimeout, ATrainerIsAsItWasBeforeTheStep) {
  PolicyModel policy = tiny_policy(), other = tiny_policy();
  Hanging hanging{.hangs_in = 2};
  OnlineTrainer::Parts parts = tiny_parts();
  GrpoTrainer whole(other, tiny_grpo(), parts);
  parts.rewards = {with_timeout({"id_sum", hanging.fn()}, 0.05)};
  GrpoTrainer trainer(policy, tiny_grpo(), parts);
  EXPECT_EQ(lasting(trainer.step().metrics), lasting(whole.step().metrics));
  const std::string error = error_of([&] { (void)trainer.step(); });
  EXPECT_NE(error.find("[score] step 2: reward \"id_sum\" did not return within 0.05 seconds"),
            std::string::npos) << error;
  EXPECT_EQ(trainer.steps_done(), 1);
  hanging.open->count_down();
  hanging.open = std::make_shared<std::latch>(1);
  for (bool again = true; again;) {  // Until the late call is over; the step is then made again.
    try {
      const Rollout r = trainer.step();
      EXPECT_EQ(lasting(r.metrics), lasting(whole.step().metrics));
      again = false;
    } catch (const RewardTimeout&) {
    }
  }
  EXPECT_EQ(weights_of(policy), weights_of(other));
}

std::vector<std::string> settings() {
  return {"model=" + tiny_model().string(), "task.prompt_template={question}=",
          "task.train_size=20",             "rollout.max_new_tokens=10",
          "grpo.group_size=3",              "grpo.prompts_per_step=2",
          "schedule.learning_rate=0.005",   "trainer.steps=4",
          "trainer.threads=1",              "eval.every=-1",
          "reward.functions=length_penalty", "reward.weights=0"};
}

TEST(RewardTimeout, ARunKeepsItsStepsAndGoesOn) {
  const TemporaryFolder folder;
  const auto train = [&](const char* name, const Hanging& reward, double seconds, bool resume) {
    auto assignments = settings();
    assignments.push_back(concat("reward.timeout_seconds=", seconds));
    return train_grpo(read_grpo_config("", "", assignments),
                      {.output = folder.path() / name, .resume = resume,
                       .observers = {std::make_shared<JsonlObserver>()},
                       .rewards = {{"judge", reward.fn()}}});
  };
  const Hanging never;
  (void)train("whole", never, 0, false);
  const Hanging third{.hangs_in = 3};
  const std::string error = error_of([&] { (void)train("cut", third, 0.05, false); });
  EXPECT_NE(error.find("step 3: reward \"judge\" did not return within 0.05 seconds for 6 completions"),
            std::string::npos) << error;
  const auto kept = newest_complete_checkpoint(folder.path() / "cut");
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->step, 2);
  EXPECT_EQ(train("cut", never, 600, true).steps, 4);
  const auto weights = [&](const char* name) {
    return weights_of(PolicyModel::load((folder.path() / name / "model").string(), WeightDType::kFloat32));
  };
  EXPECT_EQ(weights("cut"), weights("whole"));
}

TEST(RewardTimeout, SecondsBelowZeroAreRefused) {
  const TemporaryFolder folder;
  auto assignments = settings();
  assignments.push_back("reward.timeout_seconds=-1");
  EXPECT_NE(error_of([&] {
              (void)train_grpo(read_grpo_config("", "", assignments), {.output = folder.path() / "run"});
            }).find("reward.timeout_seconds must be at least 0"), std::string::npos);
}

}  // namespace
}  // namespace temper::testing_trainer
