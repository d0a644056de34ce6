// Golden vectors: tests/golden/make_sampling.py (transformers' logits processors). The rest is
// worked by hand or an invariant. One-hot hidden rows make the logits of `linear_sample` exact: 1 *
// w + 0.
#include "temper/kernels/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "golden_numbers.h"
#include "kernel_test_util.h"

namespace temper::kernels {
namespace {

using namespace test;
using Floats = std::vector<float>;
using Ids = std::vector<int32_t>;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr double kNearestBelowOne = 1.0 - 0x1p-53;

Floats distribution(const Floats& logits, const SamplingParams& params, const Ids& seen = {}) {
  Floats out(logits.size());
  sampling_distribution(logits, params, seen, out);
  return out;
}

/// An LM head whose row of logits for hidden row r is `logits[r]`.
class Head {
 public:
  explicit Head(const std::vector<Floats>& logits)
      : k_(std::ssize(logits)), vocab_(std::ssize(logits[0])) {
    Floats rows(static_cast<size_t>(vocab_ * k_));
    for (int64_t r = 0; r < k_; ++r) {
      for (int64_t v = 0; v < vocab_; ++v) {
        rows[static_cast<size_t>(v * k_ + r)] =
            logits[static_cast<size_t>(r)][static_cast<size_t>(v)];
      }
    }
    panels_.assign(static_cast<size_t>(panel_elements(vocab_, k_)), 0.0f);
    pack_rows(rows.data(), vocab_, k_, 0, panels_.data());
  }

  /// Draws rows[i] from the logits of `which[i]`.
  std::vector<SampledToken> draw(const std::vector<int64_t>& which,
                                 const std::vector<SampleRow>& rows, int64_t allowed = 0) const {
    Floats hidden(which.size() * static_cast<size_t>(k_), 0.0f);
    for (size_t i = 0; i < which.size(); ++i)
      hidden[i * static_cast<size_t>(k_) + static_cast<size_t>(which[i])] = 1;
    std::vector<SampledToken> out(rows.size());
    linear_sample({.hidden = hidden.data(),
                   .hidden_stride = k_,
                   .head = {panels_.data(), nullptr, vocab_, k_},
                   .allowed = allowed > 0 ? allowed : vocab_,
                   .rows = rows,
                   .out = out});
    return out;
  }

  SampledToken draw_one(const SamplingParams& params, double uniform, const Ids& seen = {},
                        int64_t allowed = 0) const {
    return draw({0}, {{&params, seen, uniform}}, allowed)[0];
  }

 private:
  int64_t k_, vocab_;
  Floats panels_;
};

/// log softmax(logits / temperature) in double.
std::vector<double> log_policy(const Floats& logits, double temperature) {
  double max = -1e300, sum = 0;
  for (const float z : logits) max = std::max(max, double{z} / temperature);
  for (const float z : logits) sum += std::exp(double{z} / temperature - max);
  std::vector<double> out;
  for (const float z : logits) out.push_back(double{z} / temperature - max - std::log(sum));
  return out;
}

TEST(SamplingDistribution, IsThatOfTransformers) {
  const auto inputs = SafetensorsFile::open(golden_folder("sampling") / "logits.safetensors");
  const auto outputs = SafetensorsFile::open(golden_folder("sampling") / "processed.safetensors");
  const Floats logits = golden_floats(inputs, "logits");
  const auto history = golden_exact<int64_t>(inputs, "history");
  const auto cases = manifest("sampling")["cases"];
  ASSERT_EQ(cases.size(), 24u);
  for (const auto& c : cases) {
    const std::string name = c["name"];
    const SamplingParams params{.temperature = c.value("temperature", 1.0f),
                                .top_k = c.value("top_k", 0),
                                .top_p = c.value("top_p", 1.0f),
                                .min_p = c.value("min_p", 0.0f),
                                .repetition_penalty = c.value("repetition_penalty", 1.0f)};
    const auto expected = golden_exact<double>(outputs, name + "/probs");
    const std::vector<int64_t> rows = c["rows"];
    for (size_t at = 0; at < rows.size(); ++at) {
      const Floats row(logits.begin() + rows[at] * 64, logits.begin() + (rows[at] + 1) * 64);
      const Ids seen(history.begin() + rows[at] * 6, history.begin() + (rows[at] + 1) * 6);
      const Floats got = distribution(row, params, seen);
      // Scaled logits are float32: an exponent is off by half its largest argument's spacing.
      const double largest =
          std::abs(*std::min_element(row.begin(), row.end())) / params.temperature;
      for (size_t i = 0; i < 64; ++i) {
        const double e = expected[at * 64 + i];
        // Float32 has no numbers below 1e-38: there a kept id may show as 0.
        ASSERT_EQ(got[i] == 0, e < 1e-38)
            << name << " row " << rows[at] << " id " << i << ": " << e;
        ASSERT_NEAR(got[i], e, 1e-6 + e * largest * 0x1p-22)
            << name << " row " << rows[at] << " id " << i;
      }
    }
  }
}

TEST(SamplingDistribution, TiesWithTheKthStayAsInTransformers) {
  const Floats logits = {1, 3, 3, 2, 3};
  const float third = 1.0f / 3;
  const Floats expected = {0, third, third, 0, third};
  for (const int64_t k : {1, 2, 3}) {
    const Floats got = distribution(logits, {.top_k = k});
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(got[i], expected[i], 1e-7) << k << " " << i;
  }
  EXPECT_GT(distribution(logits, {.top_k = 4})[3], 0);
  EXPECT_EQ(distribution(logits, {.top_k = 4})[0], 0);
  for (const float p : distribution(Floats(40, 0.75f), {.top_k = 1}))
    EXPECT_NEAR(p, 1.0 / 40, 1e-8);
}

// Cumulative from below 1/4, 1/2 <= 1 - 0.5: two of four go, and among equals the higher ids.
TEST(SamplingDistribution, TopPDropsTheHigherOfEqualIds) {
  EXPECT_EQ(distribution(Floats(4, 2.0f), {.top_p = 0.5f}), (Floats{0.5f, 0.5f, 0, 0}));
  EXPECT_EQ(distribution({0, 5, 0}, {.top_p = 1e-6f}), (Floats{0, 1, 0}));
}

TEST(SamplingDistribution, RepetitionPenaltyCountsAnIdOnce) {
  const Floats got = distribution({2, -2, 1, 0}, {.repetition_penalty = 2}, {0, 1, 0, 3});
  const double z[] = {1, -4, 1, 0};
  double sum = 0;
  for (const double v : z) sum += std::exp(v);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i], std::exp(z[i]) / sum, 1e-7);
}

TEST(SamplingDistribution, MinusInfinityHasNoMassUnderAnyRule) {
  Floats logits = random_floats(50, 3, 2);
  for (const size_t i : {0u, 7u, 49u}) logits[i] = kMinusInfinity;
  for (const SamplingParams& p :
       {SamplingParams{}, SamplingParams{.top_k = 48}, SamplingParams{.top_p = 0.99f},
        SamplingParams{.min_p = 0.01f}, SamplingParams{.repetition_penalty = 1.5f}}) {
    const Floats got = distribution(logits, p, {0, 1});
    double sum = 0;
    for (const float v : got) sum += double{v};
    EXPECT_NEAR(sum, 1, 1e-6);
    for (const size_t i : {0u, 7u, 49u}) EXPECT_EQ(got[i], 0);
  }
}

TEST(SamplingDistribution, GreedyIsOneHotAtTheLowerOfEqualIds) {
  EXPECT_EQ(distribution({1, 3, 0, 3}, {.temperature = 0}), (Floats{0, 1, 0, 0}));
  EXPECT_EQ(distribution({1, 3, 0, 2}, {.temperature = 0, .repetition_penalty = 2}, {1}),
            (Floats{0, 0, 0, 1}));
}

struct Rules {
  const char* name;
  SamplingParams params;
  int64_t allowed;  // Of 2500.
};
const Rules kRules[] = {
    {"plain", {}, 2500},
    {"fewer allowed", {.temperature = 0.6f}, 2301},
    {"top_k", {.temperature = 1.2f, .top_k = 40}, 2500},
    {"top_p", {.top_p = 0.7f}, 2400},
    {"min_p", {.temperature = 2, .min_p = 0.2f}, 2500},
    {"penalty", {.repetition_penalty = 1.3f}, 2500},
    {"all", {0.9f, 300, 0.95f, 0.02f, 1.1f}, 2490},
};

TEST(LinearSample, DrawsByInverseCdfFromTheDistribution) {
  const Floats logits = random_floats(2500, 5, 4);
  const Head head({logits});
  const Ids seen = {3, 1024, 2047, 3};
  for (const Rules& rules : kRules) {
    const Floats p =
        distribution({logits.begin(), logits.begin() + rules.allowed}, rules.params, seen);
    std::vector<SampleRow> rows;
    for (int i = 0; i < 400; ++i) rows.push_back({&rules.params, seen, (i + 0.5) / 400});
    const auto drawn = head.draw(std::vector<int64_t>(400, 0), rows, rules.allowed);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t id = static_cast<size_t>(drawn[i].id);
      ASSERT_LT(id, p.size()) << rules.name;
      ASSERT_GT(p[id], 0) << rules.name;
      double below = 0;
      for (size_t v = 0; v < id; ++v) below += double{p[v]};
      ASSERT_LE(below, rows[i].uniform + 2e-6) << rules.name;
      ASSERT_GE(below + double{p[id]}, rows[i].uniform - 2e-6) << rules.name;
      ASSERT_NEAR(drawn[i].logprob, std::log(double{p[id]}), 5e-6) << rules.name;
    }
  }
}

TEST(LinearSample, KeptMassMakesThePolicySumToOneOverTheKeptIds) {
  const Floats logits = random_floats(2500, 6, 4);
  const Head head({logits});
  const Ids seen = {3, 1024, 2047};
  for (const Rules& rules : kRules) {
    const auto t = head.draw_one(rules.params, 0.4, seen, rules.allowed);
    const auto policy = log_policy(logits, double{rules.params.temperature});
    const Floats p =
        distribution({logits.begin(), logits.begin() + rules.allowed}, rules.params, seen);
    double sum = 0, entropy = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] > 0) sum += std::exp(policy[i] - double{t.log_kept_mass});
    }
    for (const double lp : policy) entropy -= std::exp(lp) * lp;
    EXPECT_NEAR(sum, 1, 2e-6) << rules.name;
    EXPECT_NEAR(t.policy_logprob, policy[static_cast<size_t>(t.id)], 5e-6) << rules.name;
    EXPECT_NEAR(t.entropy, entropy, 5e-6) << rules.name;
    EXPECT_EQ(t.log_kept_mass == 0, rules.allowed == 2500 && rules.params.top_k == 0 &&
                                        rules.params.top_p == 1 && rules.params.min_p == 0)
        << rules.name;
  }
}

TEST(LinearSample, GreedyTakesTheLowestOfEqualIdsThatAreAllowed) {
  for (const int32_t first : {0, 1, 31, 32, 1023, 1024, 1999}) {
    Floats logits = random_floats(2000, 7, 1);
    for (size_t i = static_cast<size_t>(first); i < 2000; i += 3) logits[i] = 5;
    const Head head({logits});
    const auto t = head.draw_one({.temperature = 0}, 0.9);
    EXPECT_EQ(t.id, first);
    EXPECT_EQ(t.logprob, 0);
    EXPECT_EQ(t.log_kept_mass, t.policy_logprob);
    EXPECT_NEAR(t.policy_logprob, log_policy(logits, 1)[static_cast<size_t>(first)], 5e-6);
    EXPECT_NE(head.draw_one({.temperature = 0, .repetition_penalty = 10}, 0, {first}).id, first);
  }
  Floats logits(100, 0.0f);
  logits[90] = 9;
  logits[60] = logits[70] = 1;
  EXPECT_EQ(Head({logits}).draw_one({.temperature = 0}, 0, {}, 80).id, 60);
  EXPECT_EQ(Head({logits}).draw_one({.temperature = 0, .repetition_penalty = 4}, 0, {60}, 80).id,
            70);
}

TEST(LinearSample, UniformAtTheEndsOfItsRange) {
  for (const int64_t n : {1, 31, 32, 33, 1024, 1025, 3000}) {
    const Head head({Floats(static_cast<size_t>(n), -0.5f)});
    EXPECT_EQ(head.draw_one({}, 0).id, 0);
    EXPECT_EQ(head.draw_one({}, kNearestBelowOne).id, n - 1);
    const int64_t allowed = (n + 1) / 2;
    EXPECT_EQ(head.draw_one({}, kNearestBelowOne, {}, allowed).id, allowed - 1);
    EXPECT_EQ(head.draw_one({.temperature = 0.5f, .top_p = 0.999f}, 0).id, 0);
  }
}

TEST(LinearSample, NeverDrawsAnIdWithoutWeight) {
  // Small weights in later chunks, close to the rounding of the sum, then a chunk with none at all.
  for (int i = 0; i < 120; ++i) {
    Floats logits(4096, -1000.0f);
    logits[5] = 0;
    logits[1030] = logits[2050] = -34.5f - 0.02f * static_cast<float>(i);
    const Head head({logits});
    for (const double u : {0.0, 0.5, 1 - 0x1p-52, kNearestBelowOne}) {
      const auto t = head.draw_one({}, u);
      ASSERT_GT(t.policy_logprob, -40) << "id " << t.id << " at u " << u;
    }
  }
}

TEST(LinearSample, OneHugeLogitAndAllEqual) {
  Floats logits(1500, -3.0f);
  logits[1234] = 1e4f;
  const Head peak({logits});
  for (const double u : {0.0, 0.5, kNearestBelowOne}) {
    for (const SamplingParams& p : {SamplingParams{}, SamplingParams{.temperature = 0.01f},
                                    SamplingParams{.top_k = 5, .top_p = 0.9f, .min_p = 0.1f}}) {
      const auto t = peak.draw_one(p, u);
      EXPECT_EQ(t.id, 1234);
      EXPECT_EQ(t.logprob, 0);
      EXPECT_EQ(t.policy_logprob, 0);
      EXPECT_EQ(t.log_kept_mass, 0);
      EXPECT_EQ(t.entropy, 0);
    }
  }
  const Head flat({Floats(1500, 7.25f)});
  for (const double u : {0.0, 0.1, 0.5, 0.9}) {
    const auto t = flat.draw_one({.temperature = 0.7f}, u + 1e-6);
    EXPECT_EQ(t.id, static_cast<int32_t>((u + 1e-6) * 1500));
    EXPECT_NEAR(t.entropy, std::log(1500), 1e-6);
    EXPECT_NEAR(t.policy_logprob, -std::log(1500), 1e-6);
  }
}

TEST(LinearSample, MinusInfinityIsNeverDrawn) {
  Floats logits = random_floats(200, 8, 1);
  for (size_t i = 0; i < 200; ++i) {
    if (i % 5 != 2) logits[i] = kMinusInfinity;
  }
  Floats finite;
  for (size_t i = 2; i < 200; i += 5) finite.push_back(logits[i]);
  double entropy = 0;
  for (const double lp : log_policy(finite, 1)) entropy -= std::exp(lp) * lp;
  const Head head({logits});
  for (int i = 0; i <= 20; ++i) {
    const auto t = head.draw_one({}, std::min(i / 20.0, kNearestBelowOne));
    EXPECT_EQ(t.id % 5, 2);
    EXPECT_NEAR(t.entropy, entropy, 1e-6);
  }
}

TEST(LinearSample, BitsDoNotDependOnRowsThreadsOrInstructions) {
  std::vector<Floats> logits;
  for (uint32_t r = 0; r < 6; ++r) logits.push_back(random_floats(1100, 20 + r, 5));
  const Head head(logits);
  const Ids seen = {4, 900};
  std::vector<int64_t> which;
  std::vector<SampleRow> rows;
  for (int64_t i = 0; i < 150; ++i) {
    which.push_back(i % 6);
    rows.push_back({&kRules[i % 7].params, seen, static_cast<double>(i * 37 % 150) / 150});
  }
  const auto bits = [](const std::vector<SampledToken>& tokens) {
    Floats out;
    for (const auto& t : tokens) {
      out.insert(out.end(), {static_cast<float>(t.id), t.logprob, t.policy_logprob, t.log_kept_mass,
                             t.entropy});
    }
    return out;
  };
  const auto all = [&] { return bits(head.draw(which, rows, 1090)); };
  const Floats base = all();
  for (const int threads : {1, 2, 3}) {
    const ThreadScope scope(threads);
    EXPECT_TRUE(same_bits(all(), base)) << threads;
  }
  std::vector<SampledToken> single;
  for (size_t i = 0; i < rows.size(); ++i)
    single.push_back(head.draw({which[i]}, {rows[i]}, 1090)[0]);
  EXPECT_TRUE(same_bits(bits(single), base));
  expect_same_bits_on_targets(all);
}

}  // namespace
}  // namespace temper::kernels
