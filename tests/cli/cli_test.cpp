// The program's words, errors and exit codes where no model is needed.
#include <map>

#include "cli/run_program.h"

namespace temper::cli_test {
namespace {

TEST(Cli, TellsItsVersion) {
  const Outcome o = temper({"--version"});
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.out.rfind("temper ", 0), 0u) << o.out;
  EXPECT_EQ(o.err, "");
}

TEST(Cli, HelpNamesTheOptionsOfEveryCommand) {
  const std::map<std::string, Words> options{
      {"eval", {"--model", "--task", "--config", "--set", "--samples", "--kernels"}},
      {"generate",
       {"--model", "--weights", "--prompt", "--ids", "--chat", "--json", "--temperature", "--top-k",
        "--top-p", "--min-p", "--repetition-penalty", "--max-new-tokens", "--stop", "--seed",
        "--kernels"}},
      {"chat", {"--model", "--temperature", "--max-new-tokens", "--seed", "--kernels"}},
      {"logprobs", {"--model", "--text", "--ids", "--temperature", "--json", "--kernels"}},
      {"tokenize", {"--model", "--file", "--plain"}},
      {"template", {"--model", "--file"}},
      {"convert", {"--model", "--output", "--format", "--dtype"}},
      {"inspect", {"path"}},
      {"report", {"run"}}};
  const Outcome all = temper({"--help"});
  EXPECT_EQ(all.code, 0);
  EXPECT_NE(all.out.find("train"), std::string::npos);
  for (const auto& [command, names] : options) {
    EXPECT_NE(all.out.find("\n  " + command + " "), std::string::npos) << command;
    const Outcome o = temper({command, "--help"});
    EXPECT_EQ(o.code, 0) << command;
    EXPECT_EQ(o.err, "") << command;
    for (const auto& name : names) {
      EXPECT_NE(o.out.find(name), std::string::npos) << command << " " << name;
    }
  }
  const Outcome grpo = temper({"train", "grpo", "--help"});
  EXPECT_EQ(grpo.code, 0);
  for (const char* name : {"--config", "--set", "--model", "--output", "--seed", "--resume",
                           "--force", "--kernels", "--print-config", "--keys"}) {
    EXPECT_NE(grpo.out.find(name), std::string::npos) << name;
  }
  const Outcome exact = temper({"check", "exact", "--help"});
  EXPECT_EQ(exact.code, 0);
  for (const char* name : {"--model", "--tokens", "--precision", "--seed", "--json",
                           "Must be 0.", "Exit code 1"}) {
    EXPECT_NE(exact.out.find(name), std::string::npos) << name;
  }
}

TEST(Cli, WhatItDoesNotUnderstandIsExitCode2) {
  const Outcome none = temper({});
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(none.says("--help")) << none.err;
  const Outcome command = temper({"generat"});
  EXPECT_EQ(command.code, 2);
  EXPECT_TRUE(command.says("\"generat\" is no command or option here; did you mean \"generate\"?"))
      << command.err;
  const Outcome option = temper({"generate", "--modle", "m", "--prompt", "x"});
  EXPECT_EQ(option.code, 2);
  EXPECT_TRUE(option.says("did you mean \"--model\"?")) << option.err;
  const Outcome number = temper({"generate", "--model", "m", "--prompt", "x", "--top-k", "many"});
  EXPECT_EQ(number.code, 2);
  EXPECT_TRUE(number.says("--top-k")) << number.err;
  const Outcome choice = temper({"convert", "--model", "m", "--output", "o", "--dtype", "int3"});
  EXPECT_EQ(choice.code, 2);
  EXPECT_TRUE(choice.says("bfloat16")) << choice.err;
  const Outcome half = temper({"generate", "--model", "m", "--prompt", "x", "--weights", "fp16"});
  EXPECT_EQ(half.code, 2);
  EXPECT_TRUE(half.says("fp16 not in {float32,bfloat16,bfloat16_dot,float16,int8,q4}")) << half.err;
  const Outcome kernels = temper({"chat", "--model", "m", "--kernels", "gpu"});
  EXPECT_EQ(kernels.code, 2);
  EXPECT_TRUE(kernels.says("gpu not in {cpu,reference}")) << kernels.err;
  const Outcome check = temper({"check", "exakt", "--model", "m"});
  EXPECT_EQ(check.code, 2);
  EXPECT_TRUE(check.says("did you mean \"exact\"?")) << check.err;
  for (const auto& o : {none, command, option, number, choice, half, kernels, check}) {
    EXPECT_EQ(o.out, "");
  }
}

TEST(Cli, WrongInputIsExitCode1AndNamed) {
  const auto expect = [](const Words& words, const std::string& part) {
    const Outcome o = temper(words);
    EXPECT_EQ(o.code, 1) << part;
    EXPECT_EQ(o.out, "") << part;
    EXPECT_EQ(o.err.rfind("error: ", 0), 0u) << o.err;
    EXPECT_TRUE(o.says(part)) << "expected: " << part << "\ncame: " << o.err;
  };
  expect({"generate", "--model", "no/model.gguf", "--prompt", "x"}, "no/model.gguf");
  expect({"check", "exact", "--model", "no/model.gguf"}, "no/model.gguf");
  expect({"check", "exact", "--model", "m", "--tokens", "0"}, "--tokens must be at least 1, got 0");
  expect({"inspect", "no-such-folder"}, "no-such-folder");
  expect({"report", "no-such-folder"}, "no-such-folder");
  // Said before a model is looked for.
  expect({"generate", "--model", "m", "--ids", "1,x"}, "got \"1,x\"");
  expect({"generate", "--model", "m", "--ids", "99999999999"}, "got \"99999999999\"");
  expect({"logprobs", "--model", "m", "--ids", ","}, "got \",\"");
  expect({"generate", "--model", "m"}, "give either --prompt or --ids");
  expect({"generate", "--model", "m", "--prompt", "x", "--ids", "1"},
         "give either --prompt or --ids");
  expect({"logprobs", "--model", "m"}, "give either --text or --ids");
  expect({"generate", "--model", "m", "--ids", "1", "--chat"}, "--chat applies to --prompt");
  expect({"generate", "--model", "m", "--prompt", "x", "--temperature", "-1"},
         "rollout.temperature must be");
  expect({"generate", "--model", "m", "--prompt", "x", "--top-p", "0"},
         "rollout.top_p must be in (0, 1]");
  expect({"logprobs", "--model", "m", "--text", "x", "--temperature", "0"},
         "--temperature must be above 0");
}

TEST(Cli, PrintedConfigGivesItselfBack) {
  const Folder folder;
  const Outcome first =
      temper({"train", "grpo", "--set", "trainer.steps=7", "--set", "grpo.loss.clip_low=0.25",
              "--model", "some model", "--seed", "9", "--print-config"});
  ASSERT_EQ(first.code, 0) << first.err;
  const Json config = first.json();
  ASSERT_TRUE(config.is_object()) << first.out;
  EXPECT_EQ(config["trainer"]["steps"], 7);
  EXPECT_EQ(config["trainer"]["seed"], 9);
  EXPECT_EQ(config["model"], "some model");
  EXPECT_EQ(config["grpo"]["loss"]["clip_low"], 0.25);
  EXPECT_TRUE(first.says("Each of 7 steps samples")) << first.err;
  const std::string file = folder.write("config.json", first.out);
  const Outcome second = temper({"train", "grpo", "--config", file, "--print-config"});
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_EQ(second.out, first.out);
  // --set comes after the file, and a later one after an earlier one.
  const Outcome third = temper({"train", "grpo", "--config", file, "--set", "trainer.steps=8",
                                "--set", "trainer.steps=9", "--print-config"});
  EXPECT_EQ(third.json()["trainer"]["steps"], 9);
}

TEST(Cli, ChosenLossDecidesTheKeys) {
  const Outcome o = temper({"train", "grpo", "--set", "grpo.loss.name=sapo", "--print-config"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.json()["grpo"]["loss"]["name"], "sapo");
  EXPECT_FALSE(o.json()["grpo"]["loss"].contains("clip_low"));
}

TEST(Cli, KeysAreListedAndMisspeltOnesAnswered) {
  const Outcome keys = temper({"train", "grpo", "--keys"});
  EXPECT_EQ(keys.code, 0);
  EXPECT_NE(keys.out.find("grpo.loss.clip_low = 0.2"), std::string::npos);
  EXPECT_NE(keys.out.find("trainer.steps = 100"), std::string::npos);
  const Outcome typo = temper({"train", "grpo", "--set", "grpo.los.clip_low=1", "--print-config"});
  EXPECT_EQ(typo.code, 1);
  EXPECT_TRUE(typo.says("unknown key \"grpo.los.clip_low\"; did you mean \"grpo.loss.clip_low\"?"))
      << typo.err;
  const Outcome type = temper({"train", "grpo", "--set", "trainer.steps=many", "--print-config"});
  EXPECT_EQ(type.code, 1);
  EXPECT_TRUE(type.says("trainer.steps expects a whole number")) << type.err;
  const Outcome shape = temper({"train", "grpo", "--set", "trainer.steps", "--print-config"});
  EXPECT_EQ(shape.code, 1);
  EXPECT_TRUE(shape.says("key=value")) << shape.err;
  const Folder folder;
  const std::string file = folder.write("bad.json", "{\"trainer\": {");
  const Outcome json = temper({"train", "grpo", "--config", file, "--print-config"});
  EXPECT_EQ(json.code, 1);
  EXPECT_TRUE(json.says(file + ": not valid JSON")) << json.err;
}

TEST(Cli, ARunThatCannotBeginLeavesNoFolder) {
  const Folder folder;
  const Outcome missing =
      temper({"train", "grpo", "--model", "no/model", "--output", folder / "run"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_TRUE(missing.says("no/model")) << missing.err;
  EXPECT_FALSE(fs::exists(folder / "run"));
  const Outcome resumed =
      temper({"train", "grpo", "--model", "no/model", "--output", folder / "run", "--resume"});
  EXPECT_EQ(resumed.code, 1);
  EXPECT_FALSE(fs::exists(folder / "run"));
  EXPECT_TRUE(temper({"train", "grpo", "--output", folder / "run"}).says("give --model"));
  EXPECT_TRUE(temper({"train", "grpo", "--model", "m"}).says("give --output"));
  // A folder with a run in it is refused before the model is looked for.
  fs::create_directories(folder / "used/checkpoints/step-3");
  const Outcome used =
      temper({"train", "grpo", "--model", "no/model", "--output", folder / "used"});
  EXPECT_EQ(used.code, 1);
  EXPECT_TRUE(used.says("holds a run already")) << used.err;
}

TEST(Cli, InspectTellsARunFolder) {
  const Folder folder;
  fs::create_directories(folder / "run/checkpoints/step-3");
  const Outcome o = temper({"inspect", folder / "run"});
  ASSERT_EQ(o.code, 0) << o.err;
  ASSERT_EQ(o.json()["checkpoints"].size(), 1u);
  EXPECT_EQ(o.json()["checkpoints"][0]["step"], 3);
  EXPECT_EQ(o.json()["checkpoints"][0]["complete"], false);
  EXPECT_NE(o.json()["checkpoints"][0]["damage"], "");
}

TEST(Cli, ReportIsWrittenFromTheMetrics) {
  const Folder folder;
  fs::create_directories(folder / "run");
  const std::string metrics = folder.write(
      "run/metrics.jsonl", "{\"step\": 1, \"reward\": 0.5}\n{\"step\": 2, \"reward\": 1}\n");
  const Outcome o = temper({"report", folder / "run"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "");
  EXPECT_NE(read_all(folder / "run/report.html").find("<svg"), std::string::npos);
}

TEST(Cli, OutputThatCannotBeWrittenIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  for (const char* flag : {"--print-config", "--keys"}) {
    const Outcome o = temper({"train", "grpo", flag}, "/dev/full");
    EXPECT_EQ(o.code, 1) << flag;
    EXPECT_TRUE(o.says("error: cannot write to stdout")) << o.err;
  }
}

}  // namespace
}  // namespace temper::cli_test
