#include "temper/trainer/progress.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

namespace temper {
namespace {

const Metrics kMetrics{{"reward", 0.73219},
                       {"kl", 0.00412},
                       {"loss", 0.5},
                       {"tokens_per_second", 812.4},
                       {"sampling/mismatched_tokens", 0}};

TEST(Progress, Durations) {
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(187), "3m07s");
  EXPECT_EQ(format_duration(7500), "2h05m");
  EXPECT_EQ(format_duration(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(format_duration(-1), "-");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "-");
}

TEST(Progress, FullLine) {
  EXPECT_EQ(format_progress({120, 400, 1.92, 0, kMetrics, {}}, 2.0, 200),
            "[======>             ] 120/400  reward 0.7322  kl 0.00412  mismatched 0  812 tok/s  "
            "1.92 s/step  left 9m20s");
  EXPECT_EQ(format_progress({400, 400, 1.92, 0, {}, {}}, 2.0, 200),
            "[====================] 400/400  1.92 s/step  left 0s");
}

TEST(Progress, LossWhereThereIsNoReward) {
  const Metrics metrics{{"loss", 0.69}, {"rewards/accuracies", 0.5}};
  EXPECT_EQ(format_progress({1, 2, 1, 0, metrics, {}}, 1.0, 200),
            "[==========>         ] 1/2  loss 0.69  accuracy 0.5  1.00 s/step  left 1s");
}

TEST(Progress, SpeedOfTheRolloutWhereThereIsNoOther) {
  const Metrics metrics{{"rollout/tokens_per_second", 99.6}};
  EXPECT_EQ(format_progress({2, 2, 1, 0, metrics, {}}, 1.0, 200),
            "[====================] 2/2  100 tok/s  1.00 s/step  left 0s");
}

TEST(Progress, NeverWiderThanTheTerminal) {
  for (int width = 0; width < 130; ++width) {
    EXPECT_LE(format_progress({1, 2, 1, 0, kMetrics, {}}, 1.0, width).size(),
              static_cast<size_t>(width));
  }
}

TEST(Progress, TerminalRewritesOneLineAndAlarmsStandAlone) {
  std::ostringstream out;
  ProgressObserver progress(out, true, 120);
  progress.on_step({1, 2, 1, 0, {}, {}});
  progress.on_alarm({1, "truncation", "All cut off.", false});
  progress.on_step({2, 2, 1, 0, {}, {}});
  progress.on_end({2, 2, 61, true, ""});
  EXPECT_EQ(out.str(),
            "\r[==========>         ] 1/2  1.00 s/step  left 1s\x1b[K"
            "\r\x1b[Kwarning [truncation] step 1: All cut off.\n"
            "\r[====================] 2/2  1.00 s/step  left 0s\x1b[K"
            "\r\x1b[Kdone: 2 of 2 steps in 1m01s\n");
}

TEST(Progress, ElsewhereOneLineAStep) {
  std::ostringstream out;
  ProgressObserver progress(out, false, 120);
  progress.on_step({1, 2, 1, 0, {}, {}});
  const Metrics none;
  progress.on_eval({1, "held-out", 13, 40, 1, none});
  progress.on_alarm({1, "kl_runaway", "Too far.", true});
  EXPECT_EQ(out.str(),
            "[==========>         ] 1/2  1.00 s/step  left 1s\n"
            "eval after step 1, held-out: 13 of 40 right (32.5 %)\n"
            "STOP [kl_runaway] step 1: Too far.\n");
}

}  // namespace
}  // namespace temper
