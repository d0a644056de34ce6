#include "cli/run_program.h"

namespace temper::cli_test {
namespace {

TEST(TrainReward, HelpTeachesByAnExample) {
  const Outcome o = temper({"train", "reward", "--help"});
  EXPECT_EQ(o.code, 0);
  for (const char* words : {"\"chosen\"", "Example: temper train reward", "--resume", "--keys"}) {
    EXPECT_NE(o.out.find(words), std::string::npos) << words;
  }
}

TEST(TrainReward, ListsItsKeysAndReplaysItsConfig) {
  const Outcome keys = temper({"train", "reward", "--keys"});
  EXPECT_EQ(keys.code, 0);
  for (const char* line : {"reward.loss.center_coef = 0", "data.max_length = 1024",
                           "schedule.learning_rate = 0.0001", "trainer.epochs = 1"}) {
    EXPECT_NE(keys.out.find(line), std::string::npos) << line;
  }
  const Folder folder;
  const Outcome first =
      temper({"train", "reward", "--set", "data.path=p", "--set", "reward.loss.label_smoothing=0.1",
              "--seed", "9", "--print-config"});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(first.json()["trainer"]["seed"], 9);
  EXPECT_TRUE(first.says("8 pairs a step"));
  const std::string file = folder.write("config.json", first.out);
  EXPECT_EQ(temper({"train", "reward", "--config", file, "--print-config"}).out, first.out);
}

TEST(TrainReward, NamesWhatIsMissing) {
  const Folder folder;
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"train", "reward", "--output", folder / "run"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = temper(words);
    EXPECT_EQ(o.code, 1);
    return o;
  };
  EXPECT_TRUE(run({}).says("give --model"));
  EXPECT_TRUE(run({"--model", "m"}).says("data.path"));
  EXPECT_TRUE(run({"--set", "reward.los.center_coef=1"}).says("reward.loss.center_coef"));
  EXPECT_TRUE(run({"--model", "m", "--set", "data.path=p", "--set", "trainer.epochs=0"})
                  .says("trainer.epochs must be above 0"));
}

}  // namespace
}  // namespace temper::cli_test
