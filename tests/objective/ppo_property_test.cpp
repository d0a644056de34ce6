// What must hold of PPO's losses, value statistics and controllers without an oracle.
#include <gtest/gtest.h>

#include <cmath>

#include "ppo_case.h"
#include "rollout_case.h"
#include "temper/objective/bnpo.h"
#include "temper/objective/dapo.h"
#include "temper/objective/kl_controller.h"
#include "temper/objective/ppo.h"
#include "temper/objective/value_loss.h"
#include "temper/objective/value_norm.h"

namespace temper {
namespace {

/// Compares the gradient in `array` with central differences of the loss.
void check_differences(const RolloutObjective& f, const PaddedRollout& r,
                       std::vector<double> PaddedRollout::*array, const std::vector<double>& got) {
  constexpr double kStep = 1e-6;
  size_t token = 0;
  for (int64_t row = 0; row < r.rows; ++row) {
    for (int64_t t = 0; t < r.length[static_cast<size_t>(row)]; ++t, ++token) {
      const auto at = [&](double step) {
        PaddedRollout moved = r;
        (moved.*array)[static_cast<size_t>(row * r.width + t)] += step;
        return f(moved.batch()).loss.item<double>();
      };
      const double want = (at(kStep) - at(-kStep)) / (2 * kStep);
      EXPECT_NEAR(got[token], want, 1e-6 * std::max(0.1, std::abs(want))) << row << " " << t;
    }
  }
}

TEST(Ppo, GradientsAreDifferences) {
  Ppo::Config config;
  config.dual_clip = 1.7;
  config.clip_high = 0.28;
  config.kl_coef = 0.3;
  config.entropy_coef = 0.2;
  for (const std::string data : {"plain", "token_advantages"}) {
    SCOPED_TRACE(data);
    const PaddedRollout r = golden_rollout(data);
    const LossRun run = run_loss(Ppo(config), r.batch());
    check_differences(Ppo(config), r, &PaddedRollout::lp, run.dlp);
    check_differences(Ppo(config), r, &PaddedRollout::entropy, run.dentropy);
  }
}

TEST(Ppo, BothSidesOfTheDualClip) {
  Ppo::Config config;
  config.dual_clip = 3;
  for (const double side : {-1e-3, 1e-3}) {
    PaddedRollout r{.rows = 1, .width = 1, .length = {1}, .lp = {std::log(3.0) + side},
                    .old = {0.0}, .ref = {}, .entropy = {}, .mask = {1}, .advantages = {-1.0}};
    const LossRun run = run_loss(Ppo(config), r.batch());
    check_differences(Ppo(config), r, &PaddedRollout::lp, run.dlp);
    EXPECT_EQ(run.dlp[0] == 0, side > 0);
    EXPECT_EQ(run.metrics.at("actor/pg_clipfrac_lower"), side > 0 ? 1 : 0);
    r.advantages = {1.0};  // Bounds losses, not gains: those stop at the clip range.
    EXPECT_EQ(run_loss(Ppo(config), r.batch()).metrics.at("actor/pg_clipfrac_lower"), 0);
  }
}

TEST(Ppo, IsBnpoOnTheSameAdvantages) {
  const PaddedRollout r = golden_rollout("wide");
  const LossRun ppo = run_loss(Ppo(), r.batch()), bnpo = run_loss(Bnpo(), r.batch());
  EXPECT_EQ(ppo.loss, bnpo.loss);
  EXPECT_EQ(ppo.dlp, bnpo.dlp);
  for (const auto& [name, value] : bnpo.metrics) EXPECT_EQ(ppo.metrics.at(name), value) << name;
}

TEST(Ppo, AnInfiniteDualClipIsNone) {
  const PaddedRollout r = golden_rollout("wide");
  Ppo::Config config;
  config.dual_clip = std::numeric_limits<double>::infinity();
  const LossRun with = run_loss(Ppo(config), r.batch()), without = run_loss(Ppo(), r.batch());
  EXPECT_EQ(with.loss, without.loss);
  EXPECT_EQ(with.dlp, without.dlp);
}

TEST(Ppo, OnPolicyRatiosAreExactlyOne) {
  PaddedRollout r = golden_rollout("plain");
  r.old = r.lp;
  const LossRun run = run_loss(Ppo(), r.batch());
  EXPECT_EQ(run.metrics.at("val/ratio"), 1);
  for (const char* name : {"val/ratio_var", "policy/approxkl_avg", "policy/kl_old_new",
                           "policy/clipfrac_avg", "actor/ppo_kl"}) {
    EXPECT_EQ(run.metrics.at(name), 0) << name;
  }
  EXPECT_EQ(run.metrics.at("policy/entropy_avg"), run.metrics.at("entropy"));
}

TEST(Ppo, MicroBatchesAddUp) {
  const PaddedRollout r = golden_rollout("plain");
  const LossRun whole = run_loss(Ppo(), r.batch());
  double loss = 0;
  MetricSums sums;
  for (int64_t row = 0; row < r.rows; ++row) {
    const LossOutput out = Ppo()(r.batch(at::kDouble, row, row + 1));
    loss += out.loss.item<double>();
    sums.merge(out.metrics);
  }
  EXPECT_NEAR(loss, whole.loss, 1e-15);
  Metrics parts;
  sums.write_to(parts);
  for (const auto& [name, value] : whole.metrics) EXPECT_NEAR(parts.at(name), value, 1e-13) << name;
}

TEST(Ppo, ExtremesStayFinite) {
  PaddedRollout r = golden_rollout("plain");
  for (size_t i = 0; i < r.lp.size(); ++i) r.lp[i] = r.old[i] + (i % 2 == 0 ? 200 : -200);
  Ppo::Config config;
  config.dual_clip = 3;
  const LossRun run = run_loss(Ppo(config), r.batch());
  EXPECT_TRUE(std::isfinite(run.loss));
  for (const double g : run.dlp) EXPECT_TRUE(std::isfinite(g));
  for (const auto& [name, value] : run.metrics) EXPECT_TRUE(std::isfinite(value)) << name;
}

TEST(Ppo, BoundsOutOfRangeAreRefused) {
  Ppo::Config config;
  config.dual_clip = 1.2;
  EXPECT_EQ(error_of([&] { (void)Ppo(config); }),
            "[ppo] dual_clip must be above 1 + clip_high = 1.2, got 1.2; a negative value is off");
  config.dual_clip = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(error_of([&] { (void)Ppo(config); }), "");
}

TEST(KlScale, MultipliesTheCoefficient) {
  const PaddedRollout r = golden_rollout("plain");
  const auto run = [&](double coef, double scale) {
    Dapo::Config config;
    config.kl_coef = coef;
    RolloutBatch b = r.batch();
    b.totals.kl_scale = scale;
    return run_loss(Dapo(config), b);
  };
  const LossRun scaled = run(0.25, 2), twice = run(0.5, 1), off = run(0.25, 0), none = run(0, 1);
  EXPECT_EQ(scaled.loss, twice.loss);
  EXPECT_EQ(scaled.dlp, twice.dlp);
  EXPECT_EQ(scaled.metrics.at("kl"), twice.metrics.at("kl")) << "the KL is reported without it";
  EXPECT_EQ(off.loss, none.loss);
}

ValueBatch value_batch(const std::vector<double>& values, at::ScalarType dtype = at::kDouble) {
  const auto read = [&](std::vector<double> x) { return at::tensor(x, at::kDouble).to(dtype); };
  ValueBatch b;
  b.values = read(values).set_requires_grad(true);
  b.old_values = read({0.5, -1.0, 0.25, 2.0, 0.0, 1.0});
  b.returns = read({1.0, -1.0, 0.0, 0.5, 3.0, -2.0});
  b.mask = read({1, 1, 1, 0, 1, 1});
  b.totals.tokens = 8;
  b.totals.sequences = 2;
  return b;
}

const std::vector<double> kValues = {0.625, -1.5, 0.5, 1.0, -0.75, 1.125};

TEST(ValueLoss, GradientsAreDifferences) {
  for (const double clip : {-1.0, 0.2, 0.6}) {
    const ValueLossConfig config{.clip = clip, .coef = 0.7};
    const ValueBatch b = value_batch(kValues);
    value_loss(b, config).loss.backward();
    const auto got = to_vector(b.values.grad());
    for (size_t i = 0; i < kValues.size(); ++i) {
      const auto at = [&](double step) {
        std::vector<double> moved = kValues;
        moved[i] += step;
        return value_loss(value_batch(moved), config).loss.item<double>();
      };
      const double want = (at(1e-6) - at(-1e-6)) / 2e-6;
      EXPECT_NEAR(got[i], want, 1e-6 * std::max(0.1, std::abs(want))) << clip << " " << i;
    }
    EXPECT_EQ(got[3], 0) << "masked";
  }
}

TEST(ValueLoss, AWideClipIsNone) {
  const double off = value_loss(value_batch(kValues), {.clip = -1}).loss.item<double>();
  EXPECT_EQ(value_loss(value_batch(kValues), {.clip = 1e9}).loss.item<double>(), off);
  ValueBatch b = value_batch(kValues);
  b.old_values = at::Tensor();
  EXPECT_EQ(value_loss(b, {.clip = -1}).loss.item<double>(), off) << "nothing else reads them";
  EXPECT_EQ(error_of([&] { (void)value_loss(b, {.clip = 0.2}); }),
            "[value_loss] old_values must have shape [6] (tokens), got nothing");
}

TEST(ValueLoss, MaskedTokensReachNothing) {
  ValueBatch b = value_batch(kValues);
  const double clean = value_loss(b, {}).loss.item<double>();
  std::vector<double> values = kValues;
  values[3] = std::numeric_limits<double>::quiet_NaN();
  b = value_batch(values);
  b.returns[3] = std::numeric_limits<double>::infinity();
  const LossOutput out = value_loss(b, {});
  EXPECT_EQ(out.loss.item<double>(), clean);
  out.loss.backward();
  for (const double g : to_vector(b.values.grad())) EXPECT_TRUE(std::isfinite(g));
}

TEST(ValueLoss, AFullyMaskedMicroBatchIsADifferentiableZero) {
  ValueBatch b = value_batch(kValues);
  b.mask.zero_();
  b.totals.tokens = 0;
  const LossOutput out = value_loss(b, {});
  EXPECT_EQ(out.loss.item<double>(), 0);
  out.loss.backward();
  EXPECT_EQ(to_vector(b.values.grad()), std::vector<double>(6, 0.0));
  Metrics m;
  out.metrics.write_to(m);
  EXPECT_TRUE(m.empty()) << "a mean of nothing is left out";
}

TEST(ValueLoss, Float32GivesFloat32Gradients) {
  const ValueBatch wide = value_batch(kValues), narrow = value_batch(kValues, at::kFloat);
  const LossOutput a = value_loss(wide, {}), b = value_loss(narrow, {});
  EXPECT_NEAR(a.loss.item<double>(), b.loss.item<double>(), 1e-7);
  b.loss.backward();
  EXPECT_EQ(narrow.values.grad().scalar_type(), at::kFloat);
}

TEST(ValueLoss, TotalsMustCountTheStep) {
  ValueBatch b = value_batch(kValues);
  b.totals.tokens = 4;
  EXPECT_EQ(error_of([&] { (void)value_loss(b, {}); }),
            "[value_loss] totals.tokens must count the whole optimizer step: it is 4, and this "
            "micro-batch alone has 5 active tokens");
  EXPECT_EQ(error_of([&] { (void)value_loss(value_batch(kValues), {.coef = -1}); }),
            "[value_loss] coef must be finite and at least 0, got -1");
}

TEST(ExplainedVariance, PerfectConstantAndHarmful) {
  const std::vector<float> returns = {1, 2, 3, 4};
  const auto with = [&](const std::vector<float>& v) { return explained_variance(v, returns); };
  EXPECT_DOUBLE_EQ(with(returns).value(), 1);
  EXPECT_DOUBLE_EQ(with({7, 7, 7, 7}).value(), 0);
  EXPECT_DOUBLE_EQ(with({5, 6, 7, 8}).value(), 1) << "an offset is no variance";
  EXPECT_DOUBLE_EQ(with({4, 3, 2, 1}).value(), -3);
  EXPECT_NEAR(with({1, 2, 3, 0}).value(), 1 - 4.0 / (5.0 / 3), 1e-15);  // Residuals 0 0 0 4.
  EXPECT_FALSE(explained_variance(returns, std::vector<float>(4, 2.0F)).has_value());
  const std::vector<uint8_t> one = {0, 1, 0, 0}, three = {1, 1, 1, 0};
  EXPECT_FALSE(explained_variance(returns, returns, one).has_value());
  EXPECT_DOUBLE_EQ(
      explained_variance(std::vector<float>{1, 2, 3, NAN}, returns, three).value(), 1);
  EXPECT_FALSE(explained_variance({}, {}).has_value());
}

TEST(ValueNorm, AnUpdateWithItsRescaleChangesNoValue) {
  RngStream rng(3, RngPurpose::kTest, 0);
  const auto draw = [&] { return 2 * rng.next_uniform() - 1; };
  std::vector<double> weight(16), hidden(16);
  double bias = draw();
  for (double& w : weight) w = draw();
  for (double& h : hidden) h = draw();
  ValueNorm norm(0.3);
  const auto value = [&] {
    double out = bias;
    for (size_t i = 0; i < 16; ++i) out += weight[i] * hidden[i];
    return norm.denormalize(out);
  };
  double before = value();
  for (int step = 0; step < 5; ++step) {
    std::vector<float> returns(20);
    for (float& r : returns) r = static_cast<float>(100 * step + 10 * draw());
    const ValueNorm::Rescale change = norm.update(returns);
    for (double& w : weight) w *= change.factor;
    bias = change.factor * bias + change.shift;
    EXPECT_NEAR(value(), before, 1e-10) << step;
    EXPECT_NEAR(norm.denormalize(norm.normalize(3.25)), 3.25, 1e-12);
    before = value();
  }
}

TEST(ValueNorm, FollowsTheReturns) {
  ValueNorm norm(0.25);
  EXPECT_EQ(norm.mean(), 0);
  EXPECT_EQ(norm.std(), 1);
  const std::vector<uint8_t> mask = {1, 0, 1};
  const ValueNorm::Rescale first = norm.update(std::vector<float>{1, NAN, 3}, mask);
  EXPECT_DOUBLE_EQ(norm.mean(), 2) << "the first update alone decides";
  EXPECT_DOUBLE_EQ(norm.std(), 1);
  EXPECT_DOUBLE_EQ(first.factor, 1);
  EXPECT_DOUBLE_EQ(first.shift, -2);
  (void)norm.update(std::vector<float>{4, 8});
  // Weights 0.25 * 0.75 = 0.1875 and 0.25, over their sum 0.4375.
  const double mean = (0.1875 * 2 + 0.25 * 6) / 0.4375;
  EXPECT_NEAR(norm.mean(), mean, 1e-15);
  EXPECT_NEAR(norm.std(), std::sqrt((0.1875 * 5 + 0.25 * 40) / 0.4375 - mean * mean), 1e-14);
  const ValueNorm::State saved = norm.state();
  (void)norm.update(std::vector<float>{});
  EXPECT_EQ(norm.state().mean, saved.mean) << "nothing seen, nothing changed";
  ValueNorm resumed(0.25);
  resumed.restore(saved);
  (void)norm.update(std::vector<float>{1});
  (void)resumed.update(std::vector<float>{1});
  EXPECT_EQ(resumed.mean(), norm.mean());
  EXPECT_EQ(resumed.std(), norm.std());
  ValueNorm equal(1);
  (void)equal.update(std::vector<float>{5, 5, 5});
  EXPECT_EQ(equal.std(), ValueNorm::kMinStd);
  EXPECT_EQ(error_of([&] { (void)equal.update(std::vector<float>{NAN}); }),
            "[value_norm] the return at token 0 is nan");
  EXPECT_EQ(error_of([] { (void)ValueNorm(0); }), "[value_norm] rate must be in (0, 1], got 0");
}

KlControllerConfig control(const std::string& kind) {
  KlControllerConfig config;
  config.kind = kind;
  return config;
}

double coef_after(const KlControllerConfig& config, double kl, int64_t sequences = 64) {
  KlController c(config, 0.1);
  c.update(kl, sequences);
  return c.coef();
}

TEST(KlController, MoreKlMeansMorePenalty) {
  for (const std::string kind : {"adaptive", "dual"}) {
    double last = 0;
    for (const double kl : {5.0, 5.5, 6.0, 6.5, 7.0}) {
      const double coef = coef_after(control(kind), kl);
      EXPECT_GT(coef, last) << kind << " " << kl;
      EXPECT_EQ(coef > 0.1, kl > 6);
      EXPECT_EQ(coef == 0.1, kl == 6) << "the target is the fixed point";
      last = coef;
    }
  }
  for (const double kl : {-3.0, 0.0, 100.0}) EXPECT_EQ(coef_after(control("fixed"), kl), 0.1);
}

TEST(KlController, BoundsHold) {
  EXPECT_EQ(coef_after(control("adaptive"), 1e9), coef_after(control("adaptive"), 12))
      << "the error is clipped at a fifth";
  EXPECT_EQ(coef_after(control("adaptive"), 1e9, 0), 0.1);
  for (const std::string kind : {"adaptive", "dual"}) {
    KlControllerConfig config = control(kind);
    config.min = 0.05;
    config.max = 0.2;
    EXPECT_EQ(coef_after(config, 1e4, 1000000), 0.2) << kind;
    EXPECT_EQ(coef_after(config, -1e4, 40000), 0.05) << kind;
  }
}

TEST(KlController, GoesOnFromItsState) {
  for (const std::string kind : {"fixed", "adaptive", "dual"}) {
    KlController a(control(kind), 0.1);
    a.update(7, 64);
    KlController b(control(kind), 0.3);
    b.restore(a.state());
    a.update(4, 64);
    b.update(4, 64);
    EXPECT_EQ(a.coef(), b.coef()) << kind;
    EXPECT_EQ(b.state().updates, 2);
  }
}

TEST(KlController, MistakesAreNamed) {
  EXPECT_EQ(error_of([] { KlController(control("adaptive"), 0.0); }),
            "[kl_controller] there must be 0 < min <= coefficient <= max, got 1e-06, 0 and 10");
  EXPECT_EQ(error_of([] { KlController(control("fixd"), 0.1); }),
            "[kl_controller] kind must be \"fixed\", \"adaptive\" or \"dual\", got \"fixd\"");
  EXPECT_EQ(error_of([] { KlController(control("dual"), 0.1).update(NAN, 1); }),
            "[kl_controller] the measured KL is nan");
  EXPECT_EQ(error_of([] { KlController(control("fixed"), -0.1); }),
            "[kl_controller] the coefficient must be finite and at least 0, got -0.1");
}

}  // namespace
}  // namespace temper
