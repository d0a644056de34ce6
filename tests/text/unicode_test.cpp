#include "temper/text/unicode.h"

#include <gtest/gtest.h>

#include <string>

namespace temper::unicode {
namespace {

const std::string kBad = "\xEF\xBF\xBD";

TEST(Unicode, ReplacesEachMaximalSubpart) {
  // Unicode 15, tables 3-8 to 3-11.
  EXPECT_EQ(to_valid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a" + kBad + kBad + kBad + "b" + kBad + "c" + kBad + kBad + "d");
  EXPECT_EQ(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(to_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            kBad + kBad + kBad + kBad + kBad + "A" + kBad + kBad + "B");
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), kBad + kBad + kBad + kBad + "A");
}

TEST(Unicode, AcceptsTheEndsOfEveryRange) {
  for (const char32_t c :
       {0x0U, 0x7FU, 0x80U, 0x7FFU, 0x800U, 0xD7FFU, 0xE000U, 0xFFFFU, 0x10000U, 0x10FFFFU}) {
    std::string text;
    append_code_point(&text, c);
    EXPECT_EQ(sequence_length(text), text.size());
    size_t at = 0;
    EXPECT_EQ(next_code_point(text, &at), c);
    EXPECT_EQ(at, text.size());
    EXPECT_EQ(previous_start(text, text.size()), 0U);
    for (size_t n = 1; n < text.size(); ++n) {
      EXPECT_TRUE(is_incomplete_prefix(std::string_view(text).substr(0, n)));
    }
    EXPECT_FALSE(is_incomplete_prefix(text));
  }
  EXPECT_FALSE(is_incomplete_prefix("\xED\xA0"));  // a surrogate's beginning
  EXPECT_FALSE(is_incomplete_prefix("\x80"));
  EXPECT_FALSE(is_incomplete_prefix(""));
}

TEST(Unicode, KnowsWhiteSpace) {
  for (const char32_t c : {0x9U, 0xDU, 0x20U, 0x85U, 0xA0U, 0x1680U, 0x2000U, 0x200AU, 0x2028U,
                           0x2029U, 0x202FU, 0x205FU, 0x3000U}) {
    EXPECT_TRUE(is_white_space(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x8U, 0xEU, 0x1CU, 0x180EU, 0x200BU, 0x2060U, 0xFEFFU}) {
    EXPECT_FALSE(is_white_space(c)) << std::hex << static_cast<uint32_t>(c);
  }
}

TEST(Unicode, KnowsNumbersAndWords) {
  for (const char32_t c : {0x30U, 0xB2U, 0xBDU, 0x663U, 0x2167U, 0xFF11U, 0x1E4F0U, 0x11DE0U}) {
    EXPECT_TRUE(is_numeric(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x4E00U, 0x61U, 0x2FU, 0x3AU}) {
    EXPECT_FALSE(is_numeric(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x5FU, 0x61U, 0x301U, 0x663U, 0x24D0U, 0x200DU, 0x4E00U, 0x2167U}) {
    EXPECT_TRUE(is_word(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x20U, 0x2DU, 0xB2U, 0xBDU, 0x3000U, 0x1F600U}) {
    EXPECT_FALSE(is_word(c)) << std::hex << static_cast<uint32_t>(c);
  }
}

TEST(Unicode, Normalizes) {
  EXPECT_EQ(normalize("e\u0301", Form::kNfc), "\u00e9");
  EXPECT_EQ(normalize("\u00e9", Form::kNfd), "e\u0301");
  EXPECT_EQ(normalize("\u1112\u1161\u11ab", Form::kNfc), "\ud55c");
  EXPECT_EQ(normalize("\ud55c", Form::kNfd), "\u1112\u1161\u11ab");
  EXPECT_EQ(normalize("\u212b\u2126", Form::kNfc), "\u00c5\u03a9");
  EXPECT_EQ(normalize("\ufb01\u00b2", Form::kNfc), "\ufb01\u00b2");
  EXPECT_EQ(normalize("\ufb01\u00b2", Form::kNfkc), "fi2");
  // Marks are put into the order of their classes (below before above), then composed.
  EXPECT_EQ(normalize("o\u0302\u0323", Form::kNfd), "o\u0323\u0302");
  EXPECT_EQ(normalize("o\u0302\u0323", Form::kNfc), "\u1ed9");
  EXPECT_EQ(normalize("\u0915\u093c", Form::kNfc), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(normalize(std::string("a\0b\u0301", 5), Form::kNfc), std::string("a\0b\u0301", 5));
}

// Golden: tokenizers 0.23. U+0EBA (Unicode 12) would go before U+0301 by the current standard.
TEST(Unicode, LeavesYoungMarksInPlace) {
  EXPECT_EQ(normalize("a\u0301\u0eba", Form::kNfd), "a\u0301\u0eba");
  EXPECT_EQ(normalize("e\u0eba\u0301", Form::kNfc), "e\u0eba\u0301");
  EXPECT_EQ(normalize("e\u0301\u0eba", Form::kNfc), "\u00e9\u0eba");
}

TEST(Unicode, OrdersAMillionMarks) {
  std::string mixed;
  std::string below;
  std::string above;
  for (int i = 0; i < 500'000; ++i) {
    mixed += "\u0301\u0323";
    below += "\u0323";
    above += "\u0301";
  }
  EXPECT_EQ(normalize(mixed, Form::kNfd), below + above);
}

TEST(Unicode, Lowers) {
  EXPECT_EQ(to_lower("ABC\u00c9\u0130\u1e9e\u03a3"), "abc\u00e9i\u0307\u00df\u03c3");
}

}  // namespace
}  // namespace temper::unicode
