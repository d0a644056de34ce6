// Hand-worked examples: two completions of one prompt, and advantages of two prompts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "rollout_case.h"
#include "temper/objective/advantage.h"
#include "temper/objective/rollout_objectives.h"

namespace temper {
namespace {

constexpr double kDigits = 6e-11;  // The worked values have ten decimals.

PaddedRollout two_completions() {
  PaddedRollout r;
  r.rows = 2;
  r.width = 3;
  r.length = {3, 3};
  r.lp = {-0.9, -1.6, -0.4, -2.1, -0.7, -1.2};
  r.old = {-1.0, -1.2, -0.5, -1.5, -1.0, -1.2};
  r.mask = {1, 1, 1, 1, 1, 0};
  const double a = 0.5 / (std::sqrt(0.5) + 1e-4);
  r.advantages = {a, -a};
  return r;
}

PaddedRollout with_reference() {
  PaddedRollout r = two_completions();
  r.ref = {-1.1, -1.3, -0.6, -1.4, -0.9, -1.0};
  return r;
}

struct Setting {
  std::string loss;
  std::vector<std::string> assignments;
};

LossRun run(const PaddedRollout& r, const Setting& setting) {
  RolloutLoss loss(setting.loss);
  for (const std::string& a : setting.assignments) config_set(config_fields(loss), a);
  RolloutBatch b = r.batch();
  b.totals.max_completion_tokens = 4;
  return run_loss(loss.build(), b);
}

void expect_gradient(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], kDigits) << i;
}

TEST(HandWorkedLoss, TokenLevelValues) {
  const PaddedRollout r = two_completions();
  EXPECT_NEAR(run(r, {"dapo", {}}).loss, -0.1033365480, kDigits);
  EXPECT_NEAR(run(r, {"bnpo", {}}).loss, -0.1033365480, kDigits);
  EXPECT_NEAR(run(r, {"grpo", {}}).loss, 0.0405499422, kDigits);
  EXPECT_NEAR(run(r, {"dr_grpo", {}}).loss, -0.0645853425, kDigits);
  EXPECT_NEAR(run(r, {"luspo", {"importance_level=token"}}).loss, -0.2583413699, kDigits);
  EXPECT_NEAR(run(r, {"cispo", {}}).loss, 0.0582331331, kDigits);
  EXPECT_NEAR(run(r, {"sapo", {}}).loss, -0.0370676166, kDigits);
  const LossRun vespo = run(r, {"vespo", {}});
  EXPECT_NEAR(vespo.loss, 0.2031709927, kDigits);
  EXPECT_NEAR(vespo.metrics.at("vespo/phi_seq_mean"), (1.1546620927 + 0.6827432253) / 2, kDigits);
}

TEST(HandWorkedLoss, GradientStopsAtTheClipBounds) {
  const LossRun dapo = run(two_completions(), {"dapo", {}});
  expect_gradient(dapo.dlp, {-0.1562726698, -0.0947841655, -0.1562726698, 0, 0.1908718699, 0});
  const LossRun delta = run(two_completions(), {"dapo", {"delta=1.15"}});
  EXPECT_NEAR(delta.loss, -0.1245267870, kDigits);
  expect_gradient(delta.dlp, {-0.1562726698, -0.0947841655, -0.1562726698, 0, 0, 0});
}

TEST(HandWorkedLoss, ClipMetrics) {
  const Metrics m = run(two_completions(), {"dapo", {}}).metrics;
  EXPECT_DOUBLE_EQ(m.at("clip_ratio/low_mean"), 0.2);
  EXPECT_DOUBLE_EQ(m.at("clip_ratio/high_mean"), 0);
  EXPECT_DOUBLE_EQ(m.at("clip_ratio/low_min"), 0);
  EXPECT_DOUBLE_EQ(m.at("clip_ratio/high_max"), 0);
  EXPECT_DOUBLE_EQ(m.at("clip_ratio/region_mean"), 0.2);
  EXPECT_NEAR(m.at("policy_loss"), -0.1033365480, kDigits);
}

TEST(HandWorkedLoss, TheClipFlagIsReadAfterDelta) {
  PaddedRollout r = two_completions();
  r.lp[0] = r.old[0] + std::log(1.3);  // A > 0, above 1.2
  EXPECT_DOUBLE_EQ(run(r, {"dapo", {}}).metrics.at("clip_ratio/high_mean"), 0.2);
  EXPECT_DOUBLE_EQ(run(r, {"dapo", {"delta=1.25"}}).metrics.at("clip_ratio/high_mean"), 0.2);
  EXPECT_DOUBLE_EQ(run(r, {"dapo", {"delta=1.15"}}).metrics.at("clip_ratio/high_mean"), 0);
  EXPECT_DOUBLE_EQ(run(r, {"dapo", {}}).metrics.at("clip_ratio/high_max"), 1.0 / 3);
}

TEST(HandWorkedLoss, SequenceLevel) {
  const PaddedRollout r = two_completions();
  EXPECT_NEAR(run(r, {"gspo", {"clip_low=0.2", "clip_high=0.2"}}).loss, -0.0264417037, kDigits);
  const LossRun dapo = run(r, {"dapo", {"importance_level=sequence"}});
  EXPECT_NEAR(dapo.loss, -0.1534353220, kDigits);
  expect_gradient(dapo.dlp, {-0.1322819591, -0.1322819591, -0.1322819591, 0.1217052776,
                             0.1217052776, 0});
}

TEST(HandWorkedLoss, KlWithAndWithoutCorrection) {
  const PaddedRollout r = with_reference();
  const LossRun on = run(r, {"dapo", {"kl_coef=0.04"}});
  EXPECT_NEAR(on.loss, -0.1011581661, kDigits);
  EXPECT_NEAR(on.metrics.at("kl"), 0.0544595468, kDigits);
  expect_gradient(on.dlp, {-0.1545043963, -0.0963929336, -0.1545043963, -0.0030733452,
                           0.1930316440, 0});
  const LossRun off = run(r, {"dapo", {"kl_coef=0.04", "kl_bias_correction=false"}});
  EXPECT_NEAR(off.loss, -0.0999781178, kDigits);
  EXPECT_NEAR(off.metrics.at("kl"), 0.0839607549, kDigits);
  expect_gradient(off.dlp, {-0.1548225158, -0.0975830360, -0.1548225158, -0.0081100217,
                            0.1923220239, 0});
}

TEST(HandWorkedLoss, KlEstimatorsSideBySide) {
  const Metrics m = run(with_reference(), {"dapo", {}}).metrics;
  EXPECT_NEAR(m.at("kl/k1"), (0.2 - 0.3 + 0.2 - 0.7 + 0.2) / 5, kDigits);
  EXPECT_NEAR(m.at("kl/k2"), (0.02 + 0.045 + 0.02 + 0.245 + 0.02) / 5, kDigits);
  EXPECT_NEAR(m.at("kl/k3"),
              (0.0187307531 + 0.0498588076 + 0.0187307531 + 0.3137527075 + 0.0187307531) / 5,
              kDigits);
  EXPECT_FALSE(m.contains("kl")) << "kl is the loss's own term, which is off here";
}

TEST(HandWorkedLoss, MeanOfMicroBatchMeansWouldChangeTheSign) {
  const PaddedRollout r = two_completions();
  const RolloutObjective dapo = RolloutLoss("dapo").build();
  const double first = run_loss(dapo, r.batch(at::kDouble, 0, 1)).loss;
  const double second = run_loss(dapo, r.batch(at::kDouble, 1, 2)).loss;
  EXPECT_NEAR(first, -2.0366475257 / 5, kDigits);
  EXPECT_NEAR(second, 1.5199647859 / 5, kDigits);
  EXPECT_NEAR(first + second, -0.1033365480, kDigits);
}

void expect_advantages(const std::string& name, const RewardTable& table,
                       const std::vector<double>& want) {
  const Advantages a = find_advantage(name)(table);
  ASSERT_EQ(a.values.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(a.values[i], want[i], kDigits) << name << i;
}

TEST(HandWorkedAdvantages, OneReward) {
  const RewardTable t{.values = {1, 0, 0.5, 2, 2, 1}, .functions = 1, .group_size = 3,
                      .weights = {}};
  expect_advantages("group", t, {0.9998000400, -0.9998000400, 0, 0.5772502865, 0.5772502865,
                                 -1.1545005730});
  expect_advantages("batch", t, {0.6241098716, -0.6241098716, 0, 0.4160732477, 0.4160732477,
                                 -0.8321464954});
  expect_advantages("none", t, {0.5, -0.5, 0, 0.3333333333, 0.3333333333, -0.6666666667});
  expect_advantages("rloo", t, {0.75, -0.75, 0, 0.5, 0.5, -1.0});
  expect_advantages("rloo_normalized", t, {1.0349555016, -1.0349555016, 0, 0.6899703344,
                                           0.6899703344, -1.3799406688});
  const Advantages a = GroupAdvantage{}(t);
  EXPECT_NEAR(a.group_means[1], 1.6666666667, kDigits);
  EXPECT_NEAR(a.group_stds[0], 0.5, kDigits);
  EXPECT_NEAR(a.group_stds[1], 0.5773502692, kDigits);
  EXPECT_NEAR(a.reward_std, 0.8010409894, kDigits);
}

TEST(HandWorkedAdvantages, TwoRewardsDecoupled) {
  const RewardTable t{.values = {1, 0, 0, 1, 0.5, 1, 2, 0.5, 2, 0, 1, 1}, .functions = 2,
                      .group_size = 3, .weights = {1, 0.5}};
  expect_advantages("gdpo", t, {0.7624024429, -1.2831660038, 0.5207635609, 1.0415271218,
                                0.1395623395, -1.1810894613});
}

}  // namespace
}  // namespace temper
