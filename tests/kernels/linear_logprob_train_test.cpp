// Options, gradients and the one-pass form of `linear_logprob`. Oracles: the formulas in double,
// central differences of them in double, values worked by hand, and invariants of the bits.
#include <gtest/gtest.h>

#include <array>
#include <span>

#include "head_case.h"
#include "temper/core/error.h"
#include "temper/kernels/sampling.h"

namespace temper::kernels {
namespace {

using namespace test;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const HeadOptions kOptions[] = {
    {},
    {.temperature = 0.7f, .softcap = 5},
    {.temperature = 1.4f, .support = 1301},
    {.temperature = 0.9f, .top_k = 64, .reference = true},
    {.temperature = 1.1f,
     .softcap = 3,
     .ref_softcap = 30,
     .support = 1025,
     .top_k = 5,
     .reference = true},
};

TEST(LinearLogprobOptions, NumbersAreTheFormulas) {
  for (const HeadOptions& options : kOptions) {
    const HeadCase c(7, 1500, 24, options);
    const HeadOutputs o = c.forward();
    const DoubleHead oracle(c);
    for (int64_t r = 0; r < c.rows; ++r) {
      const size_t at = static_cast<size_t>(r);
      const RowNumbers want = oracle.row(r);
      EXPECT_NEAR(o.logprob[at], want.logprob, 1e-5);
      EXPECT_NEAR(o.entropy[at], want.entropy, 1e-5);
      EXPECT_NEAR(double{o.max[at]} + double{o.log_sum[at]} + want.logprob,
                  double{o.max[at]} + double{o.log_sum[at]} + double{o.logprob[at]}, 1e-5);
      if (options.reference) {
        EXPECT_NEAR(o.kl[at], want.kl, 1e-5);
        EXPECT_NEAR(o.ref_logprob[at], want.ref_logprob, 1e-5);
      }
      std::vector<int32_t> order(want.policy.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return want.policy[static_cast<size_t>(a)] > want.policy[static_cast<size_t>(b)];
      });
      for (int64_t i = 0; i < options.top_k; ++i) {
        const size_t place = static_cast<size_t>(r * options.top_k + i);
        const size_t id = static_cast<size_t>(o.top_ids[place]);
        ASSERT_LT(id, want.policy.size());
        // Neighbours closer than the rounding may change places.
        const size_t expected = static_cast<size_t>(order[static_cast<size_t>(i)]);
        EXPECT_NEAR(want.policy[id], want.policy[expected], 1e-5);
        EXPECT_NEAR(o.top_logprobs[place], want.policy[id], 1e-5);
      }
    }
  }
}

TEST(LinearLogprobOptions, GradientsAreFiniteDifferences) {
  for (const HeadOptions& options : kOptions) {
    HeadOptions small = options;
    if (small.support > 0) small.support = 61;
    small.top_k = 0;
    const HeadCase c(3, 70, 6, small);
    const HeadGradients g = c.backward(c.forward());
    DoubleHead oracle(c);
    for (size_t i = 0; i < oracle.hidden.size(); ++i) {
      ASSERT_NEAR(g.dhidden[i], oracle.slope(oracle.hidden[i]), 2e-5);
    }
    Floats dw(c.head.rows.size());
    unpack_rows(g.dweight.data(), 0, c.head.n, c.head.k, dw.data());
    for (size_t i = 0; i < dw.size(); ++i) {
      ASSERT_NEAR(dw[i], oracle.slope(oracle.weight[i]), 2e-5) << i;
    }
  }
}

/// A case whose logits are `logits` and whose reference's are `reference`, exactly.
HeadCase exact_case(const Floats& logits, const Floats& reference, const HeadOptions& options) {
  HeadCase c(1, std::ssize(logits), 1, options);
  c.head = TestHead(std::ssize(logits), 1, logits);
  c.ref_head = TestHead(std::ssize(logits), 1, reference);
  c.hidden = c.ref_hidden = {1.0f};
  return c;
}

TEST(LinearLogprobOptions, KlByHand) {
  // p = (3/4, 1/4), q = (1/2, 1/2): KL = ln 2 - H(p).
  const HeadOptions with{.reference = true};
  const HeadOutputs o = exact_case({std::log(3.0f), 0}, {7, 7}, with).forward();
  EXPECT_NEAR(o.kl[0], 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(o.ref_logprob[0], std::log(0.5), 1e-7);
  const Floats logits = random_floats(1000, 9, 30);
  EXPECT_EQ(exact_case(logits, logits, with).forward().kl[0], 0.0f);
  // Where the policy has no mass, the reference's does not count; the other way round is finite.
  EXPECT_EQ(exact_case({0, -kInfinity}, {0, -kInfinity}, with).forward().kl[0], 0.0f);
  EXPECT_NEAR(exact_case({0, -kInfinity}, {0, 0}, with).forward().kl[0], std::log(2), 1e-7);
  EXPECT_NEAR(exact_case({0, 0}, {0, -kInfinity}, with).forward().kl[0], 5000 - std::log(2), 1e-3);
}

TEST(LinearLogprobOptions, TopKTakesTheLowerOfEqualIds) {
  Floats logits(100, 1.0f);
  for (const size_t id : {90u, 40u, 65u}) logits[id] = 3;
  logits[17] = 2;
  const HeadOutputs o = exact_case(logits, logits, {.top_k = 6}).forward();
  EXPECT_EQ(o.top_ids, (std::vector<int32_t>{40, 65, 90, 17, 0, 1}));
  EXPECT_EQ(o.top_logprobs[0], o.top_logprobs[2]);
  EXPECT_LT(o.top_logprobs[3], o.top_logprobs[2]);
}

TEST(LinearLogprobOptions, TopKHasTheBitsOfScoringAndEndsWithTheIds) {
  HeadCase c(40, 333, 9, {.temperature = 0.8f, .softcap = 4, .support = 50, .top_k = 64});
  const HeadOutputs o = c.forward();
  for (size_t i = 0; i < 64; ++i) {
    for (size_t r = 0; r < 40; ++r) c.targets[r] = std::max(0, o.top_ids[r * 64 + i]);
    const HeadOutputs scored = c.forward();
    for (size_t r = 0; r < 40; ++r) {
      if (i < 50) {
        EXPECT_EQ(o.top_logprobs[r * 64 + i], scored.logprob[r]);
      } else {
        EXPECT_EQ(o.top_ids[r * 64 + i], -1);
        EXPECT_EQ(o.top_logprobs[r * 64 + i], -kInfinity);
      }
    }
  }
}

TEST(LinearLogprobOptions, SoftcapBoundsTheLogits) {
  // Saturated: both logits become +-2, whatever their size, and no gradient passes.
  const HeadCase c = exact_case({1e6f, -1e6f}, {0, 0}, {.softcap = 2});
  const HeadOutputs o = c.forward();
  EXPECT_NEAR(o.logprob[0], -std::log1p(std::exp(-4.0)), 1e-7);
  EXPECT_EQ(c.backward(o).dhidden[0], 0.0f);
}

TEST(LinearSample, PolicyNumbersHaveTheBitsOfScoringUnderEveryOption) {
  for (const HeadOptions& options : kOptions) {
    HeadCase c(70, 1500, 16, options);
    for (const int64_t top_k : {0, 20}) {
      const SamplingParams params{.temperature = options.temperature, .top_k = top_k};
      std::vector<SampleRow> rows;
      for (int i = 0; i < 70; ++i) rows.push_back({&params, {}, (i + 0.5) / 70});
      std::vector<SampledToken> drawn(70);
      linear_sample({.hidden = c.hidden.data(),
                     .hidden_stride = 16,
                     .head = c.head.packed(),
                     .allowed = 1400,
                     .rows = rows,
                     .out = drawn,
                     .softcap = options.softcap,
                     .support = options.support});
      for (size_t r = 0; r < 70; ++r) {
        ASSERT_LT(drawn[r].id, std::min<int64_t>(1400, c.support()));
        c.targets[r] = drawn[r].id;
      }
      const HeadOutputs scored = c.forward();
      for (size_t r = 0; r < 70; ++r) {
        EXPECT_EQ(drawn[r].policy_logprob, scored.logprob[r]);
        EXPECT_EQ(drawn[r].entropy, scored.entropy[r]);
      }
    }
  }
}

/// Coefficients that depend on the new log-prob, with rows and a whole tile that have none.
float coefficient(int64_t row, float logprob) {
  const bool dead = row % 7 == 2 || (row >= 256 && row < 300) || row % 16 >= 12;
  return dead ? 0.0f : std::exp(0.1f * logprob) * (row % 3 == 0 ? -1.0f : 0.5f);
}

struct Trained {
  HeadOutputs outputs;
  HeadGradients gradients;
  bool operator==(const Trained&) const = default;
};

Trained two_passes(HeadCase c) {
  Trained t{c.forward(), {}};
  for (int64_t r = 0; r < c.rows; ++r) {
    const size_t at = static_cast<size_t>(r);
    c.dlogprob[at] = coefficient(r, t.outputs.logprob[at]);
    c.dentropy[at] = c.dkl[at] = 0.25f * c.dlogprob[at];
  }
  t.gradients = c.backward(t.outputs);
  return t;
}

Trained one_pass(HeadCase c) {
  Trained t{c.outputs(), {}};
  for (Floats* f : {&c.dlogprob, &c.dentropy, &c.dkl}) f->assign(f->size(), NAN);
  int64_t next = 0;
  linear_logprob_train({c.backward_args(t.outputs, t.gradients), [&](int64_t begin, int64_t end) {
                          EXPECT_EQ(begin, next);
                          next = end;
                          for (int64_t r = begin; r < end; ++r) {
                            const size_t at = static_cast<size_t>(r);
                            c.dlogprob[at] = coefficient(r, t.outputs.logprob[at]);
                            c.dentropy[at] = c.dkl[at] = 0.25f * c.dlogprob[at];
                          }
                        }});
  EXPECT_EQ(next, c.rows);
  return t;
}

TEST(LinearLogprobTrain, HasTheBitsOfForwardAndBackward) {
  for (const HeadOptions& options : kOptions) {
    HeadOptions small = options;
    small.support = options.support / 4;
    for (const Stored stored : {Stored::kFloat, Stored::kBf16, Stored::kDot}) {
      const HeadCase c(601, 400, 20, small, stored);
      const Trained once = one_pass(c);
      EXPECT_TRUE(once == two_passes(c));
      const ThreadScope scope(1);
      EXPECT_TRUE(once == one_pass(c));
    }
  }
}

TEST(LinearLogprobTrain, CoefficientsMayBeThereBeforehand) {
  const HeadCase c(300, 90, 8, {});
  HeadOutputs o = c.outputs();
  HeadGradients g;
  linear_logprob_train({c.backward_args(o, g), {}});
  const HeadOutputs forward = c.forward();
  EXPECT_EQ(o, forward);
  EXPECT_EQ(g, c.backward(forward));
}

TEST(LinearLogprobTrain, SameBitsOnAllTargets) {
  expect_same_bits_on_targets([] {
    const Trained t = one_pass(HeadCase(40, 1100, 20, kOptions[4]));
    Floats all = t.outputs.kl;
    for (const Floats& f : {t.outputs.logprob, t.outputs.entropy, t.outputs.top_logprobs,
                            t.gradients.dhidden, t.gradients.dweight}) {
      all.insert(all.end(), f.begin(), f.end());
    }
    return all;
  });
}

TEST(LinearLogprobBackward, RowsWithoutACoefficientReachNothing) {
  for (const Stored stored : {Stored::kFloat, Stored::kDot}) {
    HeadCase c(300, 90, 8, {.reference = true}, stored);
    for (int64_t r = 0; r < c.rows; ++r) {
      const size_t at = static_cast<size_t>(r);
      c.dlogprob[at] = coefficient(r, -2);
      if (c.dlogprob[at] == 0.0f) c.dentropy[at] = c.dkl[at] = 0;
    }
    const HeadGradients clean = c.backward(c.forward());
    HeadCase poisoned = c;
    for (size_t r = 0; r < 300; ++r) {
      if (c.dlogprob[r] != 0.0f) continue;
      poisoned.hidden[r * 8 + r % 8] = r % 2 == 0 ? kInfinity : NAN;
      for (size_t i = 0; i < 8; ++i) EXPECT_EQ(clean.dhidden[r * 8 + i], 0.0f);
    }
    EXPECT_EQ(poisoned.backward(poisoned.forward()), clean);
    HeadOutputs o = poisoned.outputs();
    HeadGradients g;
    linear_logprob_train({poisoned.backward_args(o, g), {}});
    EXPECT_EQ(g, clean);
  }
}

TEST(LinearLogprobBackward, NoCoefficientAtAllLeavesTheWeightAlone) {
  HeadCase c(5, 40, 6, {});
  c.dlogprob.assign(5, 0.0f);
  c.dentropy.assign(5, 0.0f);
  const HeadGradients g = c.backward(c.forward());
  EXPECT_EQ(g.dhidden, Floats(30, 0.0f));
  EXPECT_EQ(g.dweight, Floats(c.head.panels.size(), 0.0f));
}

TEST(LinearLogprobOptions, MistakesAreNamed) {
  const HeadCase c(2, 40, 6, {.top_k = 3, .reference = true});
  HeadOutputs o = c.outputs();
  const auto fails = [&](auto&& change) {
    LinearLogprobArgs a = c.args(o);
    change(a);
    EXPECT_THROW(linear_logprob(a), Error);
  };
  fails([](auto& a) { a.support = 41; });
  fails([](auto& a) { a.softcap = -1; });
  fails([](auto& a) { a.top_k = kMaxTopK + 1; });
  fails([](auto& a) { a.top_ids = nullptr; });
  fails([](auto& a) { a.reference.head.n = 39; });
  fails([](auto& a) { a.reference.kl = nullptr; });
  HeadGradients g;
  LinearLogprobBackwardArgs b = c.backward_args(o, g);
  b.forward.entropy = nullptr;
  EXPECT_THROW(linear_logprob_backward(b), Error);
  b = c.backward_args(o, g);
  b.forward.reference.hidden = nullptr;
  EXPECT_THROW(linear_logprob_backward(b), Error);
}

}  // namespace
}  // namespace temper::kernels
