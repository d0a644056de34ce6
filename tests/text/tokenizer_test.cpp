#include "temper/text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "golden_strings.h"
#include "temper/core/error.h"
#include "temper/text/stream_decoder.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

using Ids = std::vector<int32_t>;
using Json = nlohmann::json;

// Letters a-d, merges made by hand.
Json small_file() {
  return Json::parse(R"({
    "added_tokens": [{"content": "<end>", "special": true, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "bc": 4, "ab": 5, "abc": 6, "aa": 7,
                                       "cd": 8},
              "merges": ["b c", ["a", "b"], "a bc", "a a", "c d"]}})");
}

Tokenizer small(const Json& file = small_file()) { return Tokenizer::from_json(file.dump(), "m"); }

// The message of the error that reading `file` gives.
std::string refusal(const Json& file) {
  try {
    (void)small(file);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

void expect_refusal(const Json& file, const std::string& part) {
  EXPECT_NE(refusal(file).find(part), std::string::npos) << refusal(file);
}

Json with(const char* pointer, const Json& value) {
  Json file = small_file();
  file[Json::json_pointer(pointer)] = value;
  return file;
}

// ---- merging, worked by hand ----

TEST(Bpe, MergesTheLowestRankFirst) {
  EXPECT_EQ(small().encode("abc"), (Ids{6}));     // bc before ab, then a bc
  EXPECT_EQ(small().encode("abd"), (Ids{5, 3}));  // ab
  EXPECT_EQ(small().encode("bcd"), (Ids{4, 3}));  // bc before cd
  EXPECT_EQ(small().encode("acd"), (Ids{0, 8}));
}

TEST(Bpe, MergesTheLeftmostOfEquals) {
  EXPECT_EQ(small().encode("aaa"), (Ids{7, 0}));
  EXPECT_EQ(small().encode("aaaaa"), (Ids{7, 7, 0}));
}

TEST(Bpe, LeavesOutWhatHasNoToken) {
  EXPECT_EQ(small().encode("xaxbxcx"), (Ids{6}));  // no unknown token declared: as if not there
  EXPECT_EQ(small().encode(""), Ids{});
}

TEST(Bpe, GivesTheUnknownToken) {
  Json file = with("/model/unk_token", "d");
  EXPECT_EQ(small(file).encode("axyb"), (Ids{0, 3, 3, 1}));
  file["model"]["fuse_unk"] = true;
  EXPECT_EQ(small(file).encode("axyb"), (Ids{0, 3, 1}));
  file["model"]["unk_token"] = "missing";
  EXPECT_EQ(small(file).encode("ab"), (Ids{5}));
  EXPECT_THROW((void)small(file).encode("x"), Error);
}

TEST(Bpe, LongPiecesTakeNoQuadraticTime) {
  // 4 MB in a single piece; a quadratic merge would need hours.
  const Ids ids = small().encode(std::string(1 << 22, 'a'));
  EXPECT_EQ(ids, Ids(1 << 21, 7));
}

// A long piece is cut where no merge reaches across, a short one is not: the ids are the same.
TEST(Bpe, CutsOfLongPiecesChangeNothing) {
  std::string text;
  Ids want;
  for (int i = 0; i < 50; ++i) {
    text += "abcdcdbca";  // abc d cd bc a; the next a goes to its bc first
    want.insert(want.end(), {6, 3, 8, 4, 0});
  }
  Ids parts;
  for (int i = 0; i < 50; ++i) {
    const Ids part = small().encode("abcdcdbca");
    parts.insert(parts.end(), part.begin(), part.end());
  }
  EXPECT_EQ(parts, want);
  EXPECT_EQ(small().encode(text), want);
}

// ---- special tokens ----

TEST(Tokenizer, SpecialTextIsPlainUnlessAllowed) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.encode("a<end>b"), (Ids{0, 3, 1}));  // of its characters d has a token
  EXPECT_EQ(tokenizer.encode("a<end>b", {.allow_special = true}), (Ids{0, 9, 1}));
  EXPECT_EQ(tokenizer.vocab_size(), 10);
  EXPECT_TRUE(tokenizer.is_special(9));
  EXPECT_FALSE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(10));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.decode(Ids{0, 9, 1}), "ab");
  EXPECT_EQ(tokenizer.decode(Ids{0, 9, 1}, false), "a<end>b");
}

TEST(Tokenizer, TheLongestAddedTokenWins) {
  Json file = small_file();
  file["added_tokens"] = Json::parse(R"([
    {"content": "ab", "special": false, "normalized": false},
    {"content": "abcd", "special": false, "normalized": false},
    {"content": "bcdd", "special": false, "normalized": false}])");
  const Tokenizer tokenizer = small(file);
  EXPECT_EQ(tokenizer.token_to_id("ab"), 5);          // the model's own id
  EXPECT_EQ(tokenizer.token_to_id("abcd"), 9);        // numbered behind the vocabulary
  EXPECT_EQ(tokenizer.encode("abcdd"), (Ids{9, 3}));  // leftmost, though bcdd is as long
  EXPECT_EQ(tokenizer.encode("abcc"), (Ids{5, 2, 2}));
  EXPECT_EQ(tokenizer.encode("bcdd"), (Ids{10}));
}

TEST(Tokenizer, AddedTokensTakeSpaceAndWantBorders) {
  Json file = small_file();
  file["added_tokens"] = Json::parse(R"([
    {"content": "<l>", "lstrip": true}, {"content": "<r>", "rstrip": true},
    {"content": "dd", "single_word": true}])");
  file["model"]["vocab"][" "] = 9;
  const Tokenizer tokenizer = small(file);
  EXPECT_EQ(tokenizer.encode("a  <l> a"), (Ids{0, 10, 9, 0}));
  EXPECT_EQ(tokenizer.encode("a <r>  a"), (Ids{0, 9, 11, 0}));
  EXPECT_EQ(tokenizer.encode("<r> <l>"), (Ids{11, 10}));  // the space goes to the first
  EXPECT_EQ(tokenizer.encode("dd add"), (Ids{12, 9, 0, 3, 3}));
}

TEST(Tokenizer, PostProcessorAddsOnlyWhenAsked) {
  const Json file = with("/post_processor", Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<end>": {"id": "<end>", "ids": [9], "tokens": ["<end>"]}}})"));
  EXPECT_EQ(small(file).encode("ab"), (Ids{5}));
  EXPECT_EQ(small(file).encode("ab", {.add_special_tokens = true}), (Ids{9, 5}));
}

TEST(Tokenizer, IdsWithoutATokenGiveNoText) {
  EXPECT_EQ(small().decode(Ids{-1, 0, 10, 1 << 30, 1}), "ab");
}

TEST(Tokenizer, JoinsWithSpacesWithoutADecoder) {
  EXPECT_EQ(small(with("/decoder", nullptr)).decode(Ids{6, 0, 3}), "abc a d");
}

// ---- hostile and unknown files ----

TEST(TokenizerFile, RefusesUnknownPartsByType) {
  expect_refusal(with("/model/type", "Unigram"), "\"Unigram\"");
  expect_refusal(with("/normalizer", {{"type", "Precompiled"}}),
                 "normalizer is of type \"Precompiled\"");
  expect_refusal(with("/pre_tokenizer", {{"type", "BertPreTokenizer"}}), "\"BertPreTokenizer\"");
  expect_refusal(with("/post_processor", {{"type", "RobertaProcessing"}}), "\"RobertaProcessing\"");
  expect_refusal(with("/decoder", {{"type", "WordPiece"}}), "\"WordPiece\"");
  expect_refusal(with("/model/dropout", 0.1), "dropout");
  expect_refusal(with("/model/continuing_subword_prefix", "##"), "continuing_subword_prefix");
  expect_refusal(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
}

TEST(TokenizerFile, RefusesBadModels) {
  expect_refusal(with("/model/vocab/a", -1), "[0, 2097151]");
  expect_refusal(with("/model/vocab/a", 1 << 30), "[0, 2097151]");
  expect_refusal(with("/model/vocab/a", 18446744073709551615U), "[0, 2097151]");
  expect_refusal(with("/model/vocab/a", 1.5), "must be an integer");
  expect_refusal(with("/model/vocab/a", 1), "another token");
  expect_refusal(with("/model/vocab", 3), "must be an object");
  expect_refusal(with("/model/merges/0", "b x"), "\"x\", which is not in the vocabulary");
  expect_refusal(with("/model/merges/0", "a d"), "\"ad\", which is not in the vocabulary");
  expect_refusal(with("/model/merges/0", "a b c"), "two tokens");
  expect_refusal(with("/model/merges/0", "ab"), "two tokens");
  expect_refusal(with("/model/merges/0", {"a"}), "entry 0");
  expect_refusal(with("/model", nullptr), "model must be an object");
  Json file = small_file();
  file.erase("model");
  expect_refusal(file, "has no \"model\"");
  expect_refusal(Json::array(), "must be an object");
}

TEST(TokenizerFile, RefusesBadAddedTokens) {
  expect_refusal(with("/added_tokens", 1), "must be an array");
  expect_refusal(with("/added_tokens/0", {{"special", true}}), "has no \"content\"");
  expect_refusal(with("/added_tokens/0/content", std::string(2000, 'x')), "2000 bytes");
  expect_refusal(with("/added_tokens/0/lstrip", "yes"), "true or false");
  // The id behind 9 tokens is 9, which d has now.
  expect_refusal(with("/model/vocab/d", 9), "uses already");
  Json file = small_file();
  file["normalizer"] = {{"type", "Lowercase"}};
  file["added_tokens"] = Json::parse(R"([{"content": "X"}, {"content": "x"}])");
  expect_refusal(file, "equal to another");
}

TEST(TokenizerFile, RefusesBadTemplates) {
  Json file = with("/post_processor", Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}], "pair": [],
    "special_tokens": {"<end>": {"id": "<end>", "ids": [10], "tokens": ["<end>"]}}})"));
  expect_refusal(file, "[0, 9]");
  file["post_processor"]["special_tokens"].erase("<end>");
  expect_refusal(file, "has no \"<end>\"");
  file["post_processor"]["single"] = Json::parse(R"([{"Sequence": {"id": "B", "type_id": 0}}])");
  expect_refusal(file, "\"B\"");
}

TEST(TokenizerFile, BoundsNestingAndLength) {
  Json nested = {{"type", "NFC"}};
  for (int i = 0; i < 20; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  expect_refusal(with("/normalizer", nested), "nested");
  Json wide = {{"type", "Sequence"}, {"pretokenizers", Json::array()}};
  for (int i = 0; i < 300; ++i) wide["pretokenizers"].push_back({{"type", "Digits"}});
  expect_refusal(with("/pre_tokenizer", wide), "300 parts");
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_THROW((void)Tokenizer::from_json(deep, "m"), Error);
  EXPECT_THROW((void)Tokenizer::from_json("", "m"), Error);
  EXPECT_THROW((void)Tokenizer::from_json("{\"model\": \"\xff\"}", "m"), Error);
}

TEST(TokenizerFile, BoundsGrowthOfText) {
  Json grow = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  for (int i = 0; i < 60; ++i) {
    grow["normalizers"].push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaa"}});
  }
  EXPECT_THROW((void)small(with("/normalizer", grow)).encode("a"), Error);
  Json mapped = {{"type", "Sequence"}, {"pretokenizers", Json::array()}};
  for (int i = 0; i < 60; ++i) mapped["pretokenizers"].push_back({{"type", "ByteLevel"}});
  EXPECT_THROW((void)small(with("/pre_tokenizer", mapped)).encode("\xC3\xA9"), Error);
}

TEST(SentencePiece, RefusesWhatIsNoModel) {
  EXPECT_THROW((void)Tokenizer::from_sentencepiece("not a model", "m"), Error);
  EXPECT_THROW((void)Tokenizer::from_sentencepiece("", "m"), Error);
  const std::string model = test::read_golden("sentencepiece_bpe.model");
  EXPECT_THROW((void)Tokenizer::from_sentencepiece(model.substr(0, model.size() / 2), "m"), Error);
}

// ---- invariants ----

TEST(Tokenizer, RoundTripsRandomBytes) {
  for (const char* family : {"gpt2", "smollm2", "llama3"}) {
    const Tokenizer tokenizer =
        Tokenizer::from_json(test::read_golden(std::string(family) + ".json"), family);
    std::mt19937 random(3);
    for (int round = 0; round < 1500; ++round) {
      std::string text;
      for (size_t n = random() % 50; n > 0; --n) text.push_back(static_cast<char>(random() % 256));
      if (round % 2 == 0) {  // letters of one script, spaces between
        text.clear();
        for (size_t n = random() % 30; n > 0; --n) {
          unicode::append_code_point(&text, random() % 4 == 0 ? ' ' : 0x400 + random() % 0x1000);
        }
      }
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), unicode::to_valid_utf8(text)) << family;
    }
  }
}

TEST(Tokenizer, ThreadsShareIt) {
  const Tokenizer tokenizer = Tokenizer::from_json(test::read_golden("llama3.json"), "llama3");
  const auto encode_all = [&](std::vector<Ids>* out) {
    const Tokenizer copy = tokenizer;
    for (size_t i = 0; i < test::golden_strings().size(); i += 5) {
      out->push_back(copy.encode(test::golden_strings()[i]));
    }
  };
  std::vector<std::vector<Ids>> results(4);
  std::vector<std::thread> threads;
  for (std::vector<Ids>& result : results) threads.emplace_back(encode_all, &result);
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<Ids>& result : results) EXPECT_EQ(result, results[0]);
}

TEST(StreamDecoder, HoldsBackHalfCharacters) {
  const Tokenizer tokenizer = Tokenizer::from_json(test::read_golden("gpt2.json"), "gpt2");
  const auto byte = [&](const char* mapped) { return tokenizer.token_to_id(mapped).value(); };
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(byte("\u00f0")), "");  // F0 9F A7 AA, a test tube
  EXPECT_EQ(stream.push(byte("\u0141")), "");
  EXPECT_EQ(stream.push(byte("\u00a7")), "");
  EXPECT_EQ(stream.push(byte("\u00aa")), "\U0001f9ea");
  EXPECT_EQ(stream.push(byte("\u00e2")), "");
  EXPECT_EQ(stream.push(byte("a")), "\ufffda");
  EXPECT_EQ(stream.push(byte("\u00e2")), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.push(byte("b")), "b");  // anew
}

TEST(StreamDecoder, ByteFallbackWaitsForTheRun) {
  const Tokenizer tokenizer = Tokenizer::from_json(test::read_golden("gemma.json"), "gemma");
  const auto token = [&](const char* text) { return tokenizer.token_to_id(text).value(); };
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(token("<0xC3>")), "");
  EXPECT_EQ(stream.push(token("<0xA9>")), "");
  EXPECT_EQ(stream.push(token("a")), "\u00e9a");
  EXPECT_EQ(stream.push(token("<0xC3>")), "");
  EXPECT_EQ(stream.push(token("<0x41>")), "");
  EXPECT_EQ(stream.finish(), "\ufffd\ufffd");  // one bad byte spoils the run
}

}  // namespace
}  // namespace temper
