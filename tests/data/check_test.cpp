#include "temper/data/check.h"

#include <nlohmann/json.hpp>

#include "data_test_util.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

DataCheckReport check(const std::string& text, const DataCheckOptions& options = {}) {
  const ScratchFile file("rows.jsonl", text);
  return check_data(file.path(), {}, options);
}

const LengthStats& part(const DataCheckReport& r, const std::string& name) {
  for (const auto& [key, stats] : r.lengths) {
    if (key == name) return stats;
  }
  throw std::runtime_error("no lengths of " + name);
}

TEST(LengthStats, ByHand) {
  const LengthStats s = length_stats({5, 1, 3, 2, 4});
  EXPECT_EQ(s.count, 5u);
  EXPECT_EQ(s.least, 1);
  EXPECT_EQ(s.median, 3);
  EXPECT_EQ(s.p95, 5);
  EXPECT_EQ(s.most, 5);
  EXPECT_EQ(s.mean, 3);
  EXPECT_EQ(length_stats({7, 9}).median, 7);
  EXPECT_EQ(length_stats({}).count, 0u);
}

const std::string kLong =
    "a rather long answer that says what there is to be said about the tower ";

TEST(CheckData, CountsRowsAndWhatIsWrongWithThem) {
  const DataCheckReport r = check(
      "{\"prompt\": \"pr\u00e9\", \"completion\": \"abcd\", \"label\": true}\n"
      "{\"prompt\": \"pr\u00e9\", \"completion\": \"abcd\", \"label\": true}\n"   // Equal.
      "{\"prompt\": \"pr\u00e9\", \"completion\": \"abcd\", \"label\": false}\n"  // Contradicts.
      "{\"prompt\": \"q\", \"completion\": \" \", \"label\": false}\n"            // Empty.
      "{\"prompt\": \"q\", \"completion\": 7, \"label\": false}\n"                // Bad.
      "{\"prompt\": \"q\", \"completion\": \"0123456789\", \"label\": false}\n");
  EXPECT_EQ(r.form, "unpaired");
  EXPECT_EQ(r.rows, 4u);
  EXPECT_EQ(r.skipped, 1u);
  EXPECT_EQ(r.empty, 1u);
  ASSERT_EQ(r.problems.size(), 2u);
  EXPECT_NE(r.problems[0].find("rows.jsonl:5:1"), std::string::npos) << r.problems[0];
  EXPECT_NE(r.problems[1].find("rows.jsonl:4:1: an answer has no words"), std::string::npos);
  EXPECT_EQ(r.same_rows, 1u);
  EXPECT_EQ(r.same_prompts, 2u);
  EXPECT_EQ(r.duplicates.at(0), (std::pair<uint64_t, uint64_t>{2, 1}));
  EXPECT_EQ(r.desirable, 2u);
  EXPECT_EQ(r.undesirable, 2u);
  EXPECT_EQ(r.contradictions, 1u);
  EXPECT_EQ(part(r, "prompt").most, 3) << "characters, not bytes";
  EXPECT_EQ(part(r, "undesirable").most, 10);
  EXPECT_EQ(part(r, "whole").count, 4u);
}

TEST(CheckData, FindsNearRowsAndNoOthers) {
  const auto row = [](const std::string& text) { return Json{{"text", text}}.dump() + "\n"; };
  const DataCheckReport r = check(row(kLong + kLong + "today") + row("nothing of the kind at all") +
                                  row(kLong + kLong + "today!") + row(kLong + kLong + "yes"));
  EXPECT_EQ(r.form, "text");
  EXPECT_EQ(r.same_rows, 0u);
  EXPECT_EQ(r.near_rows, 2u);
  EXPECT_EQ(r.duplicates, (std::vector<std::pair<uint64_t, uint64_t>>{{3, 1}, {4, 1}}));
}

TEST(CheckData, NearRowsNeedNotBeLookedFor) {
  const std::string text = Json{{"text", kLong}}.dump() + "\n" + Json{{"text", kLong + "!"}}.dump();
  EXPECT_EQ(check(text).near_rows, 1u);
  DataCheckOptions o;
  o.near.similarity = 0;
  EXPECT_EQ(check(text, o).near_rows, 0u);
  o.near.similarity = -1;
  EXPECT_NE(error_of([&] { (void)check(text, o); }), "");
}

TEST(CheckData, PairsAreRowsAndTheirAnswersAreCompared) {
  const auto row = [](const std::string& chosen, const std::string& rejected) {
    return Json{{"prompt", "p"}, {"chosen", chosen}, {"rejected", rejected}}.dump() + "\n";
  };
  const DataCheckReport r = check(row(kLong, kLong + "!") + row("yes", "no") + row("no", "yes") +
                                  row("same", "same") + row("ok", "\\"));
  EXPECT_EQ(r.form, "preference");
  EXPECT_EQ(r.rows, 4u);
  EXPECT_EQ(r.equal, 1u);
  EXPECT_EQ(r.near_rows, 0u) << "two answers of one pair are no duplicates";
  EXPECT_EQ(r.chosen_longer, 2u);
  EXPECT_EQ(r.rejected_longer, 2u);
  EXPECT_EQ(r.contradictions, 2u) << "yes and no are both preferred to the other";
  EXPECT_EQ(r.desirable, 4u);
}

TEST(CheckData, LimitsCut) {
  DataCheckOptions o;
  o.max_length = 6;
  const DataCheckReport r = check(
      "{\"prompt\": \"123\", \"completion\": \"456\"}\n"
      "{\"prompt\": \"123\", \"completion\": \"4567\"}\n"
      "{\"prompt\": \"123456\", \"completion\": \"7\"}\n",
      o);
  EXPECT_EQ(r.cut, 2u);
  EXPECT_EQ(r.cut_whole, 1u);
  o.length = [](const CompletionRecord&) { return RecordLength{1, 7}; };
  EXPECT_EQ(check("{\"prompt\": \"a\", \"completion\": \"b\"}", o).cut, 1u);
}

TEST(CheckData, PromptsAloneAreLookedAtToo) {
  const DataCheckReport r = check("{\"prompt\": \"a\"}\n{\"prompt\": \"a\"}\n");
  EXPECT_EQ(r.form, "prompt");
  EXPECT_EQ(r.rows, 2u);
  EXPECT_EQ(r.same_rows, 1u);
}

TEST(CheckData, LeaksAreCountedByKind) {
  const std::string question = "how many towers of stone stand between the river and the old town";
  const ScratchFile other(
      "eval.jsonl", Json{{"prompt", question}}.dump() + "\n" + Json{{"prompt", "unseen"}}.dump());
  const ScratchFile file(
      "train.jsonl",
      Json{{"prompt", question}, {"completion", "four"}}.dump() + "\n" +
          Json{{"prompt", question + "?!"}, {"completion", "four"}}.dump() + "\n" +
          Json{{"prompt", "x"}, {"completion", "you ask " + question + " and I say four"}}.dump() +
          "\n" + Json{{"prompt", "y"}, {"completion", "five"}}.dump() + "\n");
  const DataCheckReport r = check_data(file.path(), {other.path()});
  ASSERT_EQ(r.leaks.size(), 1u);
  EXPECT_EQ(r.leaks[0].rows, 2u);
  EXPECT_EQ(r.leaks[0].same_prompts, 1u);
  EXPECT_EQ(r.leaks[0].near_prompts, 1u);
  EXPECT_EQ(r.leaks[0].overlaps, 3u);
  EXPECT_EQ(r.leaks[0].lines, (std::vector<uint64_t>{1, 2, 3}));
}

TEST(CheckReport, SaysTheSameToProgramsAndToPeople) {
  const DataCheckReport r = check("{\"text\": \"swordfish\"}\n{\"text\": \"swordfish\"}\n{}\n");
  const Json json = check_json(r);
  EXPECT_EQ(json["rows"], 2);
  EXPECT_EQ(json["bad_rows"], 1);
  EXPECT_EQ(json["same_rows"], 1);
  EXPECT_EQ(json["lengths"]["whole"]["most"], 9);
  const std::string table = check_table(r);
  EXPECT_NE(table.find("bad rows                                   1   33.3 %"), std::string::npos)
      << table;
  EXPECT_EQ((table + json.dump()).find("swordfish"), std::string::npos) << "contents are not shown";
}

TEST(CheckData, TheRealFileIsCounted) {
  const auto file = shared_data("hh_rlhf/harmless_test.jsonl.gz");
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "hh_rlhf is not here";
  const DataCheckReport r = check_data(file, {});
  EXPECT_EQ(r.rows, 2308u);
  EXPECT_EQ(r.empty, 4u);
  EXPECT_EQ(r.desirable, 2308u);
  EXPECT_EQ(part(r, "whole").count, 2u * 2308);
}

}  // namespace
}  // namespace temper
