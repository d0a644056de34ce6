// What says which of two answers is better, and which pair a group of answers makes of it.
#include "temper/trainer/labeler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "error_of.h"
#include "temper/core/error.h"

namespace temper {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::vector<Completion> answers(const std::vector<std::string>& texts) {
  std::vector<Completion> out;
  for (const auto& t : texts) {
    out.push_back({});
    out.back().text = t;
  }
  return out;
}

Labeler by_length() {
  return {.name = "length",
          .scores = per_completion(
              [](const Completion& c) { return static_cast<float>(c.text.size()); })};
}

TEST(Labeler, SumsRewardsByTheirWeights) {
  const auto constant = [](float v) { return per_completion([v](const Completion&) { return v; }); };
  const Labeler labeler = reward_labeler({{"a", constant(3), 2.0}, {"b", constant(1), -1.0}});
  EXPECT_EQ(labeler.name, "a+b");
  const std::vector<Completion> two = answers({"x", "y"});
  EXPECT_EQ(marks(labeler, two, 2), (std::vector<double>{5, 5}));
  EXPECT_NE(error_of([] { (void)reward_labeler({}); }).find("no reward"), std::string::npos);
}

TEST(Labeler, LinksMarksToProbabilities) {
  Labeler labeler = by_length();
  const auto a = answers({"xx", "x", "xxxxx"});
  const std::vector<AnswerPair> pairs{{a[0], a[1]}, {a[1], a[0]}, {a[0], a[0]}, {a[1], a[2]}};
  EXPECT_EQ(preferences(labeler, pairs), (std::vector<double>{1, 0, 0.5, 0}));
  labeler.link = bradley_terry;
  const auto p = preferences(labeler, pairs);
  EXPECT_NEAR(p[0], 1 / (1 + std::exp(-1.0)), 1e-15);
  EXPECT_NEAR(p[3], 1 / (1 + std::exp(4.0)), 1e-15);
  EXPECT_EQ(p[2], 0.5);
  EXPECT_TRUE(std::isnan(preference_by_marks(labeler, kNone, 1)));
}

TEST(Labeler, ComparesEveryTwoWhereItGivesNoMarks) {
  // Rock, paper, scissors: no mark could say this.
  int asked = 0;
  Labeler labeler{.name = "judge", .prefer = [&](std::span<const AnswerPair> pairs) {
                    std::vector<double> out;
                    for (const AnswerPair& p : pairs) {
                      ++asked;
                      const std::string both = p.first.text + p.second.text;
                      const bool wins = both == "rs" || both == "sp" || both == "pr";
                      out.push_back(p.first.text == p.second.text ? 0.5 : wins ? 1 : 0);
                    }
                    return out;
                  }};
  const auto group = answers({"r", "p", "s", /* the second group */ "r", "r", "s"});
  const auto m = marks(labeler, group, 3);
  EXPECT_EQ(asked, 6);
  EXPECT_EQ(m, (std::vector<double>{0.5, 0.5, 0.5, 0.75, 0.75, 0}));
  EXPECT_FALSE(best_against_worst(std::span(m).first(3)));
  const auto choice = best_against_worst(std::span(m).subspan(3));
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->chosen, 0u);  // Of equal marks the earlier.
  EXPECT_EQ(choice->rejected, 2u);
  EXPECT_EQ(choice->margin, 0.75);
}

TEST(Labeler, PairsLeaveOutWhatHasNoMark) {
  const std::vector<double> some{kNone, 2, kNone, -1, 2};
  const auto choice = best_against_worst(some);
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->chosen, 1u);
  EXPECT_EQ(choice->rejected, 3u);
  EXPECT_EQ(choice->margin, 3);
  EXPECT_TRUE(best_against_worst(some, 3));
  EXPECT_FALSE(best_against_worst(some, 3.5));
  EXPECT_FALSE(best_against_worst(std::vector<double>{kNone, 1}));
  EXPECT_FALSE(best_against_worst(std::vector<double>{kNone, kNone}));
  EXPECT_FALSE(best_against_worst({}));
}

TEST(Labeler, TakesAPenaltyOffCutAnswers) {
  auto a = answers({"xx", "xxx"});
  a[1].truncated = true;
  EXPECT_EQ(marks(penalize_cut_answers(by_length(), 1.5), a, 2), (std::vector<double>{2, 1.5}));
  const Labeler judge{.name = "judge",
                      .prefer = [](auto pairs) { return std::vector<double>(pairs.size(), 0.5); }};
  EXPECT_EQ(penalize_cut_answers(judge, 0).name, "judge");
  EXPECT_NE(error_of([&] { (void)penalize_cut_answers(judge, 1); }).find("no marks"),
            std::string::npos);
}

TEST(Labeler, NamesWhoBreaksTheRules) {
  const auto two = answers({"x", "y"});
  const std::vector<AnswerPair> pair{{two[0], two[1]}};
  const auto prefers = [](std::vector<double> p) {
    return Labeler{.name = "j", .prefer = [p](std::span<const AnswerPair>) { return p; }};
  };
  const auto error = [&](const Labeler& l) {
    return error_of([&] { (void)preferences(l, pair); });
  };
  EXPECT_NE(error(prefers({1.5})).find("j gave the probability 1.5"), std::string::npos);
  EXPECT_NE(error(prefers({0, 1})).find("2 labels for 1 pairs"), std::string::npos);
  EXPECT_NE(error({.name = "j"}).find("neither"), std::string::npos);
  const Labeler short_one{.name = "s",
                          .scores = [](auto) { return std::vector<float>{1}; }};
  EXPECT_NE(error_of([&] { (void)marks(short_one, two, 2); }).find("s gave 1 marks for 2"),
            std::string::npos);
  EXPECT_NE(error_of([&] { (void)marks(by_length(), two, 3); }).find("no groups of 3"),
            std::string::npos);
  const Labeler infinite{.name = "i", .scores = [](auto) {
                           return std::vector<float>{HUGE_VALF, 0};
                         }};
  EXPECT_TRUE(std::isnan(marks(infinite, two, 2)[0]));
}

}  // namespace
}  // namespace temper
