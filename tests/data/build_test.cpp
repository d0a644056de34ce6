#include "temper/data/build.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data_test_util.h"
#include "temper/core/config.h"
#include "temper/data/near_duplicates.h"
#include "temper/data/scored.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

void expect_words(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& w : words) EXPECT_NE(text.find(w), std::string::npos) << w << " in: " << text;
}

/// A prompt whose words no other number shares.
std::string prompt_of(int i) {
  return concat("Tell me of thing ", i * 7919, " and of ", i * i + 31337, " at once");
}

Json row_of(const std::string& prompt, const std::vector<std::pair<std::string, double>>& answers) {
  Json row = {{"prompt", prompt}, {"completions", Json::array()}, {"scores", Json::array()}};
  for (const auto& [text, score] : answers) {
    row["completions"].push_back(text);
    row["scores"].push_back(score);
  }
  return row;
}

BuildResult build(const std::string& text, const BuildConfig& config = {}) {
  const ScratchFile file("scored.jsonl", text);
  return build_pairs({file.path()}, {}, config);
}

/// Rows with answers of many lengths and scores; the better answer is mostly the longer one.
std::string many_rows(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const int long_size = 20 + i * 37 % 90, short_size = 5 + i * 53 % 40;
    std::string a = concat("answer ", i, " "), b = concat("reply ", i * 3, " ");
    for (int k = 0; k < long_size; ++k) a += static_cast<char>('a' + (i * 7 + k * k) % 26);
    for (int k = 0; k < short_size; ++k) b += static_cast<char>('a' + (i * 11 + k * 5) % 26);
    text +=
        row_of(prompt_of(i / 2), {{a, i % 4 == 0 ? 0.1 : 0.9}, {b, 0.5 + 0.001 * i}}).dump() + "\n";
  }
  return text;
}

// --- Reading
// ----------------------------------------------------------------------------------------

TEST(ReadScored, AllFormsGiveTheSameAnswers) {
  const std::string forms[] = {
      R"({"prompt": "q", "completions": ["a", "b"], "scores": [1, 0.5]})",
      R"({"prompt": "q", "completions": [{"text": "a", "score": 1}, {"response": "b", "score": 0.5}]})",
      "{\"prompt\": \"q\", \"completion\": \"a\", \"score\": 1}\n"
      "{\"prompt\": \"q\", \"completion\": \"b\", \"score\": 0.5}"};
  for (const std::string& text : forms) {
    const ScoredData data = parse_scored(text, "f.jsonl");
    ASSERT_EQ(data.prompts.size(), 1u) << text;
    const ScoredPrompt& p = data.prompts[0];
    EXPECT_EQ(p.prompt.text, "q");
    ASSERT_EQ(p.answers.size(), 2u) << text;
    EXPECT_EQ(p.answers[0].answer.text, "a");
    EXPECT_EQ(p.answers[1].score, 0.5);
  }
  const ScoredData table = parse_scored("prompt,completion,score\nq,a,1\nq,,2\n", "f.csv");
  EXPECT_EQ(table.prompts.at(0).answers.size(), 1u);
  EXPECT_EQ(table.empty, 1u);
  EXPECT_EQ(table.rows, 2u);
  const ScoredPrompt chat =
      parse_scored(R"({"prompt": [{"role": "user", "content": "q"}], "completions": ["a"],)"
                   R"( "scores": [1]})",
                   "f")
          .prompts.at(0);
  EXPECT_TRUE(chat.conversation);
  EXPECT_EQ(chat.answers[0].answer.turns, (std::vector<ChatMessage>{{"assistant", "a"}}));
}

TEST(ReadScored, FaultsAreNamed) {
  const auto refusal = [](const std::string& text) {
    return error_of([&] { (void)parse_scored(text, "f.jsonl"); });
  };
  expect_words(refusal(R"({"prompt": "q", "completions": ["a"], "scores": []})"),
               {"f.jsonl:1:1", "\"scores\"", "one number a completion"});
  expect_words(refusal(R"({"prompt": "q", "completions": ["a"]})"),
               {"\"completions[0]\"", "an object"});
  expect_words(refusal(R"({"prompt": "q", "completions": ["a"], "scores": ["1"]})"),
               {"\"score\"", "a number, got a string"});
  expect_words(refusal(R"({"prompt": "q", "completion": "a"})"), {"f.jsonl:1:1", "\"score\""});
  expect_words(refusal(R"({"prompt": "", "completion": "a", "score": 1})"), {"a prompt under"});
}

// --- Pairs
// ------------------------------------------------------------------------------------------

std::vector<std::string> picked(const std::string& pick, int64_t most) {
  BuildConfig c;
  c.pick = pick;
  c.pairs_per_prompt = most;
  c.near_similarity = 0;
  const Json row = row_of("q", {{"b", 3}, {"d", 1}, {"a", 4}, {"c", 2.5}});
  std::vector<std::string> out;
  for (const BuiltPair& p : build(row.dump(), c).train) {
    EXPECT_GT(p.chosen_score, p.rejected_score);
    EXPECT_EQ(p.pair.margin, p.chosen_score - p.rejected_score);
    out.push_back(p.pair.chosen.text + p.pair.rejected.text);
  }
  return out;
}

TEST(BuildPairs, PicksByRank) {
  using Pairs = std::vector<std::string>;
  EXPECT_EQ(picked("best_worst", 1), Pairs{"ad"});
  EXPECT_EQ(picked("best_worst", 0), (Pairs{"ad", "bc"}));
  EXPECT_EQ(picked("adjacent", 0), (Pairs{"ab", "bc", "cd"}));
  EXPECT_EQ(picked("all", 4), (Pairs{"ad", "bd", "ac", "cd"}));  // Margins 3, 2, 1.5, 1.5.
  const Pairs random = picked("best_random", 1);
  ASSERT_EQ(random.size(), 1u);
  EXPECT_EQ(random[0][0], 'a');
}

TEST(BuildPairs, MarginsStayWithinTheirBounds) {
  BuildConfig c;
  c.near_similarity = 0;
  const std::string text = row_of("p", {{"a", 1}, {"b", 1}}).dump() + "\n" +
                           row_of("q", {{"a", 1}, {"b", 0.75}}).dump() + "\n" +
                           row_of("r", {{"a", 1}, {"b", 0.5}}).dump() + "\n" +
                           row_of("s", {{"a", 9}, {"b", 0}}).dump() + "\n";
  EXPECT_EQ(build(text, c).train.size(), 3u) << "equal scores are no pair";
  c.min_margin = 0.5;
  c.max_margin = 2;
  const BuildResult r = build(text, c);
  ASSERT_EQ(r.train.size(), 1u);
  EXPECT_EQ(r.train[0].pair.prompt.text, "r");
  EXPECT_EQ(Json::parse(r.files.at("card.json"))["counts"]["prompts_without_pair"], 3);
  c.min_margin = 3;
  c.max_margin = 4;
  expect_words(error_of([&] { (void)build(text, c); }), {"no pair is left", "of 4 prompts"});
}

TEST(BuildPairs, BandsAreCappedAndCounted) {
  BuildConfig c;
  c.bands = {0.2, 0.4};
  c.pairs_per_band = 10;
  const BuildResult r = build(many_rows(200), c);
  const Json bands = Json::parse(r.files.at("card.json"))["margin_bands"];
  ASSERT_EQ(bands.size(), 3u);
  std::vector<uint64_t> counts(3);
  for (const BuiltPair& p : r.train)
    ++counts[p.pair.margin < 0.2 ? 0 : p.pair.margin < 0.4 ? 1 : 2];
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_LE(counts[i], 10u);
    EXPECT_EQ(bands[i]["pairs"], counts[i]);
  }
  EXPECT_EQ(counts[1], 10u);
}

TEST(BuildPairs, BalancedLengthsAreEvenAtEveryRatio) {
  BuildConfig c;
  const Json before =
      Json::parse(build(many_rows(300), c).files.at("card.json"))["lengths"]["after"];
  EXPECT_GT(before["chosen_longer"], before["rejected_longer"]) << "the case is no case";
  c.balance_lengths = true;
  const BuildResult r = build(many_rows(300), c);
  const Json after = Json::parse(r.files.at("card.json"))["lengths"]["after"];
  EXPECT_EQ(after["chosen_longer"], after["rejected_longer"]);
  std::map<int, int> sides;
  for (const BuiltPair& p : r.train) {
    const double ratio = std::log2(static_cast<double>(p.pair.chosen.text.size()) /
                                   static_cast<double>(p.pair.rejected.text.size()));
    if (ratio != 0) sides[static_cast<int>(std::abs(ratio) * 2)] += ratio > 0 ? 1 : -1;
  }
  EXPECT_GE(sides.size(), 2u);
  for (const auto& [bin, difference] : sides) EXPECT_EQ(difference, 0) << bin;
}

TEST(BuildPairs, NearAnswersOfNearPromptsAreOnePair) {
  const std::string a = "the tower stands in the middle of the old town and can be seen from afar";
  const std::string b = "nobody knows anything about any tower so there is nothing to be said";
  const std::string text = row_of(prompt_of(1), {{a, 1}, {b, 0}}).dump() + "\n" +
                           row_of(prompt_of(1) + "!", {{a + ".", 1}, {b + "?", 0}}).dump() + "\n" +
                           row_of(prompt_of(2), {{a, 1}, {b, 0}}).dump() + "\n";
  const BuildResult r = build(text);
  EXPECT_EQ(r.train.size(), 2u);
  EXPECT_EQ(Json::parse(r.files.at("card.json"))["counts"]["near_duplicate_pairs"], 1);
  BuildConfig c;
  c.near_similarity = 0;
  EXPECT_EQ(build(text, c).train.size(), 3u);
}

/// Every prompt comes in three wordings that differ in signs and one letter.
TEST(BuildPairs, NoClusterIsOnBothSidesOfASplit) {
  std::string text;
  for (int i = 0; i < 120; ++i) {
    const std::string p = prompt_of(i / 3) + (i % 3 == 0 ? "" : i % 3 == 1 ? "?" : "s");
    text += row_of(p, {{concat("yes ", i), 1}, {concat("no ", i * 17), 0}}).dump() + "\n";
  }
  BuildConfig c;
  c.held_out_fraction = 0.3;
  const BuildResult r = build(text, c);
  EXPECT_EQ(r.train.size() + r.held_out.size(), 120u);
  EXPECT_EQ(r.held_out.size() % 3, 0u);
  EXPECT_GE(r.held_out.size(), 12u);
  std::set<uint64_t> clusters;
  for (const BuiltPair& p : r.train) clusters.insert(p.cluster);
  for (const BuiltPair& h : r.held_out) EXPECT_FALSE(clusters.contains(h.cluster));
  for (const BuiltPair& h : r.held_out) {
    for (const BuiltPair& t : r.train) {
      ASSERT_LT(jaccard(shingles(h.pair.prompt.text, 5), shingles(t.pair.prompt.text, 5)), 0.8);
    }
  }
}

TEST(BuildPairs, ContaminatedPromptsAreLeftOut) {
  const std::string eval = "{\"question\": \"" + prompt_of(3) + "\", \"answer\": \"x\"}\n";
  const ScratchFile against("eval.jsonl", eval), file("scored.jsonl", many_rows(40));
  const BuildResult r = build_pairs({file.path()}, {against.path()}, {});
  const Json card = Json::parse(r.files.at("card.json"));
  EXPECT_EQ(card["counts"]["contaminated_prompts"], 1);
  EXPECT_EQ(card["against"][0]["file"], against.path().filename().string());
  for (const BuiltPair& p : r.train) EXPECT_NE(p.pair.prompt.text, prompt_of(3));
}

TEST(BuildPairs, PersonalDataIsReplacedAndCounted) {
  BuildConfig c;
  c.scrub = true;
  const BuildResult r = build(
      row_of("Who is ann@example.org?", {{"Call +1 415 555 0123.", 1}, {"No idea.", 0}}).dump(), c);
  EXPECT_EQ(r.train.at(0).pair.prompt.text, "Who is [EMAIL]?");
  EXPECT_EQ(r.train[0].pair.chosen.text, "Call [PHONE].");
  const Json card = Json::parse(r.files.at("card.json"));
  EXPECT_EQ(card["scrubbed"]["emails"], 1);
  EXPECT_EQ(card["scrubbed"]["phones"], 1);
}

// --- Files
// ------------------------------------------------------------------------------------------

TEST(BuildPairs, TheSameInputsGiveTheSameBytes) {
  BuildConfig c;
  c.held_out_fraction = 0.2;
  c.balance_lengths = true;
  c.pick = "best_random";
  c.license = "CC0";
  const std::string text = many_rows(150);
  const BuildResult once = build(text, c);
  EXPECT_EQ(once.files, build(text, c).files);
  EXPECT_EQ(once.files.size(), 4u);
  c.seed = 43;
  EXPECT_NE(once.files, build(text, c).files);
  const Json card = Json::parse(once.files.at("card.json"));
  EXPECT_EQ(card["license"], "CC0");
  EXPECT_EQ(card["splits"]["train"]["pairs"], once.train.size());
  EXPECT_EQ(card["settings"]["pick"], "best_random");
  expect_words(once.files.at("card.md"), {"CC0", "held_out.jsonl", "best_random",
                                          card["splits"]["train"]["hash"].get<std::string>()});
}

TEST(BuildPairs, ItsRowsAreReadAsPairs) {
  BuildConfig c;
  c.margin_column = true;
  const BuildResult r = build(many_rows(20), c);
  const PreferenceData data = parse_preferences(r.files.at("train.jsonl"), "train.jsonl");
  ASSERT_EQ(data.pairs.size(), r.train.size());
  for (size_t i = 0; i < data.pairs.size(); ++i) {
    EXPECT_EQ(data.pairs[i].prompt, r.train[i].pair.prompt);
    EXPECT_EQ(data.pairs[i].rejected, r.train[i].pair.rejected);
    EXPECT_EQ(data.pairs[i].margin, r.train[i].pair.margin);
  }
}

TEST(BuildPairs, SettingsAreChecked) {
  const auto refuse = [](const std::string& assignment) {
    BuildConfig c;
    config_set(config_fields(c), assignment);
    return error_of([&] { (void)build(many_rows(4), c); });
  };
  EXPECT_NE(refuse("pairs_per_prompt=-1"), "");
  EXPECT_NE(refuse("near_similarity=2"), "");
  EXPECT_NE(refuse("held_out_fraction=1"), "");
  EXPECT_NE(refuse("max_margin=-1"), "");
  EXPECT_EQ(refuse("seed=7"), "");
}

}  // namespace
}  // namespace temper
