// Losses at the ends of what numbers can be, and with nothing to learn from.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "every_loss.h"

namespace temper {
namespace {

void expect_finite(const LossRun& run) {
  EXPECT_TRUE(std::isfinite(run.loss));
  for (const double g : run.dlp) EXPECT_TRUE(std::isfinite(g));
  for (const double g : run.dentropy) EXPECT_TRUE(std::isfinite(g));
  for (const auto& [name, value] : run.metrics) EXPECT_TRUE(std::isfinite(value)) << name;
}

PaddedRollout extreme(double log_ratio) {
  PaddedRollout r{.rows = 4, .width = 2, .length = {2, 2, 1, 2},
                  .lp = {-1e4, -1.0, -1e4, -0.5, -1e4, 0, -250.0, -250.0}, .old = {}, .ref = {},
                  .entropy = {}, .mask = {1, 1, 1, 1, 1, 1, 1, 1}, .advantages = {1, -1, -2, 2}};
  for (const double lp : r.lp) r.old.push_back(lp - log_ratio);
  for (const double lp : r.lp) r.ref.push_back(-1.0 - 1e-3 * lp);
  r.entropy.assign(8, 0.0);
  return r;
}

TEST(Extremes, HugeLogRatiosStayFinite) {
  for (const double d : {200.0, -200.0, 1e4, 0.0}) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      for (const std::string corrected : {"true", "false"}) {
        for_every_loss({"kl_coef=0.1", "entropy_coef=0.1", "kl_bias_correction=" + corrected},
                       [&](const RolloutObjective& f) {
                         expect_finite(run_loss(f, extreme(d).batch(dtype)));
                       });
      }
    }
  }
}

TEST(Extremes, APolicyFarBelowItsReferenceIsPulledUp) {
  PaddedRollout r = extreme(0);
  r.advantages.assign(4, 0.0);
  for (const std::string corrected : {"true", "false"}) {
    const LossRun run =
        run_loss(objective("dapo", {"kl_coef=0.1", "kl_bias_correction=" + corrected}), r.batch());
    EXPECT_LT(run.dlp[0], 0) << "lp = -1e4 under ref = 9";
  }
}

TEST(Extremes, MaskedTokensMayHoldAnything) {
  const PaddedRollout r = golden_rollout("plain");
  PaddedRollout dirty = r;
  const double junk[] = {std::numeric_limits<double>::quiet_NaN(),
                         -std::numeric_limits<double>::infinity(), 1e30};
  for (size_t i = 0; i < r.mask.size(); ++i) {
    if (r.mask[i] != 0) continue;
    dirty.lp[i] = dirty.old[i] = dirty.ref[i] = dirty.entropy[i] = junk[i % 3];
  }
  for_every_loss({"kl_coef=0.1", "entropy_coef=0.1", "off_policy_threshold=0.1"},
                 [&](const RolloutObjective& f) {
                   const LossRun a = run_loss(f, r.batch()), b = run_loss(f, dirty.batch());
                   EXPECT_EQ(a.loss, b.loss);
                   EXPECT_EQ(a.dlp, b.dlp);
                   EXPECT_EQ(a.metrics, b.metrics);
                 });
}

TEST(Extremes, AFullyMaskedStepIsZero) {
  PaddedRollout r = golden_rollout("plain");
  r.mask.assign(r.mask.size(), 0.0);
  for_every_loss({"kl_coef=0.1", "entropy_coef=0.1"}, [&](const RolloutObjective& f) {
    const LossRun run = run_loss(f, r.batch());
    expect_finite(run);
    EXPECT_EQ(run.loss, 0);
    for (const double g : run.dlp) EXPECT_EQ(g, 0);
    for (const double g : run.dentropy) EXPECT_EQ(g, 0);
  });
}

TEST(Extremes, GroupsWithoutVarianceMoveNothing) {
  PaddedRollout r = golden_rollout("plain");
  r.advantages.assign(r.advantages.size(), 0.0);
  for_every_loss({}, [&](const RolloutObjective& f) {
    const LossRun run = run_loss(f, r.batch());
    EXPECT_EQ(run.loss, 0);
    for (const double g : run.dlp) EXPECT_EQ(g, 0);
  });
}

TEST(FullyMaskedRows, CountAmongTheCompletions) {
  // grpo divides by all completions of the step, as TRL does; dapo by active tokens alone.
  const PaddedRollout r = golden_rollout("plain");
  ASSERT_EQ(std::accumulate(r.mask.begin() + 2 * r.width, r.mask.begin() + 3 * r.width, 0.0), 0);
  RolloutBatch b = r.batch();
  const double with = run_loss(objective("grpo", {}), b).loss;
  RolloutBatch fewer = r.batch();
  fewer.totals.sequences = 16;
  EXPECT_DOUBLE_EQ(run_loss(objective("grpo", {}), fewer).loss, with / 2);
  fewer.logprobs.mutable_grad() = at::Tensor();
  EXPECT_DOUBLE_EQ(run_loss(objective("dapo", {}), fewer).loss,
                   run_loss(objective("dapo", {}), r.batch()).loss);
}

}  // namespace
}  // namespace temper
