// A hand-worked PPO step: two rows of three and two tokens, the second of which ended by EOS.
#include <gtest/gtest.h>

#include <cmath>

#include "ppo_case.h"
#include "rollout_case.h"
#include "temper/objective/gae.h"
#include "temper/objective/kl_controller.h"
#include "temper/objective/ppo.h"
#include "temper/objective/reinforce_pp.h"
#include "temper/objective/remax.h"
#include "temper/objective/value_loss.h"

namespace temper {
namespace {

constexpr double kDigits = 6e-11;  // The worked values have ten decimals.
constexpr double kFloat = 2e-7;    // Advantages are rounded to float32.

const std::vector<double> kWhitened = {0.9966017714, 0.7177409201, 0.3876252706, -1.3081266975,
                                       -0.7938412645};

TokenCase two_rows() {
  TokenCase c;
  c.tokens.offsets = {0, 3, 5};
  c.tokens.old_logprobs = {-1.0F, -0.8F, -1.5F, -2.0F, -1.2F};
  c.tokens.ref_logprobs = {-1.1F, -0.7F, -1.5F, -2.1F, -1.0F};
  c.tokens.values = {0.2F, 0.4F, 0.6F, 0.1F, -0.2F};
  c.tokens.kl_coef = 0.1;
  c.scores = {1.0, -0.5};
  return c;
}

void expect_floats(const std::vector<float>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(double{got[i]}, want[i], kFloat) << i;
}

GaeConfig raw(double lambda = 0.95) {
  GaeConfig config;
  config.lambda = lambda;
  config.whiten = false;
  return config;
}

TEST(HandWorkedPpo, RewardsDeltasAdvantagesReturns) {
  const TokenCase c = two_rows();
  TokenCase no_values = c;
  no_values.tokens.values.assign(5, 0.0F);
  // Without values and with lambda 0 an advantage is the token's reward.
  expect_floats(Gae(raw(0))(no_values.table()).tokens, {-0.01, 0.01, 1.0, -0.01, -0.48});
  expect_floats(Gae(raw(0))(c.table()).tokens, {0.19, 0.21, 0.40, -0.31, -0.28});
  const Advantages a = Gae(raw())(c.table());
  expect_floats(a.tokens, {0.7505, 0.59, 0.40, -0.576, -0.28});
  expect_floats(a.returns, {0.9505, 0.99, 1.0, -0.476, -0.48});
  EXPECT_EQ(a.rewards, c.scores);
  EXPECT_NEAR(a.kl_sums[0], 0.0, kFloat);
  EXPECT_NEAR(a.kl_sums[1], -0.1, kFloat);
  EXPECT_NEAR(a.shaped_rewards[0], 1.0, kFloat);
  EXPECT_NEAR(a.shaped_rewards[1], -0.49, kFloat);
  EXPECT_NEAR(a.values[0], (0.7505 + 0.59 + 0.40) / 3, kFloat) << "the mean of the row's tokens";
  EXPECT_EQ(a.dead_groups, (std::vector<bool>{false, false}));
}

TEST(HandWorkedPpo, WhiteningIsOverTheRolloutWithBessel) {
  const Advantages a = Gae()(two_rows().table());
  expect_floats(a.tokens, kWhitened);
  expect_floats(a.returns, {0.9505, 0.99, 1.0, -0.476, -0.48});
  // The biased variance would make all of them larger by sqrt(5 / 4).
  EXPECT_NEAR(double{a.tokens[0]} * std::sqrt(1.25), 1.1142346704, 3e-7);
}

TEST(HandWorkedPpo, ATruncatedRowGoesOnWithItsBootstrapValue) {
  TokenCase c = two_rows();
  c.tokens.truncated = {1, 0};
  c.tokens.bootstrap_values = {0.7F, 9.0F};
  GaeConfig config = raw();
  config.bootstrap_truncated = true;
  expect_floats(Gae(config)(c.table()).tokens, {1.38225, 1.255, 1.1, -0.576, -0.28});
  expect_floats(Gae(raw())(c.table()).tokens, {0.7505, 0.59, 0.40, -0.576, -0.28});
}

TEST(HandWorkedPpo, AMaskedTokenIsSteppedOver) {
  TokenCase c = two_rows();
  c.tokens.mask = {1, 0, 1, 1, 1};
  const Advantages a = Gae(raw())(c.table());
  expect_floats(a.tokens, {0.77, 0, 0.40, -0.576, -0.28});
  EXPECT_EQ(a.returns[1], 0);
}

TEST(HandWorkedPpo, TrlPutsTheScoreOneStepBehindTheEnd) {
  TokenCase c = two_rows();
  c.tokens.bootstrap_values = {9.0F, 0.3F};  // Row 1 is the longest: it has no step more.
  GaeConfig config = raw();
  config.trl_compat = true;
  const Advantages a = Gae(config)(c.table());
  expect_floats(a.tokens, {0.7505, 0.59, 0.40, -0.538, -0.24});
  expect_floats(a.returns, {0.9505, 0.99, 1.0, -0.438, -0.44});
  config.whiten = true;
  expect_floats(Gae(config)(c.table()).tokens,
                {1.0049923349, 0.7159219590, 0.3737202679, -1.3156754492, -0.7789591127});
}

TEST(HandWorkedPpo, OtherEstimatorsOnTheSameRollout) {
  TokenCase c = two_rows();
  c.tokens.greedy_scores = {0.25, -1.0};
  // Rewards to go 1.0 1.01 1.0 | -0.49 -0.48.
  expect_floats(ReMax()(c.table()).tokens, {0.75, 0.76, 0.75, 0.51, 0.52});
  const double mean = 2.04 / 5;
  double squares = 0;
  const std::vector<double> to_go = {1.0, 1.01, 1.0, -0.49, -0.48};
  for (const double g : to_go) squares += (g - mean) * (g - mean);
  std::vector<double> white;
  for (const double g : to_go) white.push_back((g - mean) / std::sqrt(squares / 4 + 1e-8));
  expect_floats(ReinforcePp()(c.table()).tokens, white);
  // RLOO, one group: R = 1.0, -0.5 - 0.1 (-0.1) = -0.49.
  c.group_size = 2;
  c.tokens.greedy_scores.clear();
  const Advantages rloo = LeaveOneOutAdvantage{}(c.table());
  EXPECT_NEAR(rloo.values[0], 1.49, kFloat);
  EXPECT_NEAR(rloo.values[1], -1.49, kFloat);
  EXPECT_DOUBLE_EQ(rloo.reward_mean, 0.25) << "before the KL";
  EXPECT_TRUE(rloo.tokens.empty());
}

PaddedRollout update() {
  PaddedRollout r;
  r.rows = 2;
  r.width = 3;
  r.length = {3, 2};
  r.lp = {-0.9, -1.1, -1.3, -0.5, -1.0, 0};
  r.old = {-1.0, -0.8, -1.5, -2.0, -1.2, 0};
  r.mask = {1, 1, 1, 1, 1, 0};
  r.advantages = {kWhitened[0], kWhitened[1], kWhitened[2], kWhitened[3], kWhitened[4], 0};
  return r;
}

TEST(HandWorkedPpo, PolicyLossGradientAndMetrics) {
  const PaddedRollout r = update();
  const LossRun run = run_loss(Ppo(), r.batch());
  EXPECT_NEAR(run.loss, 0.9467871724, 2e-10);  // The advantages have ten digits, w up to 4.5.
  const std::vector<double> gradient = {-0.2202830589, -0.1063431103, 0, 1.1725234245,
                                        0.1939199820};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(run.dlp[i], gradient[i], 2 * kDigits) << i;
  const Metrics& m = run.metrics;
  EXPECT_NEAR(m.at("loss/policy_avg"), 0.9467871724, 2e-10);
  EXPECT_EQ(m.at("actor/pg_loss"), m.at("loss/policy_avg"));
  EXPECT_DOUBLE_EQ(m.at("policy/clipfrac_avg"), 0.2);
  EXPECT_DOUBLE_EQ(m.at("actor/pg_clipfrac"), 0.2);
  EXPECT_DOUBLE_EQ(m.at("actor/pg_clipfrac_lower"), 0);
  EXPECT_NEAR(m.at("actor/ppo_kl"), -0.34, kDigits);
  EXPECT_NEAR(m.at("policy/approxkl_avg"), 0.2430000000, kDigits);
  EXPECT_NEAR(m.at("policy/kl_old_new"), 0.4140967451, kDigits);
  const std::vector<double> w = {1.1051709181, 0.7408182207, 1.2214027582, 4.4816890703,
                                 1.2214027582};
  double mean = 0, off = 0;
  for (const double x : w) {
    mean += x / 5;
    off += (x - 1) * (x - 1) / 5;
  }
  EXPECT_NEAR(m.at("val/ratio"), mean, kDigits);
  EXPECT_NEAR(m.at("val/ratio_var"), off, 5 * kDigits);
  EXPECT_FALSE(m.contains("policy/entropy_avg")) << "the batch carries none";
}

TEST(HandWorkedPpo, LossOfEachToken) {
  const PolicyTokens t = policy_tokens(update().batch());
  const ImportanceRatio ratio = importance_ratio(t, ImportanceLevel::kToken);
  const auto pg = to_vector(clipped_surrogate(ratio.tokens, t.advantages, {}).detach());
  const std::vector<double> want = {-1.1014152946, -0.5317155513, -0.4651503247, 5.8626171226,
                                    0.9695999100};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(pg[i], want[i], 4e-10) << i;
}

TEST(HandWorkedPpo, DualClipBoundsTheFourthToken) {
  Ppo::Config config;
  config.dual_clip = 3;
  const LossRun run = run_loss(Ppo(config), update().batch());
  EXPECT_NEAR(run.loss, 0.5591397664, kDigits * 2);
  EXPECT_EQ(run.dlp[3], 0);
  EXPECT_NEAR(run.dlp[4], 0.1939199820, kDigits);
  EXPECT_DOUBLE_EQ(run.metrics.at("actor/pg_clipfrac_lower"), 0.2);
}

TEST(HandWorkedPpo, ValueLossGradientAndTotal) {
  ValueBatch b;
  b.values = at::tensor({0.5, 0.3, 0.9, 0.0, -0.3}, at::kDouble).set_requires_grad(true);
  b.old_values = at::tensor({0.2, 0.4, 0.6, 0.1, -0.2}, at::kDouble);
  b.returns = at::tensor({0.9505, 0.99, 1.0, -0.476, -0.48}, at::kDouble);
  b.mask = at::tensor({1.0, 1.0, 1.0, 1.0, 1.0}, at::kDouble);
  b.totals = update().batch().totals;
  const LossOutput out = value_loss(b, {.clip = 0.2, .coef = 1});
  EXPECT_NEAR(out.loss.item<double>(), 0.1078126250, kDigits);
  out.loss.backward();
  const auto gradient = to_vector(b.values.grad());
  const std::vector<double> want = {0, -0.138, 0, 0.0952, 0.036};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(gradient[i], want[i], 1e-15) << i;
  Metrics m;
  out.metrics.write_to(m);
  EXPECT_NEAR(m.at("loss/value_avg"), 0.1078126250, kDigits);
  EXPECT_EQ(m.at("critic/vf_loss"), m.at("loss/value_avg"));
  EXPECT_DOUBLE_EQ(m.at("val/clipfrac_avg"), 0.4);
  EXPECT_DOUBLE_EQ(m.at("critic/vf_clipfrac"), 0.4);

  const LossOutput weighted = value_loss(b, {});  // coef 0.1
  const double policy = run_loss(Ppo(), update().batch()).loss;
  EXPECT_NEAR(policy + weighted.loss.item<double>(), 0.9575684349, 2e-10);
}

TEST(HandWorkedPpo, Controllers) {
  const auto after = [](const KlControllerConfig& config, double initial, double kl) {
    KlController c(config, initial);
    c.update(kl, 64);
    return c.coef();
  };
  KlControllerConfig adaptive;
  adaptive.kind = "adaptive";
  EXPECT_NEAR(after(adaptive, 0.2, 12), 0.2002560000, 1e-16);
  EXPECT_EQ(after(adaptive, 0.2, 6), 0.2);
  EXPECT_NEAR(after(adaptive, 0.2, 3), 0.1997440000, 1e-16);
  KlControllerConfig dual;
  dual.kind = "dual";
  dual.target = 0.1;
  EXPECT_NEAR(after(dual, 0.05, 0.35), 0.0512657560, kDigits);
  EXPECT_NEAR(after(dual, 0.05, 0.05), 0.0497506240, kDigits);
}

}  // namespace
}  // namespace temper
