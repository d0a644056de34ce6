// What is wrong with rows of completions, rows of files larger than memory, and splits.
#include <zlib.h>

#include <nlohmann/json.hpp>

#include "completion_case.h"
#include "temper/data/completions.h"

namespace temper {
namespace {

using Json = nlohmann::json;

const Json kUser = message("user", "Sky?");

// --- Bad data
// ---------------------------------------------------------------------------------------

const std::string kGood = "{\"prompt\": \"p\", \"completion\": \"a\", \"label\": true}\n";

TEST(BadCompletions, AreNamedByLineAndKey) {
  expect_words(refusal(kGood + "{\"prompt\": \"p\", \"completion\": \"a\"}"),
               {"f.jsonl:2:1", "a label under the key \"label\""});
  expect_words(refusal(kGood + "{\"prompt\": \"p\", \"label\": true}"),
               {"f.jsonl:2:1", "an answer under the key \"completion\"", "\"label\", \"prompt\""});
  for (const char* label : {"\"yes\"", "null", "[]"}) {
    expect_words(refusal("{\"prompt\": \"p\", \"completion\": \"a\", \"label\": " +
                         std::string(label) + "}"),
                 {"f.jsonl:1:1", "\"label\"", "true, false, 1 or 0, got "});
  }
  expect_words(refusal("{\"prompt\": \"p\", \"completion\": \"a\", \"label\": 2}"),
               {"\"label\"", "got another value"});
  expect_words(refusal("{\"text\": \"a\", \"weight\": -1}"), {"\"weight\"", "at least 0, got -1"});
  expect_words(refusal("{\"text\": \"a\"}\n{\"text\": [" + kUser.dump() + "]}"),
               {"f.jsonl:2:1", "\"text\"", "got an array"});
  expect_words(refusal("{\"messages\": [" + kUser.dump() + "]}\n{\"messages\": \"a\"}"),
               {"f.jsonl:2:1", "\"messages\"", "got a string"});
  expect_words(refusal("{\"messages\": []}"), {"\"messages\"", "no messages"});
  expect_words(refusal("{\"prompt\": \"p\", \"completions\": [\"a\"], \"labels\": []}"),
               {"\"labels\"", "one label a step, got 0 for 1"});
  expect_words(refusal("{\"prompt\": \"p\", \"completions\": [1], \"labels\": [true]}"),
               {"\"completions[0]\"", "a string, got a number"});
  expect_words(refusal("{\"a\": 1}"), {"no known form", "\"a\""});
  expect_words(refusal("{\"text\": \"\xff\"}"), {"f.jsonl:1:11", "not valid UTF-8"});
  expect_words(refusal(""), {"no rows"});
}

TEST(BadCompletions, RowContentsAreNeverQuoted) {
  const std::string secret = "swordfish";
  for (const std::string& row :
       {"{\"prompt\": \"p\", \"completion\": \"a\", \"label\": \"" + secret + "\"}",
        "{\"text\": \"" + secret + "\", \"weight\": \"" + secret + "\"}",
        "{\"prompt\": \"" + secret + "\"}", "{\"text\": \"" + secret}) {
    const std::string error = refusal(row);
    EXPECT_NE(error, "") << row;
    EXPECT_EQ(error.find(secret), std::string::npos) << error;
  }
}

TEST(BadCompletions, SkippedEmptyAndEqualOnesAreCounted) {
  CompletionReadOptions o;
  o.skip_bad = true;
  const CompletionData data =
      parse("{\"prompt\": 1, \"completion\": \"a\", \"label\": true}\n" + kGood +
                "{\"prompt\": \"p\", \"completion\": \" \\n\", \"label\": true}\nnonsense\n",
            o);
  EXPECT_EQ(data.records.size(), 1u);
  EXPECT_EQ(data.skipped, 2u);
  EXPECT_EQ(data.empty, 1u);
  EXPECT_EQ(data.records[0].line, 2u);
  ASSERT_EQ(data.problems.size(), 3u);
  expect_words(data.problems[1], {"f.jsonl:4"});
  expect_words(data.problems[2], {"f.jsonl:3:1", "an answer has no words"});
  const CompletionData pairs = parse(
      "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}\n"
      "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"\"}\n"
      "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n",
      o);
  EXPECT_EQ(pairs.records.size(), 2u);
  EXPECT_EQ(pairs.equal, 1u);
  EXPECT_EQ(pairs.empty, 1u);
  expect_words(refusal("{\"text\": \"\"}", o), {"nothing to learn from", "1 rows have an empty"});
  expect_words(refusal("{\"text\": \"a\"}\n{\"text\": \"\"}"),
               {"f.jsonl:2:1", "an answer has no words", "skip_bad"});
  expect_words(refusal("{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}"),
               {"f.jsonl:1:1", "both answers are the same"});
}

TEST(BadCompletions, AbsurdLengthsAndFilesCutShort) {
  CompletionReadOptions o;
  o.max_line_bytes = 60;
  const std::string absurd =
      "{\"prompt\": \"p\", \"completion\": \"" + std::string(200000, 'x') + "\", \"label\": true}\n";
  expect_words(refusal(kGood + absurd, o), {"f.jsonl:2:1", "longer than 60 bytes"});
  o.skip_bad = true;
  for (const std::string& file : {kGood + absurd + kGood, "[" + kGood + "," + absurd + "," + kGood + "]"}) {
    const CompletionData data = parse(file, o);
    EXPECT_EQ(data.records.size(), 2u);
    EXPECT_EQ(data.skipped, 1u);
    expect_words(data.problems.at(0), {"f.jsonl:", "longer than 60 bytes"});
  }
  std::string text;
  for (int i = 0; i < 4000; ++i) text += Json{{"text", concat("row ", i * 7919)}}.dump() + "\n";
  const ScratchFile packed("rows.jsonl.gz", "");
  gzFile file = gzopen(packed.path().c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  EXPECT_EQ(read_completions(packed.path()).records.size(), 4000u);
  std::filesystem::resize_file(packed.path(), std::filesystem::file_size(packed.path()) / 2);
  expect_words(error_of([&] { (void)read_completions(packed.path()); }),
               {packed.path().string(), "the gzip data ends too early"});
}

TEST(BadCompletions, OptionsAreChecked) {
  CompletionReadOptions o;
  o.form = "unpared";
  expect_words(refusal(kGood, o), {"\"unpared\"", "did you mean \"unpaired\"?"});
  o.form = "text";
  expect_words(refusal(kGood, o), {"a text under the key \"text\""});
  o.form = "auto";
  o.pairs = "all";
  expect_words(refusal(kGood, o), {"both or chosen"});
}

// --- Streams and splits
// ------------------------------------------------------------------------------

TEST(StreamCompletions, HandsOnWhatReadingGives) {
  std::string text;
  for (int i = 0; i < 5000; ++i) {  // Several times the reader's buffer of 64 KiB.
    text += Json{{"prompt", "p" + std::to_string(i)}, {"completion", std::string(60, 'x')}}.dump() +
            "\n";
  }
  const ScratchFile file("rows.jsonl", text);
  const CompletionData whole = read_completions(file.path());
  uint64_t rows = 0;
  const CompletionData rest = stream_completions(file.path(), {}, [&](CompletionRecord&& r) {
    ASSERT_LT(rows, whole.records.size());
    EXPECT_EQ(r.id, whole.records[rows].id);
    EXPECT_EQ(r.line, ++rows);
  });
  EXPECT_EQ(rows, 5000u);
  EXPECT_TRUE(rest.records.empty());
  EXPECT_EQ(rest.content_hash, whole.content_hash);
  EXPECT_EQ(rest.form, DataForm::kPromptCompletion);
}

TEST(StreamCompletions, AnErrorOfTheTakerIsNoBadRow) {
  const ScratchFile file("rows.jsonl", kGood + kGood);
  CompletionReadOptions o;
  o.skip_bad = true;
  const auto full = [](CompletionRecord&&) { fail("the disk is full"); };
  EXPECT_EQ(error_of([&] { (void)stream_completions(file.path(), o, full); }), "the disk is full");
}

TEST(SplitCompletions, KeepsAPromptTogether) {
  std::string text;
  for (int i = 0; i < 200; ++i) {
    text +=
        Json{{"prompt", "p" + std::to_string(i / 2)}, {"completion", std::to_string(i)}}.dump() +
        "\n";
  }
  const CompletionData data = parse(text);
  const auto [train, held_out] = split_by_hash(data, 0.3, 7);
  EXPECT_EQ(train.records.size() + held_out.records.size(), 200u);
  EXPECT_FALSE(held_out.records.empty());
  for (const auto& h : held_out.records) {
    for (const auto& t : train.records) ASSERT_NE(h.prompt.text, t.prompt.text);
  }
  EXPECT_EQ(held_out.form, data.form);
}

}  // namespace
}  // namespace temper
