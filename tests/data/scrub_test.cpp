#include "temper/data/scrub.h"

#include "data_test_util.h"

namespace temper {
namespace {

std::string clean(std::string_view text, ScrubCounts* counts = nullptr) {
  ScrubCounts own;
  return scrub_personal_data(text, counts == nullptr ? own : *counts);
}

TEST(Scrub, ReplacesEachKindAndCountsIt) {
  ScrubCounts counts;
  EXPECT_EQ(clean("Write to <ann.b+c@mail.example.org>, or call +49 (0)30 1234567.", &counts),
            "Write to <[EMAIL]>, or call [PHONE].");
  EXPECT_EQ(counts, (ScrubCounts{.emails = 1, .phones = 1}));
  // 4111 1111 1111 1111 is the usual test number: digits doubled from the right give 30.
  EXPECT_EQ(clean("card 4111 1111 1111 1111, IBAN GB82 WEST 1234 5698 7654 32 is mine", &counts),
            "card [CARD], IBAN [IBAN] is mine");
  EXPECT_EQ(counts, (ScrubCounts{.emails = 1, .phones = 1, .cards = 1, .ibans = 1}));
  EXPECT_EQ(counts.all(), 4u);
}

TEST(Scrub, NumbersOfOtherKindsStay) {
  for (const char* text :
       {"4111 1111 1111 1112 fails the Luhn check", "GB83WEST12345698765432 leaves another rest",
        "123 + 456 = 579", "on 2024-01-02 at 10:30", "3.14159265358979", "1,234,567.89",
        "ids 1234567890123456789012", "mail@host without a dot", "@handle and a@b",
        "version 10.20.30.40", "x = 555-1234", "call 911", "pages 100-200", "#### 70000"}) {
    EXPECT_EQ(clean(text), text);
  }
}

TEST(Scrub, TelephoneNumbersInTheirForms) {
  for (const char* text : {"+14155550123", "+1 415 555 0123", "0049 30 1234567", "030 1234567",
                           "(415) 555-0123", "415-555-0123", "415.555.0123"}) {
    EXPECT_EQ(clean(text), "[PHONE]") << text;
    EXPECT_EQ(clean(concat("a ", text, ", b")), "a [PHONE], b") << text;
  }
}

TEST(Scrub, TwiceIsOnce) {
  for (const char* text :
       {"030 1234567 4111 1111 1111 1111", "a@b.cc+4915112345678", "x@y.de9@z.fr",
        "GB82WEST12345698765432 GB82 WEST 1234 5698 7654 32 AND MORE"}) {
    const std::string once = clean(text);
    EXPECT_NE(once, text);
    EXPECT_EQ(clean(once), once) << text;
  }
}

}  // namespace
}  // namespace temper
