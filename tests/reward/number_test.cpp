#include "temper/reward/number.h"

#include <gtest/gtest.h>

#include <cmath>

namespace temper {
namespace {

bool same(std::string_view a, std::string_view b) {
  const auto x = Number::parse(a);
  const auto y = Number::parse(b);
  return x && y && x->equals(*y) && y->equals(*x);
}

TEST(Number, EqualValuesInDifferentDress) {
  for (const auto& [a, b] : std::vector<std::pair<std::string, std::string>>{
           {"5", "5.0"},
           {"1,000.50", "1000.5"},
           {"0.5", ".5"},
           {"2/4", "0.5"},
           {"50%", "50"},
           {"$5", "5"},
           {"-$5", "-5"},
           {"$-5", "-5"},
           {"\xe2\x82\xac"
            "7",
            "7"},
           {"\xe2\x88\x92"
            "3",
            "-3"},
           {"+4", "4"},
           {"1e3", "1000"},
           {"2.5E-1", "1/4"},
           {"007", "7"},
           {"0", "-0"},
           {"0.0", "0e5"},
           {"12,345,678", "12345678"},
           {" 3 ", "3"},
           {"1/3", "2/6"},
           {"-1/2", "-0.5"},
           {"\\$9", "9"},
           {"50\\%", "50"},
           {"123456789012345678901234567890", "123456789012345678901234567890.000"}}) {
    EXPECT_TRUE(same(a, b)) << a << " and " << b;
  }
}

TEST(Number, DifferentValues) {
  for (const auto& [a, b] : std::vector<std::pair<std::string, std::string>>{
           {"5", "-5"},
           {"5", "50"},
           {"0.1", "0.10000000000000001"},
           {"1/3", "0.3333333333333333"},
           {"123456789012345678901234567890", "123456789012345678901234567891"}}) {
    EXPECT_FALSE(same(a, b)) << a << " and " << b;
  }
}

TEST(Number, WhatIsNoNumber) {
  for (const std::string text :
       {"",   " ",   "x",     "5x", "1,2", "1,2345", "5.",     "--5",  "$$5", "1/0", "1/2/3", "e5",
        "5e", "- 5", "1 000", "%",  "5 %", "1e999",  "1e-999", "0x10", "inf", "nan", "1.2.3"}) {
    EXPECT_FALSE(Number::parse(text)) << text;
  }
  EXPECT_TRUE(Number::parse(std::string(400, '7')));
  EXPECT_FALSE(Number::parse(std::string(401, '7')));
}

TEST(Number, ValueAndTolerance) {
  EXPECT_DOUBLE_EQ(Number::parse("-1,234.5")->value(), -1234.5);
  EXPECT_DOUBLE_EQ(Number::parse("1/8")->value(), 0.125);
  EXPECT_EQ(Number::parse("0")->value(), 0.0);
  const Number reference = *Number::parse("200");
  EXPECT_TRUE(Number::parse("201.9")->near(reference, 0.01));   // 1.9 <= 0.01 * 200
  EXPECT_FALSE(Number::parse("202.1")->near(reference, 0.01));  // 2.1 > 2
  const Number small = *Number::parse("0.1");
  EXPECT_TRUE(Number::parse("0.105")->near(small, 0.01));  // Absolute below 1.
  EXPECT_FALSE(Number::parse("0.12")->near(small, 0.01));
}

void expect_answer(const std::string& text, const std::string& want) {
  const auto got = answer_number(text);
  if (want.empty()) {
    EXPECT_FALSE(got) << text;
    return;
  }
  ASSERT_TRUE(got) << text;
  EXPECT_TRUE(got->equals(*Number::parse(want))) << text << " gave " << got->value();
}

TEST(AnswerNumber, BehindHashes) {
  expect_answer("1+1=2\n#### 72", "72");
  expect_answer("####-1,234.50 dollars", "-1234.5");
  expect_answer("#### 1\n#### 2", "2");
  expect_answer("#### 5 and then 9", "5");
  expect_answer("#### **$8**", "8");
  expect_answer("##### 6", "6");
  expect_answer("#### 3/4", "0.75");
  expect_answer("#### 5/7/2020", "5");  // A date is no fraction.
  // A heading is no answer: the next rule decides.
  expect_answer("#### Step 2\nso it is 11", "11");
  expect_answer("it is 3\n####", "3");
  expect_answer("#### \\boxed{4} or 5", "4");
}

TEST(AnswerNumber, InTheLastBox) {
  expect_answer("so \\boxed{42} (not 7)", "42");
  expect_answer("\\boxed{1} then \\boxed{2}", "2");
  expect_answer("\\boxed {5}", "5");
  expect_answer("\\boxed{\\frac{3}{4}}", "0.75");
  expect_answer("\\boxed{-\\dfrac{1}{2}}", "-0.5");
  expect_answer("\\boxed{\\frac{\\text{a}1}{2}}", "0.5");
  expect_answer("\\boxed{\\$1{,}234.5}", "1234.5");
  expect_answer("\\boxed{1\\,234}", "1234");
  expect_answer("\\boxed{50\\%}", "50");
  expect_answer("\\boxed{x = 5}", "5");
  expect_answer("\\boxed{\\text{about } 12 \\text{ km}}", "12");
  expect_answer("\\boxed{72 apples}", "72");
  expect_answer("\\boxed{90^\\circ}", "90");
  expect_answer("\\boxed{$7$}", "7");
  // A closed box that holds no number is the answer, and a wrong one.
  expect_answer("5 \\boxed{\\pi}", "");
  expect_answer("5 \\boxed{}", "");
  expect_answer("5 \\boxed{(1, 2)}", "");
  expect_answer("5 \\boxed{2x}", "");
  expect_answer("5 \\boxed{x^2}", "");
  // An open box does not count.
  expect_answer("\\boxed{3} or \\boxed{4", "3");
  expect_answer("\\boxed{4", "4");
}

TEST(AnswerNumber, LastOfTheText) {
  expect_answer("First 3, then 4. The answer is 12.", "12");
  expect_answer("12", "12");
  expect_answer("That makes $1,250.00!", "1250");
  expect_answer("it fell to -3 degrees", "-3");
  expect_answer("-$3", "-3");
  expect_answer("$-3", "-3");
  expect_answer("-\\$3", "-3");
  expect_answer("9-4", "4");
  expect_answer("x-4", "4");
  expect_answer("(2)-4", "4");
  expect_answer("48/2=24", "24");
  expect_answer("three quarters: 3/4", "3/4");
  expect_answer("on 5/7/2020", "2020");
  expect_answer("take x2 of 5", "5");
  expect_answer("5 of x2", "5");
  expect_answer("3\\times4", "4");
  expect_answer("**15**", "15");
  expect_answer("20%", "20");
  expect_answer(
      "\xe2\x88\x92"
      "6",
      "-6");
  expect_answer("about .75", "0.75");
  expect_answer("1, 2", "2");
  expect_answer("no number", "");
  expect_answer("", "");
  // Digits over the limit are no answer, not a reason to take an earlier one.
  expect_answer("5 then " + std::string(500, '9'), "");
}

}  // namespace
}  // namespace temper
