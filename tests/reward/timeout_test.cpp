// A reward that hangs is one that waits for a latch, which the test opens at its end.
#include "temper/reward/timeout.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <latch>
#include <memory>
#include <stdexcept>

#include "reward_test_util.h"

namespace temper {
namespace {

constexpr double kShort = 0.02;
constexpr double kLong = 600;

TEST(Timeout, AFunctionThatReturnsHasItsScores) {
  Batch batch;
  batch.add("one", "1", 2).add("two", "2", 3);
  const NamedReward reward = with_timeout(
      {"length", per_completion([](const Completion& c) {
         return static_cast<float>(c.ids.size()) + std::stof(c.example->answer);
       }), 0.5}, kLong);
  EXPECT_EQ(reward.name, "length");
  EXPECT_EQ(reward.weight, 0.5);
  EXPECT_EQ(reward.fn(batch.rows()), (std::vector<float>{3, 5}));
  EXPECT_EQ(reward.fn(batch.rows()), (std::vector<float>{3, 5})) << "it may be called again";
  EXPECT_EQ(reward.fn({}), std::vector<float>());
}

TEST(Timeout, WhatTheFunctionThrowsIsThrown) {
  Batch batch;
  batch.add("x");
  const NamedReward reward = with_timeout(
      {"bad", [](std::span<const Completion>) -> std::vector<float> {
         throw std::runtime_error("no such judge");
       }}, kLong);
  EXPECT_THROW((void)reward.fn(batch.rows()), std::runtime_error);
  const RewardScores s = score(std::vector{reward}, batch.rows());
  EXPECT_TRUE(std::isnan(s.at(0, 0)));
  EXPECT_NE(s.problems.front().find("no such judge"), std::string::npos);
}

TEST(Timeout, AHangIsNamedAndItsInputsLiveOn) {
  auto open = std::make_shared<std::latch>(1);
  auto seen = std::make_shared<std::promise<std::string>>();
  auto calls = std::make_shared<std::atomic<int>>(0);
  const NamedReward reward = with_timeout(
      {"judge", [open, seen, calls](std::span<const Completion> completions) {
         const int call = ++*calls;
         open->wait();
         std::string text;
         for (const Completion& c : completions) {
           text += c.prompt + c.text + c.example->answer + std::to_string(c.ids.back());
         }
         if (call == 1) seen->set_value(text);
         return std::vector<float>(completions.size(), 1.0f);
       }}, kShort);
  {
    Batch batch;
    batch.add("some text", "its answer").add("more", "42");
    EXPECT_EQ(error_of([&] { (void)score(std::vector{reward}, batch.rows()); }),
              "[score] reward \"judge\" did not return within 0.02 seconds for 2 completions");
  }  // What the caller gave is gone.
  Batch next;
  next.add("next", "row");
  EXPECT_EQ(error_of([&] { (void)score(std::vector{reward}, next.rows()); }),
            "[score] reward \"judge\" has not returned from an earlier call yet");
  EXPECT_EQ(*calls, 1) << "it never runs twice at once";
  open->count_down();
  EXPECT_EQ(seen->get_future().get(), "psome textits answer7pmore427");
}

TEST(Timeout, SaysWhere) {
  const RewardTimeout error("reward \"judge\" did not return");
  EXPECT_STREQ(error.at("step 3").what(), "[score] step 3: reward \"judge\" did not return");
}

TEST(Timeout, BadSettingsAreNamed) {
  const auto error = [](double seconds) {
    return error_of([&] { (void)with_timeout({"r", per_completion([](const auto&) { return 0.f; })}, seconds); });
  };
  EXPECT_EQ(error(0), "[with_timeout] seconds must be above 0 and below 1e9, got 0");
  EXPECT_NE(error(-1), "");
  EXPECT_NE(error(static_cast<double>(kNaN)), "");
  EXPECT_EQ(error_of([] { (void)with_timeout({"r", nullptr}, 1); }),
            "[with_timeout] reward \"r\" has no function");
}

}  // namespace
}  // namespace temper
