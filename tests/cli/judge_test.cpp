// temper judge, as a user runs it.
#include "run_program.h"

namespace temper::cli_test {
namespace {

const std::string kModel = TEMPER_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";

int64_t all(const Json& agreement) {
  return agreement["right"].get<int64_t>() + agreement["wrong"].get<int64_t>() +
         agreement["ties"].get<int64_t>() + agreement["without"].get<int64_t>();
}

TEST(CliJudge, CountsEveryPairInBothModesAndShowsNone) {
  if (!fs::exists(kModel)) GTEST_SKIP() << "run scripts/setup for the default model";
  const Folder folder;
  const std::string file = folder.write(
      "pairs.jsonl",
      "{\"prompt\": \"Name a fish.\", \"chosen\": \"A swordfish.\", \"rejected\": \"A stone.\"}\n"
      "{\"prompt\": \"2 + 2?\", \"chosen\": \"4\", \"rejected\": \"It is five.\"}\n");
  const Outcome o = temper({"judge", file, "--model", kModel, "--set", "rubric=helpful", "--set",
                            "min_mass=0", "--append", " Mark: 5", "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json r = o.json();
  EXPECT_EQ(r["rows"], 2);
  EXPECT_EQ(r["form"], "pairs");
  EXPECT_EQ(r["marks"]["judged"], 4);
  EXPECT_EQ(r["comparisons"]["judged"], 2);
  EXPECT_EQ(all(r["pointwise"]), 2);
  EXPECT_EQ(all(r["pairwise"]), 2);
  EXPECT_EQ(r["pairwise"]["longer_labelled"], 0.5);
  EXPECT_EQ(r["appended"]["answers"], 2);
  EXPECT_EQ((o.out + o.err).find("swordfish"), std::string::npos);
}

TEST(CliJudge, SaysWhatIsMissing) {
  const Folder folder;
  const std::string file = folder.write("rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
  EXPECT_TRUE(temper({"judge", file}).says("give --model, the judge"));
  EXPECT_TRUE(temper({"judge", file, "--model", kModel})
                  .says("a judge is held against pairs or labelled answers"));
  EXPECT_TRUE(temper({"judge", file, "--model", kModel, "--set", "scales=3"}).says("scale"));
  const Outcome keys = temper({"judge", "--keys"});
  EXPECT_EQ(keys.code, 0);
  EXPECT_NE(keys.out.find("length_penalty"), std::string::npos);
}

}  // namespace
}  // namespace temper::cli_test
