#include "text/regex.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

// All matches, joined by "|".
std::string matches(const std::string& pattern, const std::string& text) {
  const Regex regex(pattern, "[test]");
  MatchIterator iterator(regex, text);
  std::string out;
  while (const auto match = iterator.next()) {
    if (!out.empty()) out += "|";
    out += text.substr(match->begin, match->end - match->begin);
  }
  return out;
}

TEST(Regex, SpaceIsWhiteSpaceOfUnicode) {
  EXPECT_EQ(matches("\\s+", "a\u0085\u00a0b\u180ec\u3000d"), "\u0085\u00a0|\u3000");
  EXPECT_EQ(matches("\\S+", "a\u0085b\u180ec\u3000d"), "a|b\u180ec|d");
  EXPECT_EQ(matches("[^\\s]+", "a\u0085b\u180ec"), "a|b\u180ec");
  EXPECT_EQ(matches("[\\S\\r]+", "a b\r\u2028\u180e"), "a|b\r|\u180e");
}

TEST(Regex, CaselessTakesTheLongS) {
  EXPECT_EQ(matches("(?i:'s|'k)", "'s 'S '\u017f 'k 'K '\u212a"), "'s|'S|'\u017f|'k|'K|'\u212a");
  EXPECT_EQ(matches("(?i)[a-s]+", "aS\u017fz"), "aS\u017f");
  EXPECT_EQ(matches("'s", "'s 'S"), "'s");
}

TEST(Regex, PropertiesKnowUnicode16) {
  // U+31350 is of 15.0, U+11F50 (a digit) too, U+105C0 of 16.0.
  EXPECT_EQ(matches("\\p{L}+", "a\U00031350\U000105C0-\U00011F50"), "a\U00031350\U000105C0");
  EXPECT_EQ(matches("\\p{N}", "a1\U00011F50"), "1|\U00011F50");
  EXPECT_EQ(matches("[^\\p{L}\\p{N}]+", "a-\U00031350\U00011F50!"), "-|!");
  EXPECT_EQ(matches("\\P{L}", "a1\U00031350"), "1");
  EXPECT_EQ(matches("\\p{^L}", "a1\U00031350"), "1");
  EXPECT_EQ(matches("\\p{Han}+", "a\u4e00\u3001\U00031350"), "\u4e00|\U00031350");
}

TEST(Regex, WordsDigitsAndHexDigits) {
  EXPECT_EQ(matches("\\w+", "e\u0301_\u0663 \u2167-\u00bd"), "e\u0301_\u0663|\u2167|\u00bd");
  EXPECT_EQ(matches("\\bth", "th eth \u0301th"), "th");
  EXPECT_EQ(matches("\\d", "1\u0663\u00b2"), "1|\u0663");
  EXPECT_EQ(matches("\\h+", "09afAFg \t"), "09afAF");
  EXPECT_EQ(matches("\\v", "\v\n\r"), "\v");
}

TEST(Regex, LinesDotsAndCounts) {
  EXPECT_EQ(matches("^a", "a\na"), "a|a");
  EXPECT_EQ(matches("a.", "ab a\n"), "ab");
  EXPECT_EQ(matches("(?m:a.)", "a\n"), "a\n");
  EXPECT_EQ(matches("a{,2}b", "aaab"), "aab");
  EXPECT_EQ(matches("a{x", "a{x"), "a{x");
  EXPECT_EQ(matches("\\u0061\\x{62}", "ab"), "ab");
}

TEST(Regex, EmptyMatchesDoNotRepeat) {
  const Regex regex("x?", "[test]");
  MatchIterator iterator(regex, "ax");
  std::vector<std::pair<size_t, size_t>> found;
  while (const auto match = iterator.next()) found.emplace_back(match->begin, match->end);
  EXPECT_EQ(found, (std::vector<std::pair<size_t, size_t>>{{0, 0}, {1, 2}}));
}

TEST(Regex, RefusesWhatMeansSomethingElse) {
  for (const char* pattern : {"[a[b]]", "[a&&b]", "a{2}+",       "a{2}?",    "(a)\\1",  "(*FAIL)",
                              "\\R",    "\\X",    "\\K",         "\\G",      "\\Qa\\E", "(?x: a)",
                              "a(?i)b", "(?~a)",  "\\p{Greek",   "\\p{Foo}", "\\pL",    "[\\P{L}]",
                              "[\\W]",  "\\u12",  "[[:alpha:]]", "\\",       "[\\b]",   "\\xA0"}) {
    EXPECT_THROW(Regex(pattern, "[test]"), Error) << pattern;
  }
  EXPECT_THROW(Regex("(a", "[test]"), Error);
  EXPECT_THROW(Regex("a**", "[test] m.json"), Error);
  EXPECT_THROW(Regex("\xff", "[test]"), Error);
  EXPECT_THROW(Regex(std::string(100'000, 'a'), "[test]"), Error);
}

TEST(Regex, SaysSoWhenItGivesUp) {
  const Regex regex("(?:a+)+$", "[test]");
  try {
    (void)regex.find(std::string(64, 'a') + "!", 0);
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("gave up"), std::string::npos) << e.what();
  }
}

TEST(Regex, WalksAMegabyteOfSpaces) {
  const Regex regex("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", "[test]");
  const std::string text = std::string(1 << 20, ' ') + "a";
  MatchIterator iterator(regex, text);
  EXPECT_EQ(iterator.next()->end, (1U << 20) - 1);
  EXPECT_EQ(iterator.next()->end, 1U << 20);
  EXPECT_FALSE(iterator.next());
}

}  // namespace
}  // namespace temper
