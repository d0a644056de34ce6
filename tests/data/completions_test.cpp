#include "temper/data/completions.h"

#include <nlohmann/json.hpp>

#include "completion_case.h"

namespace temper {
namespace {

using Json = nlohmann::json;
using Turns = std::vector<ChatMessage>;

CompletionRecord only(const Json& row, const CompletionReadOptions& options = {}) {
  const CompletionData data = parse(row.dump(), options);
  EXPECT_EQ(data.records.size(), 1u);
  return data.records.at(0);
}

const Json kUser = message("user", "Sky?"), kBlue = message("assistant", "Blue.");
const Turns kUserTurns{{"user", "Sky?"}}, kBlueTurns{{"assistant", "Blue."}};

// --- Forms of a row
// ---------------------------------------------------------------------------------

TEST(ReadCompletions, TextIsAllCompletion) {
  const CompletionRecord r = only({{"text", "Once upon"}, {"weight", 0.5}, {"source", "x"}});
  EXPECT_FALSE(r.conversation);
  EXPECT_TRUE(r.prompt.empty());
  EXPECT_EQ(r.completion.text, "Once upon");
  EXPECT_EQ(r.weight, 0.5);
  EXPECT_FALSE(r.label.has_value());
  EXPECT_TRUE(r.assistant.empty());
  EXPECT_EQ(r.line, 1u);
  CompletionReadOptions o;
  o.text_key = "body";
  EXPECT_EQ(only({{"body", "a"}, {"text", "b"}}, o).completion.text, "a");
}

TEST(ReadCompletions, MessagesSayWhichTurnsAreTheAssistants) {
  Json off = message("assistant", "no");
  off["weight"] = 0;
  Json train = message("assistant", "neither");
  train["train"] = false;
  const CompletionRecord r =
      only({{"messages", {message("system", "Be brief."), kUser, kBlue, kUser, off, train}}});
  EXPECT_TRUE(r.conversation);
  EXPECT_TRUE(r.prompt.empty());
  EXPECT_EQ(r.completion.turns.size(), 6u);
  EXPECT_EQ(r.assistant, (std::vector<bool>{false, false, true, false, false, false}));
  EXPECT_EQ(Json::parse(r.turns_json).size(), 6u) << "keys beyond role and content are kept";
  const CompletionRecord plain = only({{"messages", {kUser, kBlue}}});
  EXPECT_EQ(plain.turns_json, "");
  // Conversations that begin alike stay together in a split, whatever the answers say.
  EXPECT_EQ(plain.id, only({{"messages", {kUser, message("assistant", "Grey.")}}}).id);
  EXPECT_EQ(plain.id, only({{"prompt", {kUser}}, {"completion", "Blue."}}).id);
}

TEST(ReadCompletions, PromptAndCompletionInEveryMixture) {
  const CompletionRecord text = only({{"prompt", "2+2="}, {"completion", "4"}});
  EXPECT_FALSE(text.conversation);
  EXPECT_EQ(text.prompt.text + "|" + text.completion.text, "2+2=|4");
  const auto expect = [&](const Json& row) {
    const CompletionRecord r = only(row);
    EXPECT_TRUE(r.conversation) << row;
    EXPECT_EQ(r.prompt.turns, kUserTurns) << row;
    EXPECT_EQ(r.completion.turns, kBlueTurns) << row;
    EXPECT_TRUE(r.prompt.text.empty() && r.completion.text.empty()) << row;
    EXPECT_EQ(r.assistant, std::vector<bool>{true}) << row;
  };
  expect({{"prompt", {kUser}}, {"completion", {kBlue}}});
  expect({{"prompt", {kUser}}, {"completion", "Blue."}});
  expect({{"prompt", "Sky?"}, {"completion", {kBlue}}});
  expect({{"prompt", {kUser}}, {"completion", {kUser, kBlue}}});
  expect({{"prompt", "sky"}, {"completion", {kUser, kBlue}}});
}

TEST(ReadCompletions, QuestionsAndAnswersAndNamedKeys) {
  const CompletionRecord r = only({{"question", "q"}, {"answer", "a"}});
  EXPECT_EQ(r.prompt.text + r.completion.text, "qa");
  CompletionReadOptions o;
  o.prompt_key = "in";
  o.completion_key = "out";
  o.label_key = "good";
  o.weight_key = "w";
  const CompletionRecord n = only({{"in", "q"}, {"out", "a"}, {"good", 1}, {"w", 3}}, o);
  EXPECT_EQ(n.prompt.text + n.completion.text, "qa");
  EXPECT_EQ(n.label, true);
  EXPECT_EQ(n.weight, 3);
}

TEST(ReadCompletions, LabelsAreTruthValues) {
  const CompletionData data = parse(
      "{\"prompt\": \"p\", \"completion\": \"a\", \"label\": true}\n"
      "{\"prompt\": \"p\", \"completion\": \"b\", \"label\": 0}\n");
  EXPECT_EQ(data.form, DataForm::kUnpaired);
  ASSERT_EQ(data.records.size(), 2u);
  EXPECT_EQ(data.records[0].label, true);
  EXPECT_EQ(data.records[1].label, false);
  EXPECT_EQ(data.records[0].id, data.records[1].id);
}

TEST(ReadCompletions, PairsGiveTwoLabelledRecords) {
  const Json row = {{"prompt", {kUser}}, {"chosen", {kBlue}}, {"rejected", "Green."}};
  const CompletionData data = parse(row.dump());
  EXPECT_EQ(data.form, DataForm::kPreference);
  ASSERT_EQ(data.records.size(), 2u);
  EXPECT_EQ(data.records[0].label, true);
  EXPECT_EQ(data.records[0].completion.turns, kBlueTurns);
  EXPECT_EQ(data.records[1].label, false);
  EXPECT_EQ(data.records[1].completion.turns, (Turns{{"assistant", "Green."}}));
  for (const auto& r : data.records) {
    EXPECT_EQ(r.prompt.turns, kUserTurns);
    EXPECT_EQ(r.assistant, std::vector<bool>{true});
    EXPECT_EQ(r.id, data.records[0].id);
    EXPECT_EQ(r.line, 1u);
  }
  CompletionReadOptions o;
  o.pairs = "chosen";
  const CompletionRecord one = only(row, o);
  EXPECT_EQ(one.completion.turns, kBlueTurns);
  EXPECT_FALSE(one.label.has_value());
}

TEST(ReadCompletions, PromptsAloneOnlyByName) {
  const Json row = {{"prompt", "p"}, {"level", 3}};
  expect_words(refusal(row.dump()), {"f.jsonl:1:1", "no answer", "\"level\", \"prompt\""});
  CompletionReadOptions o;
  o.form = "prompt";
  const CompletionRecord r = only(row, o);
  EXPECT_EQ(r.prompt.text, "p");
  EXPECT_TRUE(r.completion.empty());
}

TEST(ReadCompletions, StepsAreJoinedAndKept) {
  const CompletionRecord r =
      only({{"prompt", "p"}, {"completions", {"one", "two"}}, {"labels", {true, false}}});
  EXPECT_EQ(r.completion.text, "one\ntwo");
  EXPECT_EQ(r.steps, (std::vector<LabelledStep>{{"one", true}, {"two", false}}));
  EXPECT_FALSE(r.label.has_value());
}

TEST(ReadCompletions, StepsAsAnswersOfTheirOwn) {
  CompletionReadOptions o;
  o.form = "steps";
  o.skip_bad = true;
  const Json row = {{"prompt", "p: "},
                    {"completions", {"one", " ", "two"}},
                    {"labels", {true, true, false}},
                    {"weight", 0.5}};
  const CompletionData data = parse(row.dump() + "\n" + row.dump(), o);
  ASSERT_EQ(data.records.size(), 4u);
  EXPECT_EQ(data.empty, 2u);  // The blank steps.
  EXPECT_EQ(data.records[0].prompt.text, "p: ");
  EXPECT_EQ(data.records[0].completion.text, "one");
  EXPECT_EQ(data.records[0].label, true);
  EXPECT_EQ(data.records[1].prompt.text, "p: one\n \n");
  EXPECT_EQ(data.records[1].completion.text, "two");
  EXPECT_EQ(data.records[1].label, false);
  EXPECT_EQ(data.records[1].weight, 0.5);
  EXPECT_EQ(data.records[3].line, 2u);
  for (const auto& r : data.records) EXPECT_EQ(r.id, data.records[0].id);  // One side of a split.
  expect_words(refusal(Json{{"prompt", {kUser}}, {"completions", {"a"}}, {"labels", {true}}}.dump(), o),
               {"f.jsonl:1:1", "conversation"});
  o.skip_bad = false;
  expect_words(refusal(row.dump(), o), {"f.jsonl:1:1", "a step has no words"});
}

TEST(ReadCompletions, PairsKeepToolsAndTheirCalls) {
  const Json call = {{"role", "assistant"}, {"content", ""}, {"tool_calls", {{{"id", "1"}}}}};
  const Json row = {{"prompt", {kUser}}, {"chosen", {call}}, {"rejected", {kBlue}}, {"tools", {1}}};
  const CompletionData data = parse(row.dump());
  ASSERT_EQ(data.records.size(), 2u);
  EXPECT_EQ(Json::parse(data.records[0].turns_json), Json::array({kUser, call}));
  EXPECT_EQ(Json::parse(data.records[1].turns_json), Json::array({kUser, kBlue}));
  EXPECT_EQ(data.records[0].tools_json, "[1]");
  EXPECT_EQ(data.records[1].tools_json, "[1]");
}

TEST(ReadCompletions, AnAnswerThatOnlyNamesSomebodySaysNothing) {
  const Json mute = {{"role", "assistant"}, {"content", " "}, {"name", "x"}};
  const std::string good = Json{{"prompt", "p"}, {"completion", "c"}}.dump();
  expect_words(refusal(good + "\n" + Json{{"prompt", {kUser}}, {"completion", {mute}}}.dump()),
               {"f.jsonl:2:1", "no words"});
}

TEST(ReadCompletions, ToolsAreKeptAsJson) {
  const Json tool = {{"type", "function"}, {"function", {{"name", "add"}}}};
  const Json call = {{"role", "assistant"},
                     {"content", nullptr},
                     {"tool_calls", {{{"function", {{"name", "add"}}}}}}};
  const Json answer = {{"role", "tool"}, {"name", "add"}, {"content", "4"}};
  Json row = {{"messages", {kUser, call, answer, kBlue}}, {"tools", {tool}}};
  const CompletionRecord r = only(row);
  EXPECT_EQ(Json::parse(r.tools_json), Json::array({tool}));
  EXPECT_EQ(Json::parse(r.turns_json), row["messages"]);
  EXPECT_EQ(r.completion.turns[1], (ChatMessage{"assistant", ""}));
  EXPECT_EQ(r.assistant, (std::vector<bool>{false, true, false, true}));
  row["tools"] = Json::array({tool}).dump();  // As text, which some files have.
  EXPECT_EQ(Json::parse(only(row).tools_json), Json::array({tool}));
  row["tools"] = Json::array();
  EXPECT_EQ(only(row).tools_json, "");
  row["tools"] = 3;
  expect_words(refusal(row.dump()), {"\"tools\"", "an array, got a number"});
  row["tools"] = std::string(100, '[') + std::string(100, ']');
  expect_words(refusal(row.dump()), {"\"tools\"", "nested no deeper than 64"});
}

// --- Marks of raters
// --------------------------------------------------------------------------------

Json rated(const std::string& response, const std::vector<std::string>& ratings, double whole) {
  Json marks = Json::object();
  for (const auto& r : ratings) marks[concat("aspect", marks.size())] = {{"Rating", r}};
  return {{"response", response}, {"annotations", marks}, {"overall_score", whole}};
}

TEST(Marks, UltraFeedbackGivesBestAgainstWorst) {
  // Means 3.5, 4 (of what is rated) and 2; the whole marks would say otherwise.
  const Json row = {
      {"instruction", "q"},
      {"completions",
       {rated("b", {"3", "4"}, 9), rated("a", {"4", "N/A"}, 1), rated("c", {"2", "2"}, 10)}}};
  const PreferenceData pairs = parse_preferences(row.dump(), "f.jsonl");
  ASSERT_EQ(pairs.pairs.size(), 1u);
  EXPECT_EQ(pairs.pairs[0].prompt.turns, (Turns{{"user", "q"}}));
  EXPECT_EQ(pairs.pairs[0].chosen.turns, (Turns{{"assistant", "a"}}));
  EXPECT_EQ(pairs.pairs[0].rejected.turns, (Turns{{"assistant", "c"}}));
  EXPECT_EQ(parse(row.dump()).form, DataForm::kUltraFeedback);
  EXPECT_EQ(parse(row.dump()).records.size(), 2u);
}

TEST(Marks, UltraFeedbackFallsBackToTheWholeMark) {
  const Json row = {{"instruction", "q"},
                    {"completions", {rated("a", {}, 3), rated("b", {"N/A"}, 7)}}};
  EXPECT_EQ(parse_preferences(row.dump(), "f").pairs.at(0).chosen.turns[0].content, "b");
}

TEST(Marks, AlpacaEvalPrefersOneOutput) {
  const auto row = [](const Json& preference) {
    return Json{{"instruction", "q"},
                {"output_1", "a"},
                {"output_2", "b"},
                {"preference", preference}}
               .dump() +
           "\n";
  };
  const PreferenceData data =
      parse_preferences(row(1) + row(2) + row(1.25) + row(1.5) + row(0) + row(nullptr), "f.jsonl");
  ASSERT_EQ(data.pairs.size(), 3u);
  EXPECT_EQ(data.ties, 3u);
  EXPECT_EQ(data.pairs[0].chosen.turns[0].content, "a");
  EXPECT_EQ(data.pairs[1].chosen.turns[0].content, "b");
  EXPECT_EQ(data.pairs[1].rejected.turns[0].content, "a");
  EXPECT_EQ(data.pairs[2].chosen.turns[0].content, "a");
  expect_words(error_of([&] { (void)parse_preferences(row(3), "f.jsonl"); }),
               {"f.jsonl:1:1", "\"preference\"", "got 3"});
}

TEST(Marks, ThatPreferNothingAreNoPairs) {
  const Json row = {{"instruction", "q"}, {"completions", {rated("a", {"3"}, 1)}}};
  expect_words(error_of([&] { (void)parse_preferences(row.dump(), "f.jsonl"); }),
               {"no pairs", "1 prefer neither"});
  expect_words(refusal(row.dump()), {"nothing to learn from", "1 prefer neither"});
}

}  // namespace
}  // namespace temper
