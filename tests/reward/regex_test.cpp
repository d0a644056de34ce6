#include "temper/reward/regex.h"

#include <gtest/gtest.h>

#include "reward_test_util.h"

namespace temper {
namespace {

TEST(Regex, SearchesAndMatchesWhole) {
  const Regex digits("\\d+");
  EXPECT_TRUE(digits.search("a12b"));
  EXPECT_FALSE(digits.search("ab"));
  EXPECT_FALSE(digits.matches("a12b"));
  EXPECT_FALSE(digits.matches("12b"));
  EXPECT_TRUE(digits.matches("12"));
  // The whole text even where a shorter alternative comes first.
  EXPECT_TRUE(Regex("a|ab").matches("ab"));
  EXPECT_FALSE(digits.search(""));
  EXPECT_TRUE(Regex("").search(""));
}

TEST(Regex, KnowsUnicodeAndOptions) {
  EXPECT_TRUE(Regex("^.$").search("\xc3\xbc"));
  EXPECT_TRUE(Regex("(?i)STRASSE|\xc3\x9c").search("\xc3\xbc"));
  EXPECT_FALSE(Regex("a.b").search("a\nb"));
  EXPECT_TRUE(Regex("(?s)a.b").search("a\nb"));
  EXPECT_FALSE(Regex("^b").search("a\nb"));
  EXPECT_TRUE(Regex("(?m)^b").search("a\nb"));
}

TEST(Regex, InvalidBytesMatchNothing) {
  EXPECT_FALSE(Regex("^.$").search("\xff"));
  EXPECT_TRUE(
      Regex("b").search("\xff"
                        "b"));
}

TEST(Regex, WrongPatternsSayWhere) {
  EXPECT_EQ(error_of([] { Regex("a(b"); }),
            "[regex] the pattern \"a(b\" is wrong at character 3: missing closing parenthesis");
}

TEST(Regex, RunawayMatchesGiveUp) {
  const Regex runaway("^(a+)+$");
  const std::string text = std::string(60, 'a') + "b";
  EXPECT_EQ(error_of([&] { (void)runaway.search(text); }),
            "[regex] matching \"^(a+)+$\" against 61 bytes gave up: match limit exceeded");
}

TEST(Regex, MovesKeepThePattern) {
  Regex a("x");
  Regex b(std::move(a));
  EXPECT_TRUE(b.search("x"));
  Regex c("y");
  c = std::move(b);
  EXPECT_TRUE(c.search("x"));
}

}  // namespace
}  // namespace temper
