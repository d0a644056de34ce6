// What must hold without an oracle: derivatives, order, splitting, reductions.
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "every_loss.h"
#include "temper/core/error.h"
#include "temper/kernels/kl_penalty.h"
#include "temper/objective/dapo.h"
#include "temper/objective/entropy.h"
#include "temper/objective/kl.h"

namespace temper {
namespace {

double loss_of(const RolloutObjective& f, const RolloutBatch& b) {
  return f(b).loss.item<double>();
}

using Array = std::vector<double> PaddedRollout::*;

/// The central difference of the loss in token `i` of a padded array, moving `also` with it.
double difference(const RolloutObjective& f, const PaddedRollout& r, const StepTotals& totals,
                  Array array, Array also, size_t i) {
  constexpr double kStep = 1e-6;
  const auto at = [&](double step) {
    PaddedRollout moved = r;
    (moved.*array)[i] += step;
    if (also != nullptr) (moved.*also)[i] += step;
    RolloutBatch b = moved.batch();
    b.totals = totals;
    return loss_of(f, b);
  };
  return (at(kStep) - at(-kStep)) / (2 * kStep);
}

/// Compares gradients with differences. `also` is moved together with the log-probabilities.
void check_differences(const RolloutObjective& f, const PaddedRollout& r, const StepTotals& totals,
                       Array also = nullptr) {
  RolloutBatch b = r.batch();
  b.totals = totals;
  const LossRun run = run_loss(f, b);
  size_t token = 0;
  for (int64_t row = 0; row < r.rows; ++row) {
    for (int64_t t = 0; t < r.length[static_cast<size_t>(row)]; ++t, ++token) {
      const auto i = static_cast<size_t>(row * r.width + t);
      const double lp = difference(f, r, totals, &PaddedRollout::lp, also, i);
      EXPECT_NEAR(run.dlp[token], lp, 1e-6 * std::max(0.1, std::abs(lp)))
          << "row " << row << " token " << t;
      if (run.dentropy.empty()) continue;
      const double h = difference(f, r, totals, &PaddedRollout::entropy, nullptr, i);
      EXPECT_NEAR(run.dentropy[token], h, 1e-6 * std::max(0.1, std::abs(h)));
    }
  }
}

/// Losses whose weight is a constant in the gradient; a difference must hold the ratio fixed.
bool detached(const std::string& loss) { return loss == "cispo" || loss == "vespo"; }

TEST(FiniteDifferences, EveryLossAtBothLevels) {
  const PaddedRollout r = golden_rollout("plain");
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    for (const std::string& level : kLevels) {
      SCOPED_TRACE(entry.name + " " + level);
      const auto f = objective(entry.name, {"importance_level=" + level});
      check_differences(f, r, r.batch().totals,
                        detached(entry.name) ? &PaddedRollout::old : nullptr);
    }
  }
}

TEST(FiniteDifferences, KlEstimatorsWithAndWithoutCorrection) {
  const PaddedRollout r = golden_rollout("plain");
  for (const std::string estimator : {"k1", "k2", "k3"}) {
    for (const std::string corrected : {"true", "false"}) {
      for (const std::string& level : kLevels) {
        SCOPED_TRACE(estimator + " " + corrected + " " + level);
        const auto f = objective("dapo", {"kl_coef=0.5", "kl_estimator=" + estimator,
                                          "kl_bias_correction=" + corrected,
                                          "importance_level=" + level});
        check_differences(f, r, r.batch().totals);
      }
    }
  }
}

TEST(FiniteDifferences, EntropyBonusMasksAndDelta) {
  const PaddedRollout r = golden_rollout("plain");
  StepTotals totals = r.batch().totals;
  const std::vector<double> h = r.flat(r.entropy);
  const std::vector<double> m = r.flat(r.mask);
  // Between two tokens' entropies: at one of them the mask itself would jump.
  const EntropyCut cut =
      entropy_threshold(std::span<const double>(h), std::span<const double>(m), 0.6);
  totals.entropy_threshold = cut.threshold;
  totals.entropy_tokens = static_cast<double>(cut.tokens);
  check_differences(objective("grpo", {"entropy_coef=0.5", "off_policy_threshold=0.1", "delta=1.7",
                                       "kl_coef=0.1"}), r, totals);
}

TEST(FiniteDifferences, BothSidesOfTheClipBounds) {
  const auto f = objective("dapo", {});
  for (const double advantage : {1.0, -1.0}) {
    for (const double bound : {0.8, 1.2}) {
      for (const double side : {-1e-3, 1e-3}) {
        PaddedRollout r{.rows = 1, .width = 1, .length = {1}, .lp = {std::log(bound) + side},
                        .old = {0.0}, .ref = {}, .entropy = {}, .mask = {1},
                        .advantages = {advantage}};
        check_differences(f, r, r.batch().totals);
        const bool clipped = advantage > 0 ? bound > 1 && side > 0 : bound < 1 && side < 0;
        EXPECT_EQ(run_loss(f, r.batch()).dlp[0] == 0, clipped) << advantage << bound << side;
      }
    }
  }
}

TEST(Identities, CorrectedK3HasTheReverseKlGradient) {
  PaddedRollout r = golden_rollout("plain");
  r.advantages.assign(r.advantages.size(), 0.0);
  const LossRun run = run_loss(objective("dapo", {"kl_coef=1"}), r.batch());
  const auto lp = r.flat(r.lp), old = r.flat(r.old), ref = r.flat(r.ref), m = r.flat(r.mask);
  for (size_t i = 0; i < lp.size(); ++i) {
    const double want = m[i] * std::exp(lp[i] - old[i]) * (lp[i] - ref[i]) / r.active_tokens();
    EXPECT_NEAR(run.dlp[i], want, 1e-15 * std::max(1.0, std::abs(want)));
  }
}

TEST(Identities, OnPolicyLossesHaveTheirClosedForm) {
  PaddedRollout r = golden_rollout("plain");
  r.old.clear();
  r.ref.clear();
  double by_token = 0, by_row = 0;
  for (size_t i = 0; i < r.advantages.size(); ++i) {
    const auto begin = r.mask.begin() + static_cast<int64_t>(i) * r.width;
    const double n = std::accumulate(begin, begin + r.width, 0.0);
    by_token += r.advantages[i] * n;
    by_row += n > 0 ? r.advantages[i] : 0;
  }
  const LossRun dapo = run_loss(objective("dapo", {}), r.batch());
  EXPECT_NEAR(dapo.loss, -by_token / r.active_tokens(), 1e-15);
  EXPECT_NEAR(run_loss(objective("grpo", {}), r.batch()).loss, -by_row / 8, 1e-15);
  for (const char* name : {"low_mean", "low_min", "high_mean", "high_max", "region_mean"}) {
    EXPECT_EQ(dapo.metrics.at(std::string("clip_ratio/") + name), 0) << name;
  }
}

TEST(Identities, TheGradientAtRatioOneIsMinusTheAdvantage) {
  PaddedRollout r = golden_rollout("plain");
  r.old.clear();
  for (const std::string loss : {"dapo", "bnpo", "cispo", "vespo", "sapo", "grpo"}) {
    SCOPED_TRACE(loss);
    const LossRun run = run_loss(objective(loss, {}), r.batch());
    // The first row is one token, so that its token mean is the token.
    const double weight = loss == "sapo" || loss == "grpo" ? 8 : r.active_tokens();
    EXPECT_NEAR(run.dlp[0], -r.advantages[0] / weight, 1e-16);
  }
}

TEST(Identities, OneTokenRowsMakeTheLevelsEqual) {
  PaddedRollout r = golden_rollout("plain");
  r.length.assign(r.length.size(), 1);
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    SCOPED_TRACE(entry.name);
    const auto run = [&](const std::string& level) {
      return run_loss(objective(entry.name, {"importance_level=" + level, "kl_coef=0.1"}),
                      r.batch());
    };
    const LossRun token = run("token"), sequence = run("sequence");
    EXPECT_DOUBLE_EQ(token.loss, sequence.loss);
    for (size_t i = 0; i < token.dlp.size(); ++i) {
      EXPECT_NEAR(token.dlp[i], sequence.dlp[i], 1e-15);
    }
  }
}

TEST(Identities, InfiniteDeltaIsNoDelta) {
  const PaddedRollout r = golden_rollout("wide");
  const LossRun without = run_loss(objective("dapo", {}), r.batch());
  Dapo::Config config;
  config.delta = std::numeric_limits<double>::infinity();
  const LossRun with = run_loss(Dapo(config), r.batch());
  EXPECT_EQ(without.loss, with.loss);
  EXPECT_EQ(without.dlp, with.dlp);
}

TEST(Identities, SmallKlEstimatorsAgree) {
  PaddedRollout r = golden_rollout("plain");
  for (size_t i = 0; i < r.ref.size(); ++i) r.ref[i] = r.lp[i] - 1e-3;
  const Metrics m = run_loss(objective("dapo", {}), r.batch()).metrics;
  EXPECT_NEAR(m.at("kl/k2"), m.at("kl/k3"), 1e-9);
  EXPECT_NEAR(m.at("kl/k1"), 1e-3, 1e-12);
}

// The loss's tensor expressions and the kernel that rewards use are one formula.
TEST(Identities, KlTokensAreTheKernels) {
  for (const std::string data : {"plain", "wide"}) {
    const PolicyTokens t = policy_tokens(golden_rollout(data).batch());
    at::Tensor lp = t.logprobs.detach().to(at::kFloat), ref = t.ref_logprobs.to(at::kFloat);
    at::Tensor value = at::empty_like(lp), slope = at::empty_like(lp);
    for (const KlEstimator estimator :
         {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3, KlEstimator::kAbsolute}) {
      kernels::kl_penalty({.logprobs = lp.data_ptr<float>(),
                           .ref_logprobs = ref.data_ptr<float>(),
                           .tokens = lp.numel(),
                           .estimator = estimator,
                           .kl = value.data_ptr<float>(),
                           .dlogprobs = slope.data_ptr<float>()});
      PolicyTokens of_floats = t;
      of_floats.logprobs = lp.to(at::kDouble).requires_grad_();
      of_floats.ref_logprobs = ref.to(at::kDouble);
      const at::Tensor kl = kl_tokens(of_floats, estimator);
      kl.sum().backward();
      EXPECT_TRUE(at::allclose(kl, value.to(at::kDouble), 1e-7, 1e-15));
      EXPECT_TRUE(at::allclose(of_floats.logprobs.grad(), slope.to(at::kDouble), 1e-7, 1e-15));
    }
    EXPECT_THROW(kl_tokens(t, KlEstimator::kExact), Error);
  }
}

TEST(Identities, AGivenAdvantagePerTokenEqualsOnePerRow) {
  const PaddedRollout r = golden_rollout("plain");
  PaddedRollout spread = r;
  spread.advantages.clear();
  for (const double a : r.advantages) {
    spread.advantages.insert(spread.advantages.end(), static_cast<size_t>(r.width), a);
  }
  for_every_loss({"off_policy_threshold=0.1", "kl_coef=0.1"}, [&](const RolloutObjective& f) {
    const LossRun a = run_loss(f, r.batch()), b = run_loss(f, spread.batch());
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.dlp, b.dlp);
  });
}

PaddedRollout permuted(const PaddedRollout& r, const std::vector<size_t>& order) {
  PaddedRollout p = r;
  for (size_t i = 0; i < order.size(); ++i) {
    p.length[i] = r.length[order[i]];
    p.advantages[i] = r.advantages[order[i]];
    for (auto array : {&PaddedRollout::lp, &PaddedRollout::old, &PaddedRollout::ref,
                       &PaddedRollout::entropy, &PaddedRollout::mask}) {
      std::copy_n((r.*array).begin() + static_cast<int64_t>(order[i]) * r.width, r.width,
                  (p.*array).begin() + static_cast<int64_t>(i) * r.width);
    }
  }
  return p;
}

TEST(Invariance, OrderOfCompletions) {
  const PaddedRollout r = golden_rollout("plain");
  const PaddedRollout p = permuted(r, {3, 0, 7, 5, 1, 2, 6, 4});
  for_every_loss({"kl_coef=0.1", "entropy_coef=0.1"}, [&](const RolloutObjective& f) {
    EXPECT_NEAR(loss_of(f, r.batch()), loss_of(f, p.batch()), 1e-12);
  });
}

void check_splits(at::ScalarType dtype) {
  const PaddedRollout r = golden_rollout("plain");
  const std::vector<std::string> settings = {"kl_coef=0.1", "entropy_coef=0.1",
                                             "off_policy_threshold=0.1"};
  for_every_loss(settings, [&](const RolloutObjective& f) {
    const LossRun whole = run_loss(f, r.batch(dtype));
    for (const int64_t size : {1, 2, 3, 4}) {
      double loss = 0;
      std::vector<double> dlp, dentropy;
      MetricSums sums;
      for (int64_t first = 0; first < r.rows; first += size) {
        const RolloutBatch b = r.batch(dtype, first, std::min(first + size, r.rows));
        const LossOutput out = f(b);
        out.loss.backward();
        loss += out.loss.item<double>();
        for (const double g : to_vector(b.logprobs.grad())) dlp.push_back(g);
        for (const double g : to_vector(b.entropy.grad())) dentropy.push_back(g);
        sums.merge(out.metrics);
      }
      EXPECT_NEAR(loss, whole.loss, 1e-14) << size;
      EXPECT_EQ(dlp, whole.dlp) << "bits of d loss / d logprob, micro-batches of " << size;
      EXPECT_EQ(dentropy, whole.dentropy) << size;
      Metrics metrics;
      sums.write_to(metrics);
      ASSERT_EQ(metrics.size(), whole.metrics.size());
      for (const auto& [name, value] : whole.metrics) {
        EXPECT_NEAR(metrics[name], value, 1e-12) << name;
      }
    }
  });
}

TEST(Invariance, SplitIntoMicroBatchesFloat64) { check_splits(at::kDouble); }
TEST(Invariance, SplitIntoMicroBatchesFloat32) { check_splits(at::kFloat); }

}  // namespace
}  // namespace temper
