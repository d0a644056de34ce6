#include "temper/data/preference.h"

#include <nlohmann/json.hpp>

#include "data_test_util.h"

namespace temper {
namespace {

using Json = nlohmann::json;
using Turns = std::vector<ChatMessage>;

PreferenceData parse(const std::string& text, PreferenceReadOptions options = {}) {
  return parse_preferences(text, "f.jsonl", options);
}

PreferencePair only(const Json& row, PreferenceReadOptions options = {}) {
  const PreferenceData data = parse(row.dump(), options);
  EXPECT_EQ(data.pairs.size(), 1u);
  return data.pairs.at(0);
}

std::string refusal(const std::string& text, PreferenceReadOptions options = {}) {
  return error_of([&] { (void)parse(text, options); });
}

void expect_words(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& w : words) EXPECT_NE(text.find(w), std::string::npos) << w << " in: " << text;
}

Json message(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

// --- Forms of a row
// ---------------------------------------------------------------------------------

TEST(ReadPreferences, TextsAfterAPrompt) {
  const PreferencePair p =
      only({{"prompt", "2+2="}, {"chosen", "4"}, {"rejected", "5"}, {"margin", 0.25}, {"x", 1}});
  EXPECT_FALSE(p.conversation);
  EXPECT_EQ(p.prompt.text, "2+2=");
  EXPECT_EQ(p.chosen.text, "4");
  EXPECT_EQ(p.rejected.text, "5");
  EXPECT_EQ(p.margin, 0.25);
  EXPECT_EQ(p.line, 1u);
}

TEST(ReadPreferences, TextsAloneShareTheirBeginning) {
  const PreferencePair p =
      only({{"chosen", "The sky is blue."}, {"rejected", "The sky is green."}});
  EXPECT_EQ(p.prompt.text, "The sky is");  // Without the space, which the answers begin with.
  EXPECT_EQ(p.chosen.text, " blue.");
  EXPECT_EQ(p.rejected.text, " green.");
  EXPECT_EQ(p.margin, 0);
}

TEST(SharedBeginning, IsTheRuleOfThePage) {
  EXPECT_EQ(shared_beginning("abc", "abd"), 2u);
  EXPECT_EQ(shared_beginning("ab c", "ab d"), 2u);
  EXPECT_EQ(shared_beginning("x", "y"), 0u);
  EXPECT_EQ(shared_beginning("", "y"), 0u);
  EXPECT_EQ(shared_beginning("abc", "abcde"), 2u) << "each side keeps a character";
  EXPECT_EQ(shared_beginning("a\u00e9", "a\u00e9x"), 1u) << "a whole one";
  // e9 and e8 end in other bytes: the first byte, which they share, is no character.
  EXPECT_EQ(shared_beginning("a\u00e9", "a\u00e8"), 1u);
  EXPECT_EQ(shared_beginning("\u00e9", "\u00e8"), 0u);
}

TEST(ReadPreferences, MessagesAloneShareTheirFirstTurns) {
  const Json head = {message("system", "Be brief."), message("user", "Sky?")};
  Json a = head, b = head;
  a.push_back(message("assistant", "Blue."));
  b.push_back(message("assistant", "Green."));
  const PreferencePair p = only({{"chosen", a}, {"rejected", b}});
  EXPECT_TRUE(p.conversation);
  EXPECT_EQ(p.prompt.turns, (Turns{{"system", "Be brief."}, {"user", "Sky?"}}));
  EXPECT_EQ(p.chosen.turns, (Turns{{"assistant", "Blue."}}));
  EXPECT_EQ(p.rejected.turns, (Turns{{"assistant", "Green."}}));
}

TEST(ReadPreferences, PromptsInMessages) {
  const Json prompt = Json::array({message("user", "Sky?")});  // Braces alone mean two things.
  const Json blue = message("assistant", "Blue."), green = message("assistant", "Green.");
  const Turns user{{"user", "Sky?"}}, chosen{{"assistant", "Blue."}};
  const auto expect = [&](const Json& row) {
    const PreferencePair p = only(row);
    EXPECT_EQ(p.prompt.turns, user) << row;
    EXPECT_EQ(p.prompt.text, "") << row;
    EXPECT_EQ(p.chosen.turns, chosen) << row;
    EXPECT_EQ(p.rejected.turns, (Turns{{"assistant", "Green."}})) << row;
  };
  expect({{"prompt", prompt}, {"chosen", {blue}}, {"rejected", {green}}});
  expect({{"prompt", prompt}, {"chosen", "Blue."}, {"rejected", "Green."}});
  expect({{"prompt", prompt}, {"chosen", {prompt[0], blue}}, {"rejected", {prompt[0], green}}});
  expect({{"prompt", "Sky?"}, {"chosen", {blue}}, {"rejected", {green}}});
  // As UltraFeedback has it: the text of the prompt beside sides that hold it.
  expect({{"prompt", "sky"}, {"chosen", {prompt[0], blue}}, {"rejected", {prompt[0], green}}});
}

TEST(ReadPreferences, NamedKeys) {
  PreferenceReadOptions o;
  o.prompt_key = "q";
  o.chosen_key = "good";
  o.rejected_key = "bad";
  o.margin_key = "gap";
  const PreferencePair p = only({{"q", "a"}, {"good", "b"}, {"bad", "c"}, {"gap", 2}}, o);
  EXPECT_EQ(p.prompt.text + p.chosen.text + p.rejected.text, "abc");
  EXPECT_EQ(p.margin, 2);
}

// --- Transcripts
// ------------------------------------------------------------------------------------

const std::string kStart = "\n\nHuman: Hi there \n\nAssistant: Hello. \n\nHuman: Sky?";

Json transcript_row() {
  return {{"chosen", kStart + "\n\nAssistant: It is blue."},
          {"rejected", kStart + "\n\nAssistant: It is green.\n"}};
}

TEST(Transcripts, BecomeMessages) {
  const PreferencePair p = only(transcript_row());
  EXPECT_TRUE(p.conversation);
  EXPECT_EQ(p.prompt.turns,
            (Turns{{"user", "Hi there"}, {"assistant", "Hello."}, {"user", "Sky?"}}));
  EXPECT_EQ(p.chosen.turns, (Turns{{"assistant", "It is blue."}}));
  EXPECT_EQ(p.rejected.turns, (Turns{{"assistant", "It is green."}}));
}

TEST(Transcripts, StayTextCutAtATurn) {
  PreferenceReadOptions o;
  o.transcripts = "text";
  const PreferencePair p = only(transcript_row(), o);
  EXPECT_FALSE(p.conversation);
  EXPECT_EQ(p.prompt.text, kStart + "\n\nAssistant:");
  EXPECT_EQ(p.chosen.text, " It is blue.");
  o.transcripts = "off";
  EXPECT_EQ(only(transcript_row(), o).prompt.text, kStart + "\n\nAssistant: It is");
}

TEST(Transcripts, MayPartEarlier) {
  const Json row = {{"chosen", "\n\nHuman: A\n\nAssistant: one\n\nHuman: B\n\nAssistant: two"},
                    {"rejected", "\n\nHuman: A\n\nAssistant: one\n\nHuman: C\n\nAssistant: two"}};
  const PreferencePair p = only(row);
  EXPECT_EQ(p.prompt.turns, (Turns{{"user", "A"}, {"assistant", "one"}}));
  EXPECT_EQ(p.chosen.turns, (Turns{{"user", "B"}, {"assistant", "two"}}));
  PreferenceReadOptions o;
  o.transcripts = "text";
  EXPECT_EQ(only(row, o).prompt.text, "\n\nHuman: A\n\nAssistant: one\n\nHuman:");
}

TEST(Transcripts, AreKnownByTheirFirstWords) {
  EXPECT_TRUE(transcript_turns("Human: A\n\nAssistant: B").empty());
  EXPECT_TRUE(transcript_turns("").empty());
  EXPECT_EQ(transcript_turns("\n\nHuman:"), (Turns{{"user", ""}}));
}

TEST(Transcripts, TheRealFileIsReadWhole) {
  const auto file = shared_data("hh_rlhf/harmless_test.jsonl.gz");
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "hh_rlhf is not here";
  PreferenceReadOptions o;
  o.skip_bad = true;
  const PreferenceData data = read_preferences(file, o);
  // Counted apart from this reader: 2312 rows, 4 with an empty answer, none with equal answers.
  EXPECT_EQ(data.pairs.size() + data.empty + data.equal, 2312u);
  EXPECT_EQ(data.empty, 4u);
  EXPECT_EQ(data.equal, 0u);
  size_t one_turn = 0;
  for (const PreferencePair& p : data.pairs) {
    ASSERT_TRUE(p.conversation) << p.line;
    ASSERT_FALSE(p.prompt.turns.empty()) << p.line;
    EXPECT_EQ(p.chosen.turns.back().role, "assistant") << p.line;
    one_turn += p.chosen.turns.size() == 1 && p.rejected.turns.size() == 1 ? 1 : 0;
  }
  EXPECT_GE(one_turn, data.pairs.size() - 10);
}

// --- Bad data
// ---------------------------------------------------------------------------------------

const std::string kGood = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";

TEST(BadPairs, EmptyAndEqualAnswersAreErrorsOrCounted) {
  PreferenceReadOptions o;
  o.skip_bad = true;
  const PreferenceData data =
      parse(kGood +
            "{\"prompt\": \"p\", \"chosen\": \"\", \"rejected\": \"b\"}\n"
            "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \" \\n\"}\n"
            "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}\n"
            "{\"chosen\": \"same\", \"rejected\": \"same\"}\n"
            "{\"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: x\","
            " \"rejected\": \"\\n\\nHuman: q\\n\\nAssistant:\"}\n" +
                kGood,
            o);
  EXPECT_EQ(data.pairs.size(), 2u);
  EXPECT_EQ(data.empty, 3u);
  EXPECT_EQ(data.equal, 2u);
  EXPECT_EQ(data.pairs[1].line, 7u);
  const std::string empty = "{\"prompt\": \"p\", \"chosen\": \"\", \"rejected\": \"b\"}";
  expect_words(refusal(empty, o), {"f.jsonl", "no pairs", "1 rows have an empty answer"});
  expect_words(refusal(kGood + empty), {"f.jsonl:2:1", "no words", "skip_bad"});
  expect_words(refusal(kGood + "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}"),
               {"f.jsonl:2:1", "the same", "skip_bad"});
}

// --- Tools
// ----------------------------------------------------------------------------------------------

Json call_of(const std::string& name) {
  return {{"role", "assistant"},
          {"content", nullptr},
          {"tool_calls", {{{"type", "function"}, {"function", {{"name", name}}}}}}};
}

TEST(ReadPreferences, ToolsAndTheirCallsAreKeptAsJson) {
  const Json user = message("user", "2 + 2?");
  const Json tool = {{"type", "function"}, {"function", {{"name", "add"}}}};
  const Json row = {{"prompt", {user}},
                    {"chosen", {call_of("add")}},
                    {"rejected", {call_of("subtract")}},
                    {"tools", {tool}}};
  const PreferencePair p = only(row);  // The sides differ in the tool that they call alone.
  EXPECT_EQ(Json::parse(p.tools_json), Json::array({tool}));
  EXPECT_EQ(Json::parse(p.chosen_json), Json::array({user, call_of("add")}));
  EXPECT_EQ(Json::parse(p.rejected_json), Json::array({user, call_of("subtract")}));
  EXPECT_EQ(p.prompt.turns, (Turns{{"user", "2 + 2?"}}));
  EXPECT_EQ(p.chosen.turns, (Turns{{"assistant", ""}}));

  // The prompt is what both begin with, calls included.
  const Json result = {{"role", "tool"}, {"name", "add"}, {"content", "4"}};
  const Json right = message("assistant", "4."), wrong = message("assistant", "5.");
  const PreferencePair whole = only({{"chosen", {user, call_of("add"), result, right}},
                                     {"rejected", {user, call_of("add"), result, wrong}}});
  EXPECT_EQ(whole.prompt.turns.size(), 3u);
  EXPECT_EQ(Json::parse(whole.rejected_json), Json::array({user, call_of("add"), result, wrong}));
  const PreferencePair other = only({{"chosen", {user, call_of("add"), result, right}},
                                     {"rejected", {user, call_of("subtract"), result, wrong}}});
  EXPECT_EQ(other.prompt.turns.size(), 1u);
  EXPECT_EQ(other.chosen.turns.size(), 3u);

  const PreferencePair plain = only({{"prompt", {user}}, {"chosen", {right}}, {"rejected", {wrong}}});
  EXPECT_TRUE(plain.tools_json.empty() && plain.chosen_json.empty() && plain.rejected_json.empty());
}

TEST(ReadPreferences, SidesThatCallTheSameToolAreEqual) {
  const Json user = message("user", "2 + 2?");
  const std::string same = Json{{"prompt", {user}},
                                {"chosen", {call_of("add")}},
                                {"rejected", {call_of("add")}}}
                               .dump();
  const Json empty = {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array()}};
  const std::string mute =
      Json{{"prompt", {user}}, {"chosen", {call_of("add")}}, {"rejected", {empty}}}.dump();
  PreferenceReadOptions o;
  o.skip_bad = true;
  const PreferenceData data = parse(kGood + same + "\n" + mute + "\n{}\n", o);
  EXPECT_EQ(data.pairs.size(), 1u);
  EXPECT_EQ(data.equal, 1u);
  EXPECT_EQ(data.empty, 1u);
  EXPECT_EQ(data.skipped, 1u);
  ASSERT_EQ(data.problems.size(), 3u);
  expect_words(data.problems[0], {"f.jsonl:4:1", "\"chosen\""});
  expect_words(data.problems[1], {"f.jsonl:2:1", "both answers are the same"});
  expect_words(data.problems[2], {"f.jsonl:3:1", "no words"});
}

TEST(BadPairs, AreNamedByLineAndKey) {
  expect_words(refusal(kGood + "{\"prompt\": \"p\", \"chosen\": \"a\", \"lost\": 1}"),
               {"f.jsonl:2:1", "\"rejected\"", "\"chosen\", \"lost\", \"prompt\""});
  expect_words(refusal("{\"chosen\": 3, \"rejected\": \"b\"}"),
               {"f.jsonl:1:1", "\"chosen\"", "a string or an array of messages, got a number"});
  expect_words(refusal("{\"chosen\": [], \"rejected\": \"b\"}"), {"\"chosen\"", "no messages"});
  expect_words(refusal("{\"chosen\": [{\"role\": \"user\"}], \"rejected\": \"b\"}"),
               {"\"chosen[0]\"", "\"content\""});
  expect_words(
      refusal("{\"chosen\": [{\"role\": \"user\", \"content\": \"x\"}], \"rejected\": \"b\"}"),
      {"\"rejected\"", "expected messages"});
  expect_words(refusal("{\"chosen\": \"a\", \"rejected\": \"b\", \"margin\": \"1\"}"),
               {"\"margin\"", "a number, got a string"});
  expect_words(refusal("{\"chosen\": \"a\", \"rejected\": \"b\", \"margin\": 1e999}"),
               {"f.jsonl:1:1", "number out of range"});
  expect_words(refusal("{\"chosen\": \"a\", \"rejected\": \"b\", \"tools\": 1}"),
               {"f.jsonl:1:1", "\"tools\"", "an array, got a number"});
  expect_words(refusal("[1]"), {"expected a JSON object, got a number"});
  expect_words(refusal("{\"chosen\": \"a\", "), {"f.jsonl:1:", "ends inside its JSON"});
  expect_words(refusal(""), {"no rows"});
}

TEST(BadPairs, BrokenUtf8IsPlacedOrMended) {
  const std::string broken = "{\"chosen\": \"a\xff\", \"rejected\": \"b\"}";
  expect_words(refusal(broken), {"f.jsonl:1:14", "not valid UTF-8"});
  PreferenceReadOptions o;
  o.lossy_utf8 = true;
  EXPECT_EQ(parse(broken, o).pairs.at(0).chosen.text, "a\ufffd");
}

TEST(BadPairs, SkippedOnesAreCounted) {
  PreferenceReadOptions o;
  o.skip_bad = true;
  const PreferenceData data = parse("{\"chosen\": 1}\n" + kGood + "nonsense\n", o);
  EXPECT_EQ(data.pairs.size(), 1u);
  EXPECT_EQ(data.skipped, 2u);
  ASSERT_EQ(data.problems.size(), 2u);
  expect_words(data.problems[1], {"f.jsonl:3"});
}

// --- Splitting
// --------------------------------------------------------------------------------------

TEST(SplitPreferences, KeepsAPromptsPairsTogether) {
  std::string text;
  for (int i = 0; i < 200; ++i) {
    const Json row = {{"prompt", "p" + std::to_string(i / 2)},
                      {"chosen", "a" + std::to_string(i)},
                      {"rejected", "b"}};
    text += row.dump() + "\n";
  }
  const PreferenceData data = parse(text);
  const auto [train, held_out] = split_by_hash(data, 0.3, 7);
  EXPECT_EQ(train.pairs.size() + held_out.pairs.size(), 200u);
  // 100 prompts at 0.3: five standard deviations are 23.
  EXPECT_NEAR(static_cast<double>(held_out.pairs.size()) / 2, 30, 23);
  for (const auto& h : held_out.pairs) {
    for (const auto& t : train.pairs) ASSERT_NE(h.prompt.text, t.prompt.text);
  }
  EXPECT_EQ(train.content_hash, data.content_hash);
}

}  // namespace
}  // namespace temper
