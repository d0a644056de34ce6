#include "temper/objective/bradley_terry.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <vector>

#include "temper/core/config.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Numbers = std::vector<double>;

struct Result {
  double loss = 0;
  Numbers chosen, rejected;  // Gradients.
  Metrics metrics;
};

at::Tensor tensor(const Numbers& v, at::ScalarType type = at::kDouble) {
  return at::from_blob(const_cast<double*>(v.data()), {std::ssize(v)}, at::kDouble)
      .to(type)
      .clone();
}

Numbers numbers(const at::Tensor& t) {
  const at::Tensor d = t.to(at::kDouble).contiguous();
  return {d.const_data_ptr<double>(), d.const_data_ptr<double>() + d.numel()};
}

Result run(const Numbers& chosen, const Numbers& rejected, const Numbers& margin,
           BradleyTerry::Config config, double total, at::ScalarType type = at::kDouble) {
  ScoredPairs b;
  b.chosen = tensor(chosen, type).requires_grad_(true);
  b.rejected = tensor(rejected, type).requires_grad_(true);
  if (!margin.empty()) b.margin = tensor(margin, type);
  b.total = total;
  LossOutput out = BradleyTerry{config}(b);
  torch::autograd::backward({out.loss}, {});
  Result r{out.loss.item<double>(), numbers(b.chosen.grad()), numbers(b.rejected.grad()), {}};
  out.metrics.write_to(r.metrics);
  return r;
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Values of TRL 1.16.0's RewardTrainer for the same scores.
TEST(BradleyTerry, HasTheWorkedValues) {
  const Result r = run({1, 0.2}, {0.5, 0.4}, {0, 0.5}, {.center_coef = 0.01}, 2);
  EXPECT_NEAR(r.loss, 0.8016815165, 6e-11);
  EXPECT_DOUBLE_EQ(r.metrics.at("accuracy"), 0.5);
  EXPECT_NEAR(r.metrics.at("margin"), 0.15, 1e-15);
  EXPECT_NEAR(r.metrics.at("mean_reward"), 0.525, 1e-15);
  EXPECT_EQ(r.metrics.at("min_reward"), 0.2);
  EXPECT_EQ(r.metrics.at("max_reward"), 1.0);
}

TEST(BradleyTerry, GradientsAreTheFormulas) {
  const Numbers w{1, 0.2, -3, 40}, l{0.5, 0.4, 2, -60}, m{0, 0.5, -1, 2};
  const double c = 0.01, total = 7;
  const Result r = run(w, l, m, {.center_coef = c}, total);
  double loss = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double z = w[i] - l[i] - m[i];
    const double centring = 2 * c * (w[i] + l[i]);
    EXPECT_NEAR(r.chosen[i], (-sigmoid(-z) + centring) / total, 1e-9);
    EXPECT_NEAR(r.rejected[i], (sigmoid(-z) + centring) / total, 1e-9);
    loss += (std::log1p(std::exp(-z)) + c * (w[i] + l[i]) * (w[i] + l[i])) / total;
  }
  EXPECT_NEAR(r.loss, loss, 1e-12);
}

TEST(BradleyTerry, SmoothingByFiniteDifferences) {
  const BradleyTerry::Config config{.center_coef = 0.05, .label_smoothing = 0.2};
  const Numbers w{0.7, -1.5, 3}, l{-0.4, 1, 2.5}, m{0.1, 0, 0.3};
  const Result r = run(w, l, m, config, 3);
  const double h = 1e-6;
  for (size_t i = 0; i < w.size(); ++i) {
    for (const bool side : {true, false}) {
      const auto loss = [&](double step) {
        Numbers a = w, b = l;
        (side ? a : b)[i] += step;
        return run(a, b, m, config, 3).loss;
      };
      const double slope = (loss(h) - loss(-h)) / (2 * h);
      EXPECT_NEAR((side ? r.chosen : r.rejected)[i], slope, 1e-8) << i << side;
    }
  }
  // By hand, a single pair: z = 0.6 = 0.7 + 0.4 - 0.5; 0.8 log(1 + e^-0.6) + 0.2 log(1 + e^0.6).
  EXPECT_NEAR(run({0.7}, {-0.4}, {0.5}, {.label_smoothing = 0.2}, 1).loss,
              std::log1p(std::exp(-0.6)) + 0.2 * 0.6, 1e-14);
}

TEST(BradleyTerry, IsStableFarOut) {
  const Result r = run({1e4, -1e4}, {-1e4, 1e4}, {}, {}, 2);
  EXPECT_NEAR(r.loss, 1e4, 1e-6);  // 0 and 2e4, over two pairs.
  EXPECT_EQ(r.chosen[0], 0.0);
  EXPECT_EQ(r.chosen[1], -0.5);
  EXPECT_EQ(r.rejected[1], 0.5);
}

TEST(BradleyTerry, AnySplitGivesTheSameGradientBits) {
  Numbers w, l, m;
  for (int i = 0; i < 8; ++i) {
    w.push_back(std::sin(i));
    l.push_back(std::cos(3.0 * i));
    m.push_back(0.1 * (i % 3));
  }
  const BradleyTerry::Config config{.center_coef = 0.01, .label_smoothing = 0.1};
  const Result whole = run(w, l, m, config, 8, at::kFloat);
  double loss = 0;
  for (size_t i = 0; i < 8; ++i) {
    const Result part = run({w[i]}, {l[i]}, {m[i]}, config, 8, at::kFloat);
    EXPECT_EQ(part.chosen[0], whole.chosen[i]) << i;
    EXPECT_EQ(part.rejected[0], whole.rejected[i]) << i;
    loss += part.loss;
  }
  EXPECT_NEAR(loss, whole.loss, 1e-14);
}

TEST(BradleyTerry, RefusesWhatItCannotUse) {
  const auto error = [](auto change) {
    ScoredPairs b{tensor({1, 2}), tensor({0, 0}), {}, 2};
    BradleyTerry loss;
    change(b, loss.config);
    try {
      (void)loss(b);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  using B = ScoredPairs;
  using C = BradleyTerry::Config;
  EXPECT_EQ(error([](B&, C&) {}), "");
  const auto expect = [&](auto change, const char* word) {
    EXPECT_NE(error(change).find(word), std::string::npos) << word << ": " << error(change);
  };
  expect([](B& b, C&) { b.rejected = tensor({1}); }, "rejected must have shape [2]");
  expect([](B& b, C&) { b.margin = tensor({1}); }, "margin must have shape [2]");
  expect([](B& b, C&) { b.chosen = tensor({}); }, "at least one pair");
  expect([](B& b, C&) { b.total = 1; }, "fewer than the 2");
  expect([](B&, C& c) { c.center_coef = -1; }, "center_coef");
  expect([](B&, C& c) { c.label_smoothing = 0.5; }, "label_smoothing");
}

TEST(BradleyTerry, SettingsAreDeclared) {
  BradleyTerry::Config config;
  config_set(config_fields(config), "center_coef=0.01");
  config_set(config_fields(config), "label_smoothing=0.1");
  EXPECT_EQ(config.center_coef, 0.01);
  EXPECT_EQ(config.label_smoothing, 0.1);
}

TEST(CalibrationError, WorkedByHand) {
  // p = 0.75: log 3. Three of four right: the claim is met.
  const double d = std::log(3.0);
  EXPECT_NEAR(calibration_error(Numbers{d, d, d, -d}), 0, 1e-15);
  EXPECT_NEAR(calibration_error(Numbers{d, d, -d, -d}), 0.25, 1e-15);
  // A second bin, p = 0.9: right twice of twice. (4 x 0.25 + 2 x 0.1) / 6.
  const double f = std::log(9.0);
  EXPECT_NEAR(calibration_error(Numbers{d, f, d, -d, f, -d}), 0.2, 1e-15);
  // Ties: p = 0.5, half of them right.
  EXPECT_NEAR(calibration_error(Numbers{0, 0, 0}), 0, 1e-15);
  // Never wrong and sure of it; sure and always wrong.
  EXPECT_NEAR(calibration_error(Numbers{800, 900}), 0, 1e-15);
  EXPECT_NEAR(calibration_error(Numbers{-800}), 1, 1e-15);
  // Two probabilities that one bin would average out: 0.75 always wrong, 0.9 always right.
  EXPECT_NEAR(calibration_error(Numbers{-d, f}), (0.75 + 0.1) / 2, 1e-15);
  EXPECT_NEAR(calibration_error(Numbers{-d, f}, 1), std::abs(0.75 + 0.9 - 1) / 2, 1e-15);
}

TEST(CalibrationError, RefusesNothingAndNan) {
  EXPECT_THROW((void)calibration_error(Numbers{}), Error);
  EXPECT_THROW((void)calibration_error(Numbers{std::nan("")}), Error);
  EXPECT_THROW((void)calibration_error(Numbers{1}, 0), Error);
}

}  // namespace
}  // namespace temper
