// temper plan: its answers, its refusal and its errors.
#include "cli/run_program.h"

namespace temper::cli_test {
namespace {

const std::string kModel = TEMPER_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";

#define NEEDS_MODEL() \
  if (!fs::exists(kModel)) GTEST_SKIP() << "run scripts/setup for the default model"

uint64_t bytes_of(const Json& json, const std::string& owner, const std::string& name) {
  for (const Json& part : json["parts"]) {
    if (part["owner"] == owner && part["name"] == name) return part["bytes"].get<uint64_t>();
  }
  return 0;
}

TEST(CliPlan, HelpTeaches) {
  const Outcome o = temper({"plan", "--help"});
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.err, "");
  for (const char* part : {"config", "--set", "--model", "--algorithm", "--memory", "--scale", "--prompt-tokens",
                           "--mean-tokens", "--gflops", "--json", "Exit code 1", "Example: "}) {
    EXPECT_NE(o.out.find(part), std::string::npos) << part;
  }
}

TEST(CliPlan, ErrorsAreNamed) {
  const auto expect = [](const Words& words, const std::string& part) {
    const Outcome o = temper(words);
    EXPECT_EQ(o.code, 1) << part;
    EXPECT_EQ(o.out, "") << part;
    EXPECT_TRUE(o.says(part)) << "expected: " << part << "\ncame: " << o.err;
  };
  expect({"plan"}, "no model was named");
  expect({"plan", "--model", "no/model.gguf"}, "no/model.gguf");
  expect({"plan", "--model", "m", "--memory", "much"}, "such as 8GiB");
  expect({"plan", "--model", "m", "--scale", "3B"}, "--scale knows 1B, 7B and 70B, got \"3B\"");
  expect({"plan", "--model", "m", "--set", "grpo.micro_batch_token=1"}, "grpo.micro_batch_tokens");
}

/// A plan of the default model as JSON, whatever memory there is.
Outcome plan(const Words& more) {
  Words words{"plan", "--model", kModel, "--memory", "1TiB", "--gflops", "200", "--json"};
  words.insert(words.end(), more.begin(), more.end());
  return temper(words);
}

std::string write_pair(const Folder& folder) {
  return folder.write(
      "pairs.jsonl", R"({"prompt":"Say it.","chosen":"Yes, of course.","rejected":"No."})" "\n");
}

TEST(CliPlan, KnowsTheTrainingOfARewardModel) {
  NEEDS_MODEL();
  const Folder folder;
  const std::string pairs = write_pair(folder);
  const Outcome read = plan({"--algorithm", "reward", "--set", "data.path=" + pairs});
  ASSERT_EQ(read.code, 0) << read.err;
  EXPECT_EQ(bytes_of(read.json(), "model", "gradients"), 4u * 134515008);
  EXPECT_EQ(bytes_of(read.json(), "policy", "gradients"), 0u);
  const Outcome told = plan({"--set", "reward.pairs_per_step=4", "--prompt-tokens", "100"});
  ASSERT_EQ(told.code, 0) << told.err;
  EXPECT_EQ(told.json()["rows"], 4 * 200);
  EXPECT_TRUE(plan({"--algorithm", "reward"}).says("data.path"));
}

TEST(CliPlan, KnowsTrainingOnGivenAnswers) {
  NEEDS_MODEL();
  const Folder folder;
  const std::string pairs = write_pair(folder);
  const Outcome read = plan({"--set", "loss.name=dpo", "--set", "data.path=" + pairs,
                             "--set", "offline.reference=live"});
  ASSERT_EQ(read.code, 0) << read.err;
  EXPECT_EQ(bytes_of(read.json(), "policy", "gradients"), 4u * 134515008);
  EXPECT_GT(bytes_of(read.json(), "reference", "weights"), 4u * 134515008 - 1);
  const Outcome told = plan({"--algorithm", "sft", "--prompt-tokens", "100", "--mean-tokens", "20",
                             "--set", "offline.rows_per_step=4"});
  ASSERT_EQ(told.code, 0) << told.err;
  EXPECT_EQ(told.json()["rows"], 4 * (100 + 19));
  EXPECT_TRUE(plan({"--algorithm", "kto"}).says("data.path"));
  const Outcome own = plan({"--set", "preference.reference=initial", "--prompt-tokens", "20"});
  ASSERT_EQ(own.code, 0) << own.err;
  EXPECT_GT(bytes_of(own.json(), "reference", "weights"), 4u * 134515008 - 1);
  EXPECT_GT(bytes_of(own.json(), "rollout", "keys and values"), 0u);
}

TEST(CliPlan, BillOfTheDefaultModel) {
  NEEDS_MODEL();
  const Outcome o = temper({"plan", "--model", kModel, "--memory", "1TiB", "--gflops", "200",
                            "--scale", "7B", "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = o.json();
  EXPECT_EQ(json["parameters"], 134515008);
  EXPECT_EQ(json["fits"], true);
  EXPECT_EQ(json["memory_bytes"], uint64_t{1} << 40);
  EXPECT_EQ(json["flop_per_second"], 200e9);
  EXPECT_EQ(bytes_of(json, "policy", "gradients"), 4u * 134515008);
  uint64_t sum = 0;
  for (const Json& part : json["parts"]) sum += part["bytes"].get<uint64_t>();
  EXPECT_EQ(json["training_bytes"], sum);
  ASSERT_EQ(json["scale"].size(), 1u);
  EXPECT_EQ(json["scale"][0]["parameters"], 6738415616);
}

TEST(CliPlan, PpoHasFourModels) {
  NEEDS_MODEL();
  const Words common{"plan", "--model", kModel, "--memory", "1TiB", "--gflops", "200", "--json",
                     "--prompt-tokens", "40"};
  const auto plan = [&](const Words& more) {
    Words words = common;
    words.insert(words.end(), more.begin(), more.end());
    return temper(words).json();
  };
  const Json own = plan({"--algorithm", "ppo"});
  const Json trunk = plan({"--set", "ppo.value.model=trunk"});
  EXPECT_EQ(bytes_of(own, "value", "gradients"), 4u * 577) << "the rest lies in the policy's";
  EXPECT_EQ(bytes_of(trunk, "value", "gradients"), 4u * 577);
  EXPECT_GT(bytes_of(own, "reference", "weights"), 0u);
  EXPECT_EQ(own["changes"][0]["setting"], "ppo.value.model=trunk");
  EXPECT_EQ(bytes_of(plan({}), "value", "gradients"), 0u);
}

TEST(CliPlan, RefusesWhatCannotFitAndSaysWhatWould) {
  NEEDS_MODEL();
  const Folder folder;
  const std::string config =
      folder.write("run.json", R"({"model": ")" + kModel + R"(", "grpo": {"loss": {"kl_coef": 0.1}}})");
  const Outcome o = temper({"plan", config, "--memory", "3GiB", "--gflops", "200"});
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.out.find("keys and values"), std::string::npos) << o.out;
  EXPECT_TRUE(o.says("error: this run takes ")) << o.err;
  EXPECT_TRUE(o.says("may take 3.00 GiB")) << o.err;
  EXPECT_TRUE(o.says("It fits with --set ")) << o.err;
  // The settings that it names do what it says.
  const size_t from = o.err.find("It fits with") + 12;
  std::istringstream line(o.err.substr(from, o.err.find('\n', from) - from));
  Words words{"plan", config, "--memory", "3GiB", "--gflops", "200"};
  for (std::string word; line >> word;) words.push_back(word);
  EXPECT_EQ(temper(words).code, 0);
  const Outcome never = temper({"plan", config, "--memory", "1GiB", "--gflops", "200"});
  EXPECT_EQ(never.code, 1);
  EXPECT_TRUE(never.says("All of these together are not enough")) << never.err;
}

}  // namespace
}  // namespace temper::cli_test
