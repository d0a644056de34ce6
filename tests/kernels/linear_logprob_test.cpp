// Oracle: softmax in double over the same logits, and its derivatives written out (algorithms:
// dlp/dz = 1[y] - p, dH/dz = -p (ln p + H), both over the temperature).
#include "temper/kernels/linear_logprob.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "temper/core/rng.h"
#include "temper/core/threads.h"
#include "temper/kernels/sampling.h"

namespace temper::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t n, uint64_t seed, float scale) {
  RngStream rng(seed, RngPurpose::kTest, 1);
  Floats out(static_cast<size_t>(n));
  for (auto& v : out) v = scale * static_cast<float>(rng.next_uniform() * 2 - 1);
  return out;
}

struct Head {
  int64_t vocab, k;
  Floats rows, panels;
  Head(int64_t vocab_, int64_t k_)
      : vocab(vocab_), k(k_), rows(random_floats(vocab_ * k_, 2, 1.0f)) {
    panels.assign(static_cast<size_t>(panel_elements(vocab, k)), 0.0f);
    pack_rows(rows.data(), vocab, k, 0, panels.data());
  }
  PackedWeight weight() const { return {panels.data(), nullptr, vocab, k}; }
};

struct Outputs {
  Floats logprob, entropy, max, log_sum;
  explicit Outputs(size_t m) : logprob(m), entropy(m), max(m), log_sum(m) {}
};

LinearLogprobArgs args_of(const Head& head, const Floats& hidden,
                          const std::vector<int32_t>& targets, float inverse_temperature,
                          Outputs& out) {
  return {.hidden = hidden.data(),
          .hidden_stride = head.k,
          .head = head.weight(),
          .targets = targets.data(),
          .rows = static_cast<int64_t>(targets.size()),
          .inverse_temperature = inverse_temperature,
          .logprob = out.logprob.data(),
          .entropy = out.entropy.data(),
          .max = out.max.data(),
          .log_sum = out.log_sum.data()};
}

std::vector<double> softmax(const Head& h, const float* x, double inverse_temperature) {
  std::vector<double> z(static_cast<size_t>(h.vocab));
  double max = -1e300, sum = 0;
  for (int64_t v = 0; v < h.vocab; ++v) {
    double dot = 0;
    for (int64_t i = 0; i < h.k; ++i)
      dot += double{x[i]} * double{h.rows[static_cast<size_t>(v * h.k + i)]};
    z[static_cast<size_t>(v)] = dot * inverse_temperature;
    max = std::max(max, z[static_cast<size_t>(v)]);
  }
  for (auto& v : z) sum += v = std::exp(v - max);
  for (auto& v : z) v /= sum;
  return z;
}

TEST(LinearLogprob, ValuesAndGradientsMatchTheFormulas) {
  for (const int64_t vocab : {1, 7, 33, 1500}) {
    for (const float inverse_temperature : {1.0f, 1.0f / 0.7f}) {
      const Head head(vocab, 24);
      const int64_t m = 5;
      const Floats hidden = random_floats(m * 24, 3, 1.5f);
      std::vector<int32_t> targets;
      for (int64_t r = 0; r < m; ++r) targets.push_back(static_cast<int32_t>((r * 577) % vocab));
      Outputs out(static_cast<size_t>(m));
      const auto args = args_of(head, hidden, targets, inverse_temperature, out);
      linear_logprob(args);
      const Floats g = random_floats(m, 4, 1), e = random_floats(m, 5, 1);
      Floats dhidden(static_cast<size_t>(m * 24), NAN), dpanels(head.panels.size(), 0.0f);
      linear_logprob_backward({.forward = args,
                               .dlogprob = g.data(),
                               .dentropy = e.data(),
                               .dhidden = dhidden.data(),
                               .dhidden_stride = 24,
                               .dweight = dpanels.data()});
      std::vector<double> dw(static_cast<size_t>(vocab * 24), 0.0);
      for (int64_t r = 0; r < m; ++r) {
        const size_t at = static_cast<size_t>(r);
        const auto p = softmax(head, hidden.data() + r * 24, inverse_temperature);
        double entropy = 0;
        for (const double q : p) entropy -= q > 0 ? q * std::log(q) : 0;
        EXPECT_NEAR(out.logprob[at], std::log(p[static_cast<size_t>(targets[at])]), 5e-6);
        EXPECT_NEAR(out.entropy[at], entropy, 5e-6);
        std::vector<double> dx(24, 0.0);
        for (int64_t v = 0; v < vocab; ++v) {
          const double q = p[static_cast<size_t>(v)];
          const double dz = inverse_temperature * (double{g[at]} * ((v == targets[at]) - q) -
                                                   double{e[at]} * q * (std::log(q) + entropy));
          for (int64_t i = 0; i < 24; ++i) {
            dx[static_cast<size_t>(i)] += dz * double{head.rows[static_cast<size_t>(v * 24 + i)]};
            dw[static_cast<size_t>(v * 24 + i)] +=
                dz * double{hidden[static_cast<size_t>(r * 24 + i)]};
          }
        }
        for (int64_t i = 0; i < 24; ++i)
          ASSERT_NEAR(dhidden[static_cast<size_t>(r * 24 + i)], dx[static_cast<size_t>(i)], 2e-5);
      }
      Floats rows(static_cast<size_t>(vocab * 24));
      unpack_rows(dpanels.data(), 0, vocab, 24, rows.data());
      for (size_t i = 0; i < rows.size(); ++i) ASSERT_NEAR(rows[i], dw[i], 2e-5);
    }
  }
}

TEST(LinearLogprob, BitsDoNotDependOnTheBatchOrThreads) {
  const Head head(3000, 40);
  const Floats hidden = random_floats(300 * 40, 6, 1);
  std::vector<int32_t> targets;
  for (int32_t r = 0; r < 300; ++r) targets.push_back(r * 9 % 3000);
  Outputs whole(300);
  linear_logprob(args_of(head, hidden, targets, 1.25f, whole));
  const Floats g = random_floats(300, 7, 1);
  const auto backward = [&](const std::vector<int64_t>& parts) {
    Floats dw(head.panels.size(), 0.0f), dx(300 * 40);
    int64_t at = 0;
    for (const int64_t n : parts) {
      Outputs out(static_cast<size_t>(n));
      const Floats part(hidden.begin() + at * 40, hidden.begin() + (at + n) * 40);
      const std::vector<int32_t> ids(targets.begin() + at, targets.begin() + at + n);
      const auto args = args_of(head, part, ids, 1.25f, out);
      linear_logprob(args);
      for (int64_t r = 0; r < n; ++r) {
        EXPECT_EQ(out.logprob[static_cast<size_t>(r)], whole.logprob[static_cast<size_t>(at + r)]);
        EXPECT_EQ(out.entropy[static_cast<size_t>(r)], whole.entropy[static_cast<size_t>(at + r)]);
      }
      linear_logprob_backward({.forward = args,
                               .dlogprob = g.data() + at,
                               .dhidden = dx.data() + at * 40,
                               .dhidden_stride = 40,
                               .dweight = dw.data()});
      at += n;
    }
    return std::pair{dw, dx};
  };
  const auto base = backward({300});
  set_num_threads(1);
  EXPECT_EQ(backward({1, 128, 171}), base);
  set_num_threads(3);
  EXPECT_EQ(backward({150, 150}), base);
  set_num_threads(2);
}

TEST(LinearSample, PolicyNumbersHaveTheBitsOfScoring) {
  const Head head(700, 16);
  const Floats hidden = random_floats(70 * 16, 8, 2);
  for (const SamplingParams params :
       {SamplingParams{.temperature = 0.7f}, SamplingParams{.temperature = 0},
        SamplingParams{.temperature = 1.3f, .top_k = 20, .top_p = 0.8f}}) {
    std::vector<SampleRow> rows;
    for (int i = 0; i < 70; ++i) rows.push_back({&params, {}, (i + 0.5) / 70});
    std::vector<SampledToken> drawn(70);
    linear_sample({.hidden = hidden.data(),
                   .hidden_stride = 16,
                   .head = head.weight(),
                   .allowed = 650,
                   .rows = rows,
                   .out = drawn});
    std::vector<int32_t> targets;
    for (const auto& t : drawn) {
      targets.push_back(t.id);
      EXPECT_LT(t.id, 650);
    }
    Outputs out(70);
    linear_logprob(args_of(head, hidden, targets,
                           params.temperature == 0 ? 1.0f : 1.0f / params.temperature, out));
    for (size_t i = 0; i < 70; ++i) {
      EXPECT_EQ(drawn[i].policy_logprob, out.logprob[i]);
      EXPECT_EQ(drawn[i].entropy, out.entropy[i]);
      if (params.temperature > 0) {
        EXPECT_NEAR(drawn[i].logprob, drawn[i].policy_logprob - drawn[i].log_kept_mass, 2e-5);
      }
    }
  }
}

// Invariant: inverse CDF over u = (i + 1/2) / n visits each id about n p times.
TEST(LinearSample, FrequenciesAreTheDistribution) {
  const Head head(5, 3);
  const Floats one = random_floats(3, 9, 1);
  const SamplingParams params{.temperature = 0.8f};
  const int n = 4000;
  Floats hidden;
  std::vector<SampleRow> rows;
  for (int i = 0; i < n; ++i) {
    hidden.insert(hidden.end(), one.begin(), one.end());
    rows.push_back({&params, {}, (i + 0.5) / n});
  }
  std::vector<SampledToken> drawn(static_cast<size_t>(n));
  linear_sample({.hidden = hidden.data(),
                 .hidden_stride = 3,
                 .head = head.weight(),
                 .allowed = 5,
                 .rows = rows,
                 .out = drawn});
  const auto p = softmax(head, one.data(), 1 / 0.8);
  std::vector<int> counts(5);
  for (const auto& t : drawn) counts[static_cast<size_t>(t.id)]++;
  for (size_t v = 0; v < 5; ++v) EXPECT_NEAR(counts[v], n * p[v], 1.01) << v;
}

}  // namespace
}  // namespace temper::kernels
