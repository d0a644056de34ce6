#include "temper/trainer/diagnosis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

using Change = std::function<void(int64_t, Metrics&)>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// A run that learns: reward up, entropy down to a half, KL up to 0.1, lengths up by a third, with
/// noise that the step alone decides.
Metrics healthy(int64_t step) {
  RngStream random(1, RngPurpose::kTest, static_cast<uint64_t>(step));
  const auto noise = [&](double size) { return size * (2 * random.next_uniform() - 1); };
  const double t = static_cast<double>(step) / 200;
  Metrics m;
  m["reward"] = 0.2 + 0.6 * t + noise(0.05);
  m["frac_reward_zero_std"] = 0.4 + noise(0.3);
  m["completions/clipped_ratio"] = 0.1 + noise(0.1);
  m["completions/mean_length"] = 60 + 20 * t + noise(8);
  m["kl"] = std::max(0.0, 0.1 * t + noise(0.002));
  m["entropy"] = 1.2 - 0.6 * t + noise(0.1);
  m["grad_norm"] = 0.8 + noise(0.6);
  m["loss"] = 0.02 + noise(0.005);
  m["sampling/mismatched_tokens"] = 0;
  m["frac_reward_nan"] = 0;
  return m;
}

std::vector<Alarm> run(Diagnosis& diagnosis, const Change& change, int64_t first = 1,
                       int64_t last = 200) {
  std::vector<Alarm> all;
  for (int64_t step = first; step <= last; ++step) {
    Metrics m = healthy(step);
    change(step, m);
    for (Alarm& alarm : diagnosis.check(step, m)) all.push_back(std::move(alarm));
  }
  return all;
}

std::vector<Alarm> run(const Change& change, DiagnosisConfig config = {}) {
  Diagnosis diagnosis(std::move(config));
  return run(diagnosis, change);
}

TEST(Diagnosis, HealthyRunRaisesNothing) {
  for (const Alarm& alarm : run([](int64_t, Metrics&) {})) {
    ADD_FAILURE() << alarm.kind << " at " << alarm.step << ": " << alarm.sentence;
  }
}

struct Broken {
  const char* kind;
  int64_t at;        ///< Step of the alarm.
  const char* says;  ///< Words that the sentence must have.
  Change change;
};

// What goes wrong from step 50 on raises its own sentence, at the step that the thresholds give,
// and nothing else. Patience is 5 by default: a slow finding that begins at 50 is reported at 54.
TEST(Diagnosis, EachBrokenRunRaisesExactlyItsSentence) {
  const auto from = [](int64_t begin, const char* name, std::function<double(double)> value) {
    return [=](int64_t step, Metrics& m) {
      if (step >= begin) m[name] = value(static_cast<double>(step - begin));
    };
  };
  const auto constant = [](double v) { return [v](double) { return v; }; };
  const std::vector<Broken> cases = {
      {"truncation", 50, "raise rollout.max_new_tokens",
       [](int64_t step, Metrics& m) {
         if (step < 50) return;
         m["completions/clipped_ratio"] = m["frac_reward_zero_std"] = 1;
         m["reward"] = 0;
       }},
      {"dead_groups", 54, "all advantages are 0", from(50, "frac_reward_zero_std", constant(1))},
      {"mostly_dead_groups", 54, "In 90 % of the groups",
       from(50, "frac_reward_zero_std", constant(0.9))},
      {"kl_runaway", 54, "above diagnosis.kl_limit", from(50, "kl", constant(0.6))},
      {"kl_negative", 69, "cannot be", from(50, "kl", constant(-0.001))},
      {"entropy_collapse", 54, "explores no more", from(50, "entropy", constant(0.1))},
      {"entropy_explosion", 54, "turning to noise", from(50, "entropy", constant(5))},
      {"reward_nan", 50, "not numbers", from(50, "reward", constant(kNan))},
      {"reward_nan", 50, "(25 % of them)", from(50, "frac_reward_nan", constant(0.25))},
      {"grad_nan", 50, "not a number", from(50, "grad_norm", constant(kNan))},
      {"grad_spike", 50, "jumped to 100",
       [](int64_t step, Metrics& m) {
         if (step == 50) m["grad_norm"] = 100;
       }},
      {"length_growth", 54, "only longer", from(50, "completions/mean_length", constant(300))},
      {"mismatched_tokens", 50, "must be 0", from(50, "sampling/mismatched_tokens", constant(2))},
      {"note/chosen_falls", 54, "answers that nobody rated",
       [](int64_t step, Metrics& m) {
         m["rewards/chosen"] = step < 50 ? 0 : -0.5;
         m["rewards/margins"] = 1;
       }},
      {"note/loss_near_zero", 54, "Watch the reward", from(50, "loss", constant(1e-9))},
  };
  for (const Broken& c : cases) {
    const auto alarms = run(c.change);
    ASSERT_EQ(alarms.size(), 1u) << c.kind
                                 << (alarms.empty() ? "" : ", then " + alarms.back().kind);
    EXPECT_EQ(alarms[0].kind, c.kind);
    EXPECT_EQ(alarms[0].step, c.at) << c.kind;
    EXPECT_NE(alarms[0].sentence.find(c.says), std::string::npos) << alarms[0].sentence;
    EXPECT_FALSE(alarms[0].stop) << c.kind;
  }
}

// From 0.012 at step 49, times 1.4 a step: above a tenth of the limit (0.05) and ten times the
// value of ten steps before well before the limit of 10 that is set here.
TEST(Diagnosis, ExponentialKlIsSeenBeforeItsLimit) {
  DiagnosisConfig config;
  config.kl_limit = 10;
  const auto alarms = run(
      [](int64_t step, Metrics& m) {
        if (step >= 50)
          m["kl"] = std::min(9.0, 0.012 * std::pow(1.4, static_cast<double>(step - 49)));
      },
      config);
  ASSERT_EQ(alarms.size(), 1u);
  EXPECT_EQ(alarms[0].kind, "kl_runaway");
  EXPECT_NE(alarms[0].sentence.find("running away"), std::string::npos);
  EXPECT_LT(alarms[0].step, 70);
}

TEST(Diagnosis, TruncationWithoutGroupsReadsAFlatReward) {
  const auto alarms = run([](int64_t step, Metrics& m) {
    m.erase("frac_reward_zero_std");
    m["completions/clipped_ratio"] = 1;
    if (step >= 10) m["reward"] = -1;
  });
  ASSERT_EQ(alarms.size(), 1u);
  EXPECT_EQ(alarms[0].kind, "truncation");
  EXPECT_EQ(alarms[0].step, 11);
}

// Fixed-length sampling cuts everything off, yet rewards differ: nothing is wrong.
TEST(Diagnosis, TruncationAloneIsNoFinding) {
  EXPECT_TRUE(run([](int64_t, Metrics& m) { m["completions/clipped_ratio"] = 1; }).empty());
}

// Losses without a reference call a log-prob a reward: it is never above 0.
TEST(Diagnosis, LogProbsThatAreCalledRewardsAreNoFinding) {
  EXPECT_TRUE(run([](int64_t, Metrics& m) {
                m["rewards/chosen"] = -2;
                m["rewards/margins"] = 1;
              }).empty());
}

TEST(Diagnosis, ReportedAgainOnlyAfterItWasGone) {
  const auto alarms = run([](int64_t step, Metrics& m) {
    // Gone for 2 steps (flickering), then for 30.
    const bool bad = (step >= 20 && step < 40 && step % 10 < 8) || (step >= 70 && step < 90);
    if (bad) m["sampling/mismatched_tokens"] = 1;
  });
  ASSERT_EQ(alarms.size(), 2u);
  EXPECT_EQ(alarms[0].step, 20);
  EXPECT_EQ(alarms[1].step, 70);
}

TEST(Diagnosis, StopsWhenAFindingLasts) {
  DiagnosisConfig config;
  config.action = "stop";
  config.stop_after = 8;
  const auto alarms = run(
      [](int64_t step, Metrics& m) {
        m["loss"] = 0;
        if (step >= 50) m["kl"] = 2;
      },
      config);
  ASSERT_EQ(alarms.size(), 3u);
  EXPECT_EQ(alarms[0].kind, "note/loss_near_zero") << "a note never stops a run";
  EXPECT_EQ(alarms[1].step, 54);
  EXPECT_FALSE(alarms[1].stop);
  EXPECT_EQ(alarms[2].step, 57);
  EXPECT_TRUE(alarms[2].stop);
}

TEST(Diagnosis, SilentKindsAreNotReported) {
  DiagnosisConfig config;
  config.silent = {"dead_groups"};
  EXPECT_TRUE(run([](int64_t, Metrics& m) { m["frac_reward_zero_std"] = 1; }, config).empty());
}

TEST(Diagnosis, NoMetricsNoFindings) {
  Diagnosis diagnosis;
  for (int64_t step = 1; step <= 50; ++step) EXPECT_TRUE(diagnosis.check(step, {}).empty());
}

// Whatever the step of the cut, a restored diagnosis goes on as the one that was never stopped.
TEST(Diagnosis, StateContinuesExactly) {
  const Change change = [](int64_t step, Metrics& m) {
    if (step >= 30 && step < 60) m["frac_reward_zero_std"] = 1;
    if (step >= 40) m["kl"] = 0.04 * std::pow(1.5, static_cast<double>(step - 40));
    if (step == 77) m["grad_norm"] = 1000;
    if (step >= 80) m["completions/mean_length"] = 1000;
  };
  DiagnosisConfig config;
  config.action = "stop";
  Diagnosis whole(config);
  const auto expected = run(whole, change, 1, 120);
  ASSERT_GE(expected.size(), 5u);
  for (int64_t cut = 1; cut < 120; cut += 7) {
    Diagnosis first(config);
    auto alarms = run(first, change, 1, cut);
    const std::string stored = first.state().dump();
    EXPECT_LT(stored.size(), 2000u);
    Diagnosis second(config);
    second.restore(nlohmann::ordered_json::parse(stored));
    for (Alarm& alarm : run(second, change, cut + 1, 120)) alarms.push_back(std::move(alarm));
    ASSERT_EQ(alarms.size(), expected.size()) << cut;
    for (size_t i = 0; i < alarms.size(); ++i) {
      EXPECT_EQ(alarms[i].step, expected[i].step);
      EXPECT_EQ(alarms[i].sentence, expected[i].sentence);
      EXPECT_EQ(alarms[i].stop, expected[i].stop);
    }
    EXPECT_EQ(second.state(), whole.state());
  }
}

TEST(Diagnosis, MalformedStateAndConfigAreErrors) {
  Diagnosis diagnosis;
  for (const char* text : {"{}", "[]", "{\"format\":2}", "{\"format\":1,\"streaks\":3}", "null"}) {
    EXPECT_THROW(diagnosis.restore(nlohmann::ordered_json::parse(text)), Error) << text;
  }
  DiagnosisConfig config;
  config.silent = {"dead_group"};
  try {
    (void)Diagnosis(config);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("dead_groups"), std::string::npos);
  }
  config = {};
  config.patience = 0;
  EXPECT_THROW((void)Diagnosis(config), Error);
  config = {};
  config.action = "tighten";
  EXPECT_THROW((void)Diagnosis(config), Error);
  config = {};
  config.kl_limit = kNan;
  EXPECT_THROW((void)Diagnosis(config), Error);
}

TEST(Diagnosis, ConfigIsVisited) {
  DiagnosisConfig config;
  const auto fields = config_fields(config);
  EXPECT_LE(fields.size(), 15u);
  config_set(fields, "kl_limit=0.25");
  EXPECT_EQ(config.kl_limit, 0.25);
}

}  // namespace
}  // namespace temper
