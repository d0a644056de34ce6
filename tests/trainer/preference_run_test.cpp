// Whole runs over the policy's own answers: what they leave behind, and that a kill changes nothing.
#include "temper/trainer/preference_run.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "killed_run.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

struct RunCase {
  explicit RunCase(const TemporaryFolder& folder) {
    const auto pairs = folder.path() / "pairs.jsonl", probe = folder.path() / "probe.jsonl";
    std::ofstream(pairs) << R"({"prompt":"3+4=","chosen":"7","rejected":"6"})" << "\n"
                         << R"({"prompt":"1+1=","chosen":"2","rejected":"3"})" << "\n";
    std::ofstream(probe) << R"({"prompt":"3+4=","completion":"7"})" << "\n";
    file = pairs.string();
    settings = {"model=" + tiny_model().string(),
                "task.prompt_template={question}=",
                "task.form=text",
                "task.train_size=20",
                "task.held_out_size=6",
                "reward.functions=contains",
                "reward.words=a,e,i,o,u,3,7,Q,T,z,b,K",
                "rollout.max_new_tokens=6",
                "preference.prompts_per_round=4",
                "preference.completions=4",
                "preference.rows_per_step=2",
                "preference.micro_batch_tokens=40",
                "schedule.learning_rate=0.01",
                "trainer.steps=12",
                "trainer.threads=1",
                "trainer.samples_per_step=3",
                "probe.path=" + probe.string()};
  }
  PreferenceRunConfig config(const std::string& method, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = settings;
    all.insert(all.end(), more.begin(), more.end());
    return read_preference_config(method, "", "", all);
  }
  std::string file;
  std::vector<std::string> settings;
};

TEST(PreferenceRun, EveryMethodLeavesAModelMetricsAndAReport) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  for (const std::string name : {"online-dpo", "iterative-dpo", "xpo", "nash-md"}) {
    const fs::path output = folder.path() / name;
    const RunResult r =
        train_preference(c.config(name, {"trainer.steps=4", "trainer.checkpoint_every=2"}),
                         {.output = output, .observers = default_observers()});
    EXPECT_TRUE(r.completed) << name;
    EXPECT_EQ(r.after.count, 6) << name;
    const auto lines = lasting_lines(output / "metrics.jsonl");
    ASSERT_EQ(lines.size(), 4u) << name;
    for (const char* metric : {"loss", "entropy", "grad_norm", "learning_rate", "num_tokens", "epoch",
                             "beta", "objective/kl", "objective/entropy", "objective/scores",
                             "objective/non_score_reward", "objective/rlhf_reward", "logps/chosen",
                             "val/contain_eos_token", "pairs/made", "probe/probability"}) {
      EXPECT_TRUE(lines.front().contains(metric)) << name << " " << metric;
    }
    EXPECT_EQ(lines_in(output / "completions.jsonl") % 3, 0) << name;
    EXPECT_GE(lines_in(output / "completions.jsonl"), 3) << name;
    EXPECT_EQ(list_checkpoints(output).size(), 2u) << name;
    EXPECT_NE(read_text_file(output / "report.html").find("Given answers"), std::string::npos);
    (void)PolicyModel::load(r.model.string(), WeightDType::kFloat32);
  }
}

TEST(PreferenceRun, MethodsHaveDefaultsOfTheirOwn) {
  EXPECT_EQ(read_preference_config("online-dpo", "", "", {}).loss.name(), "dpo");
  const auto iterative = read_preference_config("iterative-dpo", "", "", {});
  EXPECT_EQ(iterative.preference.reference, "round");
  EXPECT_NE(config_text(iterative).find("\"sft\""), std::string::npos);
  EXPECT_EQ(read_preference_config("xpo", "", "", {}).loss.setting("alpha"), 1e-5);
  EXPECT_EQ(read_preference_config("nash-md", "", "", {}).labeler.link, "sigmoid");
  const std::string text = config_text(read_preference_config("xpo", "", "", {"loss.alpha=0.5"}));
  const auto back = read_preference_config("xpo", text, "file", {});
  EXPECT_EQ(back.loss.setting("alpha"), 0.5);
  EXPECT_NE(describe_batch(back).find("half of them the reference's"), std::string::npos);
}

TEST(PreferenceRun, RefusesBeforeAnythingIsMade) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const fs::path output = folder.path() / "run";
  const auto expect = [&](const char* method, std::vector<std::string> settings, const char* word) {
    const std::string error = error_of([&] {
      (void)train_preference(c.config(method, std::move(settings)), {.output = output});
    });
    EXPECT_NE(error.find(word), std::string::npos) << word << ": " << error;
    EXPECT_FALSE(fs::exists(output)) << word;
  };
  expect("online-dpo", {"model="}, "no model");
  expect("online-dpo", {"trainer.steps=0"}, "trainer.steps");
  expect("online-dpo", {"preference.rows_per_step=0"}, "preference.rows_per_step");
  expect("online-dpo", {"preference.completions=1"}, "preference.completions");
  expect("online-dpo", {"preference.file_share=0.5"}, "pairs.path names no file");
  expect("online-dpo", {"pairs.path=" + c.file}, "preference.file_share is 0");
  expect("online-dpo", {"rollout.temperature=0"}, "rollout.temperature");
  expect("online-dpo", {"labeler.missing_eos_penalty=-1"}, "labeler.missing_eos_penalty");
  expect("online-dpo", {"loss.name=xpo"}, "loss");
  expect("online-dpo", {"probe.every=0"}, "probe.every");
  expect("xpo", {"preference.reference=round"}, "preference.reference=round");
  expect("xpo", {"preference.file_share=0.5", "pairs.path=" + c.file}, "file_share must be 0");
  expect("xpo", {"preference.completions=3"}, "must be even");
  expect("nash-md", {"preference.replay_rows=3"}, "preference.replay_rows must be 0");
  expect("iterative-dpo", {"reward_model.share_reference=true"}, "preference.reference=initial");
}

TEST(PreferenceRun, AnAdapterTrainsUnderEveryMethod) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  for (const char* method : {"iterative-dpo", "xpo"}) {
    const RunResult r = train_preference(c.config(method, {"adapter.r=4", "trainer.steps=3"}),
                                         {.output = folder.path() / method});
    EXPECT_TRUE(r.completed) << method;
    EXPECT_TRUE(fs::exists(folder.path() / method / "adapter/adapter_model.safetensors"));
  }
}

// A reward that hangs in step 3 ends the run, which keeps what it has and goes on from there.
TEST(PreferenceRun, ALateRewardCostsNoStep) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const auto run = [&](const char* name, int late, bool resume) {
    auto calls = std::make_shared<int>(0);
    const NamedReward reward{"ids", [calls, late](std::span<const Completion> answers) {
                               if (++*calls == late) {
                                 std::this_thread::sleep_for(std::chrono::milliseconds(900));
                               }
                               std::vector<float> out;
                               for (const Completion& a : answers) {
                                 out.push_back(static_cast<float>(a.ids[0] % 7));
                               }
                               return out;
                             }};
    return train_preference(
        c.config("online-dpo", {"trainer.steps=4", "preference.rows_per_step=8", "eval.every=-1",
                                "reward.timeout_seconds=0.3"}),
        {.output = folder.path() / name,
         .resume = resume,
         .observers = {std::make_shared<JsonlObserver>()},
         .rewards = {reward}});
  };
  const RunResult whole = run("whole", 0, false);
  EXPECT_NE(error_of([&] { (void)run("late", 3, false); }).find("ids"), std::string::npos);
  ASSERT_EQ(list_checkpoints(folder.path() / "late").size(), 1u);
  EXPECT_EQ(list_checkpoints(folder.path() / "late")[0].step, 2);
  const RunResult late = run("late", 0, true);
  EXPECT_EQ(read_text_file(late.model / "model.safetensors"),
            read_text_file(whole.model / "model.safetensors"));
  EXPECT_EQ(lasting_lines(folder.path() / "late/metrics.jsonl"),
            lasting_lines(folder.path() / "whole/metrics.jsonl"));
}

// A killed run goes on where it was: in the middle of a round, with the replay buffer, the file's
// cursor and the log-probs of a reference that has moved on.
TEST(PreferenceRun, KilledAndResumedHasTheSameBits) {
  const TemporaryFolder folder;
  const RunCase c(folder);
  const std::vector<std::string> mixed = {"preference.file_share=0.25", "pairs.path=" + c.file,
                                          "preference.replay_rows=2", "preference.replay_steps=6"};
  for (const auto& [method, more] :
       {std::pair(std::string("iterative-dpo"), mixed),
        std::pair(std::string("nash-md"), std::vector<std::string>{"adapter.r=4"})}) {
    const fs::path place = folder.path() / method;
    fs::create_directories(place);
    std::vector<std::string> settings = c.settings;
    settings.insert(settings.end(), more.begin(), more.end());
    settings.insert(settings.end(), {"trainer.checkpoint_every=1", "eval.every=5"});
    expect_same_after_kills(place, {"train", method}, settings, {});
  }
}

}  // namespace
}  // namespace temper::testing_trainer
