// The examples as programs, at sizes that say no more than that they work.
#include "cli/run_program.h"

namespace temper::cli_test {
namespace {

std::vector<Json> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<Json> out;
  for (std::string line; std::getline(file, line);) out.push_back(Json::parse(line));
  return out;
}

TEST(Example, PpoAgainstARewardModelOfItsOwn) {
  if (!fs::exists(TEMPER_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf")) {
    GTEST_SKIP() << "run scripts/setup for the default model";
  }
  if (!fs::exists(TEMPER_BIN_DIR "/ppo_reward_model")) GTEST_SKIP() << "TEMPER_EXAMPLES is off";
  const Folder folder;
  const Outcome o = run_program(
      "ppo_reward_model", {"--output", folder / "runs", "--pairs", "6", "--steps", "2", "--prompts",
                           "2", "--held-out", "4", "--control", "fixed", "--seeds", "5"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("| gold, end |"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("\n| fixed | 5 | "), std::string::npos) << o.out;
  EXPECT_EQ(lines_of(folder / "runs/preferences.jsonl").size(), 6u);

  const auto steps = lines_of(folder / "runs/fixed-5/metrics.jsonl");
  ASSERT_EQ(steps.size(), 2u);
  for (const Json& m : steps) {
    // The gold rule is watched and pays nothing: with weight 0 the whole reward is the proxy's.
    EXPECT_TRUE(m.contains("rewards/gold/mean"));
    EXPECT_NEAR(m["reward"].get<double>(), m["rewards/reward_model/mean"].get<double>(), 1e-6);
    EXPECT_EQ(m["sampling/mismatched_tokens"], 0);
  }
  EXPECT_EQ(steps[0]["objective/kl"], 0);  // Before the first update policy and reference are one.
  const auto evals = lines_of(folder / "runs/fixed-5/eval.jsonl");
  ASSERT_EQ(evals.size(), 2u);
  EXPECT_EQ(evals[1]["count"], 4);
  EXPECT_TRUE(evals[1].contains("eval/gold") && evals[1].contains("eval/reward_model"));
  const std::string report = read_all(folder / "runs/fixed-5/report.html");
  for (const char* chart : {"Rewards by function", "KL of a completion", "Value error"}) {
    EXPECT_NE(report.find(chart), std::string::npos) << chart;
  }
}

}  // namespace
}  // namespace temper::cli_test
