#include "temper/trainer/optimizer.h"

#include <gtest/gtest.h>

#include <limits>

#include "temper/formats/safetensors.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

/// Gradients that differ from element to element, the same for every call.
void fill_gradients(const PolicyModel& policy, double scale) {
  uint64_t stream = 0;
  for (const auto& p : policy.lm().parameters()) {
    RngStream rng(3, RngPurpose::kTest, stream++);
    for (int64_t i = 0; i < p->elements(); ++i) {
      p->grad_data()[i] = static_cast<float>(scale * (rng.next_uniform() - 0.5));
    }
  }
}

double norm_of_gradients(const PolicyModel& policy) {
  double sum = 0;
  for (const auto& p : policy.lm().parameters()) {
    for (int64_t i = 0; i < p->elements(); ++i) sum += double{p->grad_data()[i]} * p->grad_data()[i];
  }
  return std::sqrt(sum);
}

TEST(Optimizer, TwoStepsByTheFormula) {
  PolicyModel policy = tiny_policy();
  const OptimizerConfig config{.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.5,
                               .max_grad_norm = 2.0};
  Optimizer optimizer(policy.lm().parameter_list(), config);
  std::vector<std::vector<double>> w, m, v;
  for (const auto& values : weights_of(policy)) {
    w.emplace_back(values.begin(), values.end());
    m.emplace_back(values.size(), 0.0);
    v.emplace_back(values.size(), 0.0);
  }
  const double rate = 0.1;
  const auto params = policy.lm().parameters();
  for (int t = 1; t <= 2; ++t) {
    fill_gradients(policy, 0.7 * t);
    const double norm = norm_of_gradients(policy);
    ASSERT_GT(norm, config.max_grad_norm);
    const double scale = config.max_grad_norm / (norm + 1e-6);
    for (size_t i = 0; i < params.size(); ++i) {
      for (size_t j = 0; j < w[i].size(); ++j) {
        const double g = params[i]->grad_data()[j] * scale;
        m[i][j] = 0.8 * m[i][j] + 0.2 * g;
        v[i][j] = 0.9 * v[i][j] + 0.1 * g * g;
        if (params[i]->matrix) w[i][j] *= 1 - rate * 0.5;  // Norms do not decay.
        w[i][j] -= rate * m[i][j] / (1 - std::pow(0.8, t)) /
                   (std::sqrt(v[i][j] / (1 - std::pow(0.9, t))) + config.eps);
      }
    }
    EXPECT_NEAR(optimizer.step(rate).grad_norm, norm, 1e-7 * norm);
    EXPECT_EQ(optimizer.steps(), t);
    EXPECT_EQ(norm_of_gradients(policy), 0);
  }
  const auto got = weights_of(policy);
  for (size_t i = 0; i < w.size(); ++i) {
    for (size_t j = 0; j < w[i].size(); ++j) ASSERT_NEAR(got[i][j], w[i][j], 2e-6) << params[i]->name;
  }
}

TEST(Optimizer, SmallGradientsAreNotScaledAndZeroTurnsClippingOff) {
  const auto weights = [](double limit, double size) {
    PolicyModel policy = tiny_policy();
    Optimizer optimizer(policy.lm().parameter_list(), {.eps = 1e-2, .max_grad_norm = limit});
    fill_gradients(policy, size);
    (void)optimizer.step(0.1);
    return weights_of(policy);
  };
  EXPECT_EQ(weights(1.0, 1e-4), weights(0, 1e-4));
  EXPECT_NE(weights(1.0, 1.0), weights(0, 1.0));
}

TEST(Optimizer, BadGradientIsNamedAndChangesNothing) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    PolicyModel policy = tiny_policy();
    Optimizer optimizer(policy.lm().parameter_list(), {});
    fill_gradients(policy, 0.1);
    Parameter& last = *policy.lm().parameters().back();
    last.grad_data()[last.elements() - 1] = bad;
    const std::string error = error_of([&] { (void)optimizer.step(0.1); });
    EXPECT_NE(error.find(last.name), std::string::npos) << error;
    EXPECT_EQ(weights_of(policy), weights_of(tiny_policy()));
    EXPECT_EQ(optimizer.steps(), 0);
  }
}

TEST(Optimizer, SavedMomentsContinueWithTheSameBits) {
  const TemporaryFolder folder;
  PolicyModel whole = tiny_policy();
  PolicyModel resumed = tiny_policy();
  {
    Optimizer a(whole.lm().parameter_list(), {}), b(resumed.lm().parameter_list(), {});
    for (Optimizer* o : {&a, &b}) {
      fill_gradients(o == &a ? whole : resumed, 1.0);
      (void)o->step(0.01);
    }
    b.save(folder.path() / "moments.safetensors");
    Optimizer c(resumed.lm().parameter_list(), {});
    c.load(folder.path() / "moments.safetensors", 1);
    fill_gradients(whole, 0.3);
    fill_gradients(resumed, 0.3);
    (void)a.step(0.01);
    (void)c.step(0.01);
  }
  EXPECT_EQ(weights_of(whole), weights_of(resumed));
}

// --- Moments in bfloat16 -------------------------------------------------------------------------

const OptimizerConfig kRounded{.moments = "bfloat16"};

TEST(Optimizer, Bfloat16MomentsTakeHalfTheBytesAndContinueWithTheSameBits) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "moments.safetensors";
  PolicyModel whole = tiny_policy(), resumed = tiny_policy(), full = tiny_policy();
  Optimizer a(whole.lm().parameter_list(), kRounded, 5), b(resumed.lm().parameter_list(), kRounded, 5);
  EXPECT_EQ(2 * a.bytes(), Optimizer(full.lm().parameter_list(), {}).bytes());
  for (int step = 0; step < 3; ++step) {
    fill_gradients(whole, 1.0 + step);
    fill_gradients(resumed, 1.0 + step);
    (void)a.step(0.01);
    (void)b.step(0.01);
  }
  b.save(file);
  const SafetensorsFile saved = SafetensorsFile::open(file);
  for (const auto& p : resumed.lm().parameters()) {
    EXPECT_EQ(saved.at("exp_avg." + p->name).dtype, DType::kBF16);
    EXPECT_EQ(saved.at("exp_avg_sq." + p->name).dtype, DType::kBF16);
  }
  Optimizer c(resumed.lm().parameter_list(), kRounded, 5);
  c.load(file, 3);
  for (int step = 0; step < 3; ++step) {
    fill_gradients(whole, 0.3);
    fill_gradients(resumed, 0.3);
    (void)a.step(0.01);
    set_num_threads(2);
    (void)c.step(0.01);
    set_num_threads(1);
  }
  EXPECT_EQ(weights_of(whole), weights_of(resumed));

  Optimizer floats(full.lm().parameter_list(), {});
  EXPECT_NE(error_of([&] { floats.load(file, 3); }).find("not in float32, which optimizer.moments"),
            std::string::npos);
  floats.save(file);
  EXPECT_NE(error_of([&] { c.load(file, 3); }).find("not in bfloat16, which optimizer.moments"),
            std::string::npos);
}

TEST(Optimizer, DrawsOfMomentsAreKeyedBySeed) {
  const auto weights = [](uint64_t seed) {
    PolicyModel policy = tiny_policy();
    Optimizer optimizer(policy.lm().parameter_list(), kRounded, seed);
    for (int step = 0; step < 2; ++step) {  // The first step takes its moments unrounded.
      fill_gradients(policy, 1.0);
      (void)optimizer.step(0.01);
    }
    return weights_of(policy);
  };
  EXPECT_EQ(weights(1), weights(1));
  EXPECT_NE(weights(1), weights(2));
  EXPECT_LT(largest_difference(weights(1), weights(2)), 1e-4);
}

// The loss is half of the squared distance to a target, its gradient the distance. Noise of both
// signs keeps second moments from vanishing.
TEST(Optimizer, Bfloat16MomentsConvergeAsFloat32Ones) {
  const auto distance = [](const std::string& moments) {
    PolicyModel policy = tiny_policy();
    Optimizer optimizer(policy.lm().parameter_list(),
                        {.beta2 = 0.999, .max_grad_norm = 0, .moments = moments});
    const auto params = policy.lm().parameters();
    double sum = 0, count = 0;
    for (int step = 0; step < 400; ++step) {
      RngStream noise(9, RngPurpose::kTest, static_cast<uint64_t>(step));
      sum = count = 0;
      for (size_t i = 0; i < params.size(); ++i) {
        const float target = i % 2 == 0 ? 0.25f : -0.25f;
        for (int64_t j = 0; j < params[i]->elements(); ++j) {
          const float off = params[i]->data()[j] - target;
          const double drawn = noise.next_uniform() - 0.5;
          params[i]->grad_data()[j] = off + static_cast<float>(0.2 * drawn);
          sum += double{off} * double{off};
          ++count;
        }
      }
      (void)optimizer.step(0.02 * (1 - step / 400.0));
    }
    return std::sqrt(sum / count);
  };
  const double exact = distance("float32");
  EXPECT_LT(exact, 0.02);  // From 0.5 and more.
  EXPECT_NEAR(distance("bfloat16"), exact, 0.1 * exact);
}

TEST(Optimizer, FrozenModelAndBadSettingsAreRefused) {
  PolicyModel frozen = PolicyModel::load(tiny_model().string(), WeightDType::kFloat32, Trainable::kNo);
  EXPECT_NE(error_of([&] { Optimizer(frozen.lm().parameter_list(), {}); }).find("trainable"), std::string::npos);
  PolicyModel policy = tiny_policy();
  EXPECT_NE(error_of([&] { Optimizer(policy.lm().parameter_list(), {.beta2 = 1.0}); }).find("optimizer.beta2"),
            std::string::npos);
  EXPECT_NE(error_of([&] { Optimizer(policy.lm().parameter_list(), {.eps = 0}); }).find("optimizer.eps"),
            std::string::npos);
  EXPECT_NE(error_of([&] { Optimizer(policy.lm().parameter_list(), {.moments = "float16"}); })
                .find("optimizer.moments must be float32 or bfloat16"), std::string::npos);
}

}  // namespace
}  // namespace temper::testing_trainer
