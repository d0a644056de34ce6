#pragma once
// Cases of the ops around a policy update. Each calls `compare(run)` with a template
// `run.operator()<Device>()` that returns all outputs as a vector or a tuple of vectors; the
// devices must agree in every bit.

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "kernels/host_ops.h"
#include "kernels/ragged_case.h"

namespace temper::test {

template <class Compare>
void kl_penalty_cases(const Compare& compare) {
  using kernels::KlEstimator;
  const RaggedCase ragged = ragged_case();
  const RaggedCase large = [] {  // With log-ratios beyond the bound.
    RaggedCase c({kMany});
    for (size_t t = 0; t < c.logprobs.size(); t += 7) c.logprobs[t] *= 20.0f;
    return c;
  }();
  for (const RaggedCase* c : {&ragged, &large}) {
    for (const KlEstimator e : {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3,
                                KlEstimator::kAbsolute, KlEstimator::kExact}) {
      if (c == &large && e != KlEstimator::kK3) continue;
      compare([&]<class D>() {
        typename D::template Buffer<float> lp(c->logprobs), ref(c->ref), exact(c->exact);
        typename D::template Buffer<uint8_t> mask(c->mask);
        typename D::template Buffer<float> kl(c->mask.size()), slope(c->mask.size());
        EXPECT_TRUE(D::kl_penalty({.logprobs = lp.data(),
                                   .ref_logprobs = ref.data(),
                                   .exact = exact.data(),
                                   .mask = mask.data(),
                                   .tokens = c->tokens(),
                                   .estimator = e,
                                   .kl = kl.data(),
                                   .dlogprobs = slope.data()}));
        return std::tuple(kl.values(), slope.values());
      });
    }
  }
  compare([&]<class D>() {  // Without mask and slope; 33 tokens.
    const std::vector<float> lp = uniform_floats(33, 60, -3, 0),
                             ref = uniform_floats(33, 61, -3, 0);
    typename D::template Buffer<float> x(lp), y(ref), kl(33);
    EXPECT_TRUE(D::kl_penalty({.logprobs = x.data(),
                               .ref_logprobs = y.data(),
                               .tokens = 33,
                               .estimator = KlEstimator::kK3,
                               .kl = kl.data()}));
    return kl.values();
  });
}

template <class Compare>
void shape_rewards_cases(const Compare& compare) {
  const RaggedCase c = ragged_case();
  const std::vector<float> unmasked = uniform_floats(c.tokens(), 59, 0, 2);
  for (const bool masked : {true, false}) {
    for (const bool penalty : {true, false}) {
      compare([&]<class D>() {
        typename D::template Buffer<float> kl(masked ? c.exact : unmasked), scores(c.scores),
            rewards(c.mask.size());
        typename D::template Buffer<uint8_t> mask(c.mask);
        typename D::template Buffer<int64_t> offsets(c.offsets);
        EXPECT_TRUE(D::shape_rewards({.kl = penalty ? kl.data() : nullptr,
                                      .scores = scores.data(),
                                      .mask = masked ? mask.data() : nullptr,
                                      .offsets = offsets.data(),
                                      .sequences = c.sequences(),
                                      .kl_coef = 0.05,
                                      .score_clip = penalty ? 0.0 : 1.5,
                                      .rewards = rewards.data()}));
        return rewards.values();
      });
    }
  }
}

template <class Compare>
void gae_cases(const Compare& compare) {
  const RaggedCase c = ragged_case();
  const RaggedCase long_one({3001});
  for (const RaggedCase* r : {&c, &long_one}) {
    for (const double lambda : {0.95, 0.0, 1.0}) {
      compare([&]<class D>() {
        typename D::template Buffer<float> rewards(r->rewards), values(r->values),
            bootstrap(r->bootstrap), advantages(r->mask.size()), returns(r->mask.size());
        typename D::template Buffer<uint8_t> mask(r->mask), truncated(r->truncated);
        typename D::template Buffer<int64_t> offsets(r->offsets);
        EXPECT_TRUE(D::gae({.rewards = rewards.data(),
                            .values = values.data(),
                            .mask = mask.data(),
                            .offsets = offsets.data(),
                            .sequences = r->sequences(),
                            .bootstrap_values = bootstrap.data(),
                            .truncated = truncated.data(),
                            .gamma = 0.99,
                            .lambda = lambda,
                            .advantages = advantages.data(),
                            .returns = returns.data()}));
        return std::tuple(advantages.values(), returns.values());
      });
    }
  }
  compare([&]<class D>() {  // Neither mask nor truncation nor returns.
    const std::vector<float> r = uniform_floats(100, 62, -1, 1), v = uniform_floats(100, 63, -1, 1);
    typename D::template Buffer<float> rewards(r), values(v), advantages(100);
    typename D::template Buffer<int64_t> offsets(std::vector<int64_t>{0, 33, 33, 98, 100});
    EXPECT_TRUE(D::gae({.rewards = rewards.data(),
                        .values = values.data(),
                        .offsets = offsets.data(),
                        .sequences = 4,
                        .advantages = advantages.data()}));
    return advantages.values();
  });
}

template <class Compare>
void group_advantages_cases(const Compare& compare) {
  using kernels::GroupRule;
  std::vector<double> rewards;
  std::vector<int64_t> offsets{0};
  for (const int64_t n : {1, 31, 0, 32, 33, 2, 255, 1025, 8, 8}) {
    const auto step = static_cast<uint64_t>(64 + offsets.size());
    for (const float u : uniform_floats(n, step, 0, 1)) {
      rewards.push_back(u < 0.15f ? std::nan("") : double{u});
    }
    offsets.push_back(std::ssize(rewards));
  }
  std::fill(rewards.end() - 8, rewards.end(), 0.1);                // All equal.
  std::fill(rewards.end() - 16, rewards.end() - 9, std::nan(""));  // One scored row.
  const auto groups = static_cast<size_t>(std::ssize(offsets) - 1);
  for (const GroupRule rule :
       {GroupRule::kCentered, GroupRule::kStandardized, GroupRule::kLeaveOneOut}) {
    compare([&]<class D>() {
      typename D::template Buffer<double> r(rewards), a(rewards.size());
      typename D::template Buffer<int64_t> o(offsets);
      typename D::template Buffer<kernels::GroupStat> stats(groups);
      EXPECT_TRUE(D::group_advantages({.rewards = r.data(),
                                       .offsets = o.data(),
                                       .groups = static_cast<int64_t>(groups),
                                       .rule = rule,
                                       .advantages = a.data(),
                                       .stats = stats.data()}));
      std::vector<double> numbers;
      for (const kernels::GroupStat& s : stats.values()) {
        for (const double v : {s.mean, s.std, static_cast<double>(s.count), s.equal ? 1.0 : 0.0}) {
          numbers.push_back(std::isnan(v) ? -1e300 : v);  // NaN is one value.
        }
      }
      return std::tuple(a.values(), numbers);
    });
  }
}

template <class Compare>
void masked_stats_cases(const Compare& compare) {
  using kernels::MaskedStats;
  for (const int64_t n : std::vector<int64_t>{0, 1, 31, 32, 33, 255, 1025, 4097, kMany}) {
    const std::vector<float> draw = uniform_floats(n, 80, 0, 1);
    std::vector<float> values = uniform_floats(n, 81, -1, 4);
    std::vector<uint8_t> active;
    for (size_t i = 0; i < draw.size(); ++i) {
      // Of 31 elements none is active, of 32 the last one.
      active.push_back(n == 31 || n == 32 ? (i == 31) : draw[i] < 0.7f);
      if (active[i] == 0) values[i] = kNaNf;
    }
    for (const bool shift_mean : {true, false}) {
      compare([&]<class D>() {
        typename D::template Buffer<float> x(values), y(values.size());
        typename D::template Buffer<uint8_t> mask(active);
        typename D::template Buffer<double> workspace(
            static_cast<size_t>(kernels::cuda::masked_stats_workspace(n)));
        typename D::template Buffer<MaskedStats> stats(1);
        EXPECT_TRUE(D::masked_stats({.x = x.data(),
                                     .mask = mask.data(),
                                     .count = n,
                                     .workspace = workspace.data(),
                                     .stats = stats.data()}));
        EXPECT_TRUE(D::whiten({.x = x.data(),
                               .mask = mask.data(),
                               .count = n,
                               .stats = stats.data(),
                               .shift_mean = shift_mean,
                               .y = y.data()}));
        return std::tuple(stats.values(), y.values());
      });
    }
  }
  compare([&]<class D>() {  // Without a mask, in place.
    typename D::template Buffer<float> x(uniform_floats(5000, 82, -1, 4));
    typename D::template Buffer<double> workspace(4);
    typename D::template Buffer<MaskedStats> stats(1);
    EXPECT_TRUE(D::masked_stats(
        {.x = x.data(), .count = 5000, .workspace = workspace.data(), .stats = stats.data()}));
    EXPECT_TRUE(D::whiten({.x = x.data(), .count = 5000, .stats = stats.data(), .y = x.data()}));
    return x.values();
  });
}

}  // namespace temper::test
