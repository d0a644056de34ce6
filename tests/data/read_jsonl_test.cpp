#include <gtest/gtest.h>
#include <zlib.h>

#include <nlohmann/json.hpp>

#include "data_test_util.h"
#include "temper/core/config.h"
#include "temper/data/dataset.h"

namespace temper {
namespace {

std::string parse_error(std::string_view text, const ReadOptions& options = {}) {
  return error_of([&] { (void)parse_jsonl(text, "f.jsonl", options); });
}

Example only_row(std::string_view text, const ReadOptions& options = {}) {
  const Dataset data = parse_jsonl(text, "f.jsonl", options);
  EXPECT_EQ(data.examples.size(), 1u);
  return data.examples.at(0);
}

std::string gzip(const std::string& text, const ScratchFile& target) {
  gzFile file = gzopen(target.path().c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  std::ifstream in(target.path(), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(ReadJsonl, PlainPromptsAnswersAndExtraKeys) {
  const Dataset data = parse_jsonl(
      "{\"prompt\": \"p1\", \"answer\": \"a1\", \"level\": 3, \"tags\": [\"x\"]}\r\n"
      "\n"
      "{\"prompt\": \"p2\", \"solution\": 1.5}\n"
      "{\"ground_truth\": true, \"prompt\": \"p3\"}",
      "f.jsonl");
  ASSERT_EQ(data.examples.size(), 3u);
  EXPECT_EQ(data.examples[0].prompt, "p1");
  EXPECT_EQ(data.examples[0].answer, "a1");
  EXPECT_EQ(data.examples[0].extra_json, R"({"level":3,"tags":["x"]})");
  EXPECT_EQ(data.examples[0].id, prompt_id(data.examples[0]));
  EXPECT_EQ(data.examples[1].answer, "1.5");
  EXPECT_EQ(data.examples[1].extra_json, "");
  EXPECT_EQ(data.examples[2].answer, "true");
  EXPECT_EQ(data.source, "f.jsonl");
  EXPECT_EQ(data.license, "not stated");
}

TEST(ReadJsonl, AnswerBeforeSolutionAndNullMeansAbsent) {
  const Example both = only_row(R"({"prompt": "p", "solution": "s", "answer": "a"})");
  EXPECT_EQ(both.answer, "a");
  EXPECT_EQ(both.extra_json, R"({"solution":"s"})");
  EXPECT_EQ(only_row(R"({"prompt": "p", "answer": null, "solution": "s"})").answer, "s");
  EXPECT_EQ(only_row(R"({"prompt": "p"})").answer, "");
}

TEST(ReadJsonl, Gsm8kFormIsSeenByItsKeys) {
  const Example row = only_row(R"({"question": "How many?", "answer": "1+1=<<1+1=2>>2\n#### 2"})");
  EXPECT_EQ(row.prompt, "How many?");
  EXPECT_EQ(row.answer, "1+1=<<1+1=2>>2\n#### 2");
  // With a prompt there, "question" is just another column.
  EXPECT_EQ(only_row(R"({"question": "q", "prompt": "p"})").extra_json, R"({"question":"q"})");
}

TEST(ReadJsonl, Conversations) {
  const Example row = only_row(
      R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]})");
  EXPECT_EQ(row.prompt, "");
  EXPECT_EQ(row.messages, (std::vector<ChatMessage>{{"system", "s"}, {"user", "u"}}));
  // A prompt may end with the start of the assistant's turn.
  const Example opened = only_row(R"({"prompt": [{"role": "user", "content": "u"},)"
                                  R"( {"role": "assistant", "content": "So"}]})");
  EXPECT_EQ(opened.messages.size(), 2u);
  EXPECT_EQ(opened.answer, "");
}

TEST(ReadJsonl, MessagesEndWithTheReference) {
  const std::string turns =
      R"("messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "r"}])";
  const Example row = only_row("{" + turns + "}");
  EXPECT_EQ(row.messages, (std::vector<ChatMessage>{{"user", "u"}}));
  EXPECT_EQ(row.answer, "r");
  const Example both = only_row("{" + turns + R"(, "answer": "a"})");
  EXPECT_EQ(both.answer, "a");
  EXPECT_EQ(both.extra_json, R"({"reference_turn":"r"})");
}

TEST(ReadJsonl, PartsOfTextAreJoinedAndOtherKeysOfAMessageAreKept) {
  const std::string line = R"({"prompt": [{"role": "user", "name": "Eva", "content": )"
                           R"([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})";
  const Example row = only_row(line);
  EXPECT_EQ(row.messages, (std::vector<ChatMessage>{{"user", "ab"}}));
  EXPECT_EQ(nlohmann::json::parse(row.extra_json), nlohmann::json::parse(line));
}

TEST(ReadJsonl, KeysMayBeNamed) {
  ReadOptions options;
  options.prompt_key = "q";
  options.answer_key = "a";
  const Example row = only_row(R"({"q": "x", "a": 7, "prompt": "no"})", options);
  EXPECT_EQ(row.prompt, "x");
  EXPECT_EQ(row.answer, "7");
  EXPECT_EQ(row.extra_json, R"({"prompt":"no"})");
  EXPECT_EQ(parse_error(R"({"prompt": "p"})", options),
            "[read_jsonl] f.jsonl:1:1: expected the prompt under the key \"q\", the row has "
            "\"prompt\"");
  EXPECT_EQ(parse_error(R"({"q": "p"})", options),
            "[read_jsonl] f.jsonl:1:1: expected the answer under the key \"a\", the row has no "
            "keys");
}

TEST(ReadJsonl, ArrayFiles) {
  const Dataset data = parse_jsonl(
      "\xef\xbb\xbf \n[\n  {\"prompt\": \"a, ] } \\\" \\\\\"},\n"
      "  {\n    \"prompt\": \"b\",\n    \"answer\": 2,\n    \"x\": {\"y\": [1, 2]}\n  }\n]\n\n",
      "f.json");
  ASSERT_EQ(data.examples.size(), 2u);
  EXPECT_EQ(data.examples[0].prompt, "a, ] } \" \\");
  EXPECT_EQ(data.examples[1].answer, "2");
  EXPECT_EQ(data.examples[1].extra_json, R"({"x":{"y":[1,2]}})");
}

TEST(ReadJsonl, ArrayErrorsHavePlaces) {
  EXPECT_EQ(parse_error("[{\"prompt\": \"a\"}\n"),
            "[read_jsonl] f.jsonl:2:1: the array that starts the file is not closed: expected ',' "
            "or ']'");
  EXPECT_EQ(parse_error("[{\"prompt\": \"a\"},]"),
            "[read_jsonl] f.jsonl:1:18: expected an object in the array, found a comma or the "
            "array's end");
  EXPECT_EQ(parse_error("[{\"prompt\": \"a\"}] x"),
            "[read_jsonl] f.jsonl:1:19: expected the end of the file after the array's ']'");
  EXPECT_EQ(parse_error("[\n{\"prompt\": \"a\"},\n{\"prompt\":\n \"b\" \"c\"}]"),
            "[read_jsonl] f.jsonl:4:8: the text is not valid JSON here");
  EXPECT_EQ(parse_error("[\n 5]"),
            "[read_jsonl] f.jsonl:2:2: expected a JSON object, got a number");
  EXPECT_EQ(parse_error("[]"), "[read_jsonl] f.jsonl: no rows: the file is empty");
}

TEST(ReadJsonl, SchemaErrorsNameKeyExpectationAndType) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"([1])", ":1:2: expected a JSON object, got a number"},
      {R"("text")", ":1:1: expected a JSON object, got a string"},
      {R"({"text": "x", "n": 1})",
       ":1:1: expected a prompt under \"prompt\", \"messages\" or \"question\", the row has "
       "\"n\", \"text\"; name it with prompt_key"},
      {R"({"prompt": 5})",
       ":1:1: key \"prompt\": expected a string or an array of messages, got a number"},
      {R"({"prompt": ""})", ":1:1: key \"prompt\": the prompt is empty"},
      {R"({"prompt": []})", ":1:1: key \"prompt\": the conversation has no messages"},
      {R"({"prompt": ["hi"]})",
       ":1:1: key \"prompt[0]\": expected a message {\"role\", \"content\"}, got a string"},
      {R"({"prompt": [{"role": "user"}]})",
       ":1:1: key \"prompt[0]\": a message needs \"role\" and \"content\""},
      {R"({"prompt": [{"role": null, "content": "x"}]})",
       ":1:1: key \"prompt[0].role\": expected a string, got null"},
      {R"({"prompt": [{"role": "", "content": "x"}]})",
       ":1:1: key \"prompt[0].role\": the role is empty"},
      {R"({"prompt": [{"role": "user", "content": {}}]})",
       ":1:1: key \"prompt[0].content\": expected a string, got an object"},
      {R"({"prompt": [{"role": "user", "content": [{"type": "image"}]}]})",
       ":1:1: key \"prompt[0].content\": expected parts of type \"text\" only (images are not "
       "read)"},
      {R"({"messages": [{"role": "assistant", "content": "x"}]})",
       ":1:1: key \"messages\": the conversation holds an assistant turn only, no prompt"},
      {R"({"prompt": "p", "answer": ["x"]})",
       ":1:1: key \"answer\": expected a string, a number or a boolean, got an array"},
      {R"({"prompt": "p", "answer": 1e999})", ":1:1: the row holds a number out of range"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_EQ(parse_error(text), "[read_jsonl] f.jsonl" + message) << text;
  }
}

TEST(ReadJsonl, JsonErrorsHavePlacesAndNeverQuoteTheRow) {
  EXPECT_EQ(parse_error("{\"prompt\": \"ok\"}\n  {\"prompt\": secret}"),
            "[read_jsonl] f.jsonl:2:14: the text is not valid JSON here");
  EXPECT_EQ(parse_error("{\"prompt\": \"ok\"}\n{\"prompt\": \"secret"),
            "[read_jsonl] f.jsonl:2:19: the row ends inside its JSON: expected one whole object a "
            "line");
  EXPECT_EQ(parse_error("{\n\"prompt\": \"secret\"\n}"),
            "[read_jsonl] f.jsonl:1:2: the row ends inside its JSON: expected one whole object a "
            "line");
  EXPECT_EQ(parse_error(""), "[read_jsonl] f.jsonl: no rows: the file is empty");
  EXPECT_EQ(parse_error(" \n\t\n"), "[read_jsonl] f.jsonl: no rows: the file is empty");
}

TEST(ReadJsonl, Utf8IsCheckedOrMended) {
  const std::string good = "{\"prompt\": \"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x99\x82\"}";
  EXPECT_EQ(only_row(good).prompt, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x99\x82");
  for (const std::string bad :
       {"\xff", "\xc3", "\xe2\x82", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80"}) {
    const std::string line = "{\"prompt\": \"a" + bad + "b\"}";
    EXPECT_EQ(parse_error(line),
              "[read_jsonl] f.jsonl:1:14: the text is not valid UTF-8 here; fix "
              "the file or read it with lossy_utf8");
    ReadOptions lossy;
    lossy.lossy_utf8 = true;
    std::string mended = "a";
    for (size_t i = 0; i < bad.size(); ++i) mended += "\xef\xbf\xbd";
    EXPECT_EQ(only_row(line, lossy).prompt, mended + "b");
  }
}

TEST(ReadJsonl, DepthAndLengthAreLimited) {
  const auto nested = [](int depth) {  // The row itself is one level.
    return "{\"prompt\": \"[[[\\\"\", \"x\": " + std::string(static_cast<size_t>(depth - 1), '[') +
           std::string(static_cast<size_t>(depth - 1), ']') + "}";
  };
  EXPECT_EQ(only_row(nested(64)).prompt, "[[[\"");
  EXPECT_EQ(parse_error(nested(65)),
            "[read_jsonl] f.jsonl:1:89: the JSON is nested deeper than 64");
  EXPECT_EQ(parse_error(std::string(200000, '[') + std::string(200000, ']')),
            "[read_jsonl] f.jsonl:1:66: the JSON is nested deeper than 64");

  ReadOptions options;
  options.max_line_bytes = 17;
  EXPECT_EQ(only_row("{\"prompt\": \"abc\"}", options).prompt, "abc");
  EXPECT_EQ(parse_error("\n{\"prompt\": \"abcd\"}", options),
            "[read_jsonl] f.jsonl:2:1: the row is longer than 17 bytes (the limit is "
            "max_line_bytes)");
  EXPECT_EQ(parse_error("[{\"prompt\": \"abcd\"}]", options),
            "[read_jsonl] f.jsonl:1:2: the row is longer than 17 bytes (the limit is "
            "max_line_bytes)");
  options.max_line_bytes = 0;
  EXPECT_EQ(parse_error("{}", options), "[read_jsonl] max_line_bytes must be at least 1, got 0");
  EXPECT_EQ(ReadOptions{}.max_line_bytes, 67108864);
}

TEST(ReadJsonl, RowsLongerThanABufferAreWhole) {
  for (const size_t size : {65521u, 65522u, 65523u, 65524u, 200001u}) {
    const std::string prompt(size, 'x');
    const std::string row = "{\"prompt\": \"" + prompt + "\"}";
    const Dataset data = parse_jsonl(row + "\n" + row, "f", {});
    ASSERT_EQ(data.examples.size(), 2u);
    EXPECT_EQ(data.examples[0].prompt, prompt);
    EXPECT_EQ(data.examples[1].prompt, prompt);
  }
}

TEST(ReadJsonl, BadRowsCanBeLeftOutAndAreListed) {
  std::string text = "{\"prompt\": \"first\"}\n";
  for (int i = 0; i < 30; ++i) text += "{\"prompt\": " + std::to_string(i) + "}\n";
  text += "not json\n{\"prompt\": \"last\"}\n";
  ReadOptions options;
  options.skip_bad = true;
  const Dataset data = parse_jsonl(text, "f.jsonl", options);
  ASSERT_EQ(data.examples.size(), 2u);
  EXPECT_EQ(data.examples[1].prompt, "last");
  EXPECT_EQ(data.skipped, 31u);
  ASSERT_EQ(data.problems.size(), 20u);
  EXPECT_EQ(data.problems[0],
            "[read_jsonl] f.jsonl:2:1: key \"prompt\": expected a string or an array of messages, "
            "got a number");
  EXPECT_EQ(parse_error("nope\n", options),
            "[read_jsonl] f.jsonl: no rows: all 1 were bad, the first: [read_jsonl] "
            "f.jsonl:1:2: the text is not valid JSON here");
}

TEST(ReadJsonl, RowsCanBeLimited) {
  ReadOptions options;
  options.max_rows = 2;
  // The third row is bad and never looked at.
  EXPECT_EQ(
      parse_jsonl("{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\nbad", "f", options).examples.size(), 2u);
  options.max_rows = -1;
  EXPECT_EQ(parse_error("{}", options), "[read_jsonl] max_rows must not be negative, got -1");
}

TEST(ReadJsonl, GzipAndPlainFilesGiveTheSameRowsAndHash) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "{\"prompt\": \"row " + std::to_string(i) + "\"}\n";
  const ScratchFile plain("plain.jsonl", text);
  const ScratchFile packed("packed.jsonl.gz", "");
  const std::string bytes = gzip(text, packed);
  ASSERT_LT(bytes.size(), text.size());
  const Dataset a = read_jsonl(plain.path());
  const Dataset b = read_jsonl(packed.path());
  ASSERT_EQ(a.examples.size(), 5000u);
  ASSERT_EQ(b.examples.size(), 5000u);
  EXPECT_EQ(b.examples[4999].prompt, "row 4999");
  StableHash hash;
  hash.update(text);
  EXPECT_EQ(a.content_hash, hash.value());
  EXPECT_EQ(b.content_hash, hash.value());
  EXPECT_EQ(a.source, plain.path().string());

  const ScratchFile cut("cut.gz", std::string_view(bytes).substr(0, bytes.size() / 2));
  const std::string early = error_of([&] { (void)read_jsonl(cut.path()); });
  EXPECT_TRUE(early.starts_with("[read_jsonl] " + cut.path().string() +
                                ": the gzip data ends too early (a broken download?); it is whole up "
                                "to line "))
      << early;
  std::string broken = bytes;
  for (size_t i = 20; i < 60; ++i) broken[i] = static_cast<char>(0xff);
  const ScratchFile damaged("damaged.gz", broken);
  EXPECT_TRUE(error_of([&] { (void)read_jsonl(damaged.path()); })
                  .starts_with("[read_jsonl] " + damaged.path().string() +
                               ": the file cannot be read or unpacked: "));
}

TEST(ReadJsonl, OtherFormatsAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
#ifndef TEMPER_PARQUET
      {"PAR1xxxx", "is Parquet, which this build does not read"},
#endif
      {"PK\x03\x04zip", "is a zip archive; unpack it first"},
      {"\x28\xb5\x2f\xfdzz", "is zstd; unpack it first (zstd -d)"},
      {"BZh91AY", "is bzip2; unpack it first (bunzip2)"},
      {std::string("\xfd"
                   "7zXZ\0",
                   6),
       "is xz; unpack it first (unxz)"},
      {"\xff\xfe{", "is UTF-16; convert it to UTF-8 first"},
  };
  for (const auto& [bytes, words] : cases) {
    const ScratchFile file("other", bytes);
    const std::string message = error_of([&] { (void)read_jsonl(file.path()); });
    EXPECT_TRUE(message.starts_with("[read_jsonl] " + file.path().string() + ": the file " + words))
        << message;
  }
  EXPECT_EQ(error_of([] { (void)read_jsonl("/nowhere/x.jsonl"); }),
            "[read_jsonl] /nowhere/x.jsonl: no such file");
  EXPECT_EQ(error_of([] { (void)read_jsonl(testing::TempDir()); }),
            "[read_jsonl] " + testing::TempDir() + ": expected a file, found a folder or a device");
}

TEST(ReadJsonl, OptionsAreDeclared) {
  ReadOptions options;
  EXPECT_LE(config_fields(options).size(), 15u);
  config_set(config_fields(options), "skip_bad=true");
  EXPECT_TRUE(options.skip_bad);
}

}  // namespace
}  // namespace temper
