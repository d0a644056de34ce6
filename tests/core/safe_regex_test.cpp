#include "temper/core/safe_regex.h"

#include <gtest/gtest.h>

#include <string>

#include "error_of.h"
#include "temper/core/error.h"

namespace temper {
namespace {

TEST(SafeRegex, SearchesAndMatchesWhole) {
  const SafeRegex digits("\\d+");
  EXPECT_TRUE(digits.search("a12b"));
  EXPECT_FALSE(digits.search("ab"));
  EXPECT_FALSE(digits.matches("a12b"));
  EXPECT_FALSE(digits.matches("12b"));
  EXPECT_TRUE(digits.matches("12"));
  // The whole text even where a shorter alternative comes first.
  EXPECT_TRUE(SafeRegex("a|ab").matches("ab"));
  EXPECT_FALSE(digits.search(""));
  EXPECT_TRUE(SafeRegex("").search(""));
}

TEST(SafeRegex, KnowsUnicodeAndOptions) {
  EXPECT_TRUE(SafeRegex("^.$").search("\xc3\xbc"));
  EXPECT_TRUE(SafeRegex("(?i)STRASSE|\xc3\x9c").search("\xc3\xbc"));
  EXPECT_FALSE(SafeRegex("a.b").search("a\nb"));
  EXPECT_TRUE(SafeRegex("(?s)a.b").search("a\nb"));
  EXPECT_FALSE(SafeRegex("^b").search("a\nb"));
  EXPECT_TRUE(SafeRegex("(?m)^b").search("a\nb"));
}

TEST(SafeRegex, InvalidBytesMatchNothing) {
  EXPECT_FALSE(SafeRegex("^.$").search("\xff"));
  EXPECT_TRUE(
      SafeRegex("b").search("\xff"
                        "b"));
}

TEST(SafeRegex, WrongPatternsSayWhere) {
  EXPECT_EQ(error_of([] { SafeRegex("a(b"); }),
            "[regex] the pattern \"a(b\" is wrong at character 3: missing closing parenthesis");
}

TEST(SafeRegex, RunawayMatchesGiveUp) {
  const SafeRegex runaway("^(a+)+$");
  const std::string text = std::string(60, 'a') + "b";
  EXPECT_EQ(error_of([&] { (void)runaway.search(text); }),
            "[regex] matching \"^(a+)+$\" against 61 bytes gave up: match limit exceeded");
}

TEST(SafeRegex, MovesKeepThePattern) {
  SafeRegex a("x");
  SafeRegex b(std::move(a));
  EXPECT_TRUE(b.search("x"));
  SafeRegex c("y");
  c = std::move(b);
  EXPECT_TRUE(c.search("x"));
}

}  // namespace
}  // namespace temper
