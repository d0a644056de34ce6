// temper data check and temper data build, as a user runs them.
#include "run_program.h"

namespace temper::cli_test {
namespace {

const std::string kRows =
    "{\"prompt\": \"One?\", \"completion\": \"Yes, one.\", \"label\": true}\n"
    "{\"prompt\": \"Two?\", \"completion\": \"No.\", \"label\": false}\n"
    "{\"prompt\": \"Two?\", \"completion\": \"No.\", \"label\": false}\n"
    "{\"prompt\": \"swordfish\"}\n";

TEST(DataCheck, ReportsForProgramsAndForPeople) {
  const Folder folder;
  const std::string file = folder.write("rows.jsonl", kRows);
  const std::string other = folder.write("eval.jsonl", "{\"question\": \"Two?\"}\n");
  const Outcome o =
      temper({"data", "check", "--against", other, file, "--max-length", "6", "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json r = o.json();
  EXPECT_EQ(r["form"], "unpaired");
  EXPECT_EQ(r["rows"], 3);
  EXPECT_EQ(r["bad_rows"], 1);
  EXPECT_NE(r["problems"][0].get<std::string>().find("rows.jsonl:4:1"), std::string::npos);
  EXPECT_EQ(r["same_rows"], 1);
  EXPECT_EQ(r["cut"], 3);
  EXPECT_EQ(r["undesirable"], 2);
  EXPECT_EQ(r["leaks"][0]["same_prompts"], 2);
  const Outcome table = temper({"data", "check", file});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("equal to an earlier row"), std::string::npos) << table.out;
  EXPECT_EQ((table.out + table.err + o.out).find("swordfish"), std::string::npos);
}

TEST(DataCheck, FaultsOfTheWholeFileAreErrors) {
  const Folder folder;
  EXPECT_EQ(temper({"data", "check", folder / "none.jsonl"}).code, 1);
  const Outcome parquet = temper({"data", "check", folder.write("a.parquet", "PAR1....")});
  EXPECT_EQ(parquet.code, 1);
  EXPECT_TRUE(parquet.says("Parquet")) << parquet.err;
  const Outcome key =
      temper({"data", "check", folder.write("rows.jsonl", kRows), "--set", "from=x"});
  EXPECT_EQ(key.code, 1);
  EXPECT_TRUE(key.says("did you mean \"form\"")) << key.err;
  EXPECT_EQ(temper({"data"}).code, 2);
}

TEST(DataBuild, WritesPairsAndTheirCardOnce) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 40; ++i) {
    const std::string number = std::to_string(i * 7919);
    text += Json{{"prompt", "What is " + number + " plus one, please?"},
                 {"completions", {"It is more than " + number, "I do not know"}},
                 {"scores", {1, 0}}}
                .dump() +
            "\n";
  }
  const std::string file = folder.write("scored.jsonl", text);
  const Words words = {
      "data",  "build",       file,     "--output", folder / "a", "--set", "held_out_fraction=0.25",
      "--set", "license=CC0", "--scrub"};
  const Outcome o = temper(words);
  ASSERT_EQ(o.code, 0) << o.err;
  const Json card = o.json();
  EXPECT_EQ(card["license"], "CC0");
  EXPECT_EQ(card["settings"]["scrub"], true);
  EXPECT_EQ(Json::parse(read_all(folder / "a/card.json")), card);
  EXPECT_EQ(static_cast<size_t>(card["splits"]["train"]["bytes"]),
            read_all(folder / "a/train.jsonl").size());
  const Outcome again = temper(words);
  EXPECT_EQ(again.code, 1);
  EXPECT_TRUE(again.says("exists already")) << again.err;
  Words elsewhere = words;
  elsewhere[4] = folder / "b";
  ASSERT_EQ(temper(elsewhere).code, 0);
  for (const char* name : {"train.jsonl", "held_out.jsonl", "card.json", "card.md"}) {
    EXPECT_EQ(read_all(folder / "a/" + name), read_all(folder / "b/" + name)) << name;
  }
  const Outcome checked = temper({"data", "check", folder / "a/train.jsonl", "--against",
                                  folder / "a/held_out.jsonl", "--json"});
  ASSERT_EQ(checked.code, 0) << checked.err;
  EXPECT_EQ(checked.json()["form"], "preference");
  EXPECT_EQ(checked.json()["leaks"][0]["same_prompts"], 0);
  EXPECT_EQ(checked.json()["leaks"][0]["near_prompts"], 0);
}

TEST(DataBuild, SaysWhatItNeeds) {
  EXPECT_TRUE(temper({"data", "build", "--output", "x"}).says("name a file"));
  EXPECT_TRUE(temper({"data", "build", "x"}).says("give --output"));
  const Outcome keys = temper({"data", "build", "--keys"});
  EXPECT_EQ(keys.code, 0);
  EXPECT_NE(keys.out.find("near_similarity = 0.8"), std::string::npos) << keys.out;
}

}  // namespace
}  // namespace temper::cli_test
