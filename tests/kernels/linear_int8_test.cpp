// int8 panels: how they are made, and what reads them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/core/error.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/linear.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/sampling.h"
#include "temper/kernels/swiglu.h"

namespace temper::kernels {
namespace {

using Floats = std::vector<float>;
using test::random_floats;

struct Int8Weight {
  int64_t n, k;
  Floats rows, panels, scales;
  std::vector<int8_t> bytes;

  Int8Weight(Floats rows_, int64_t n_, int64_t k_) : n(n_), k(k_), rows(std::move(rows_)) {
    panels.assign(static_cast<size_t>(panel_elements(n, k)), 0.0f);
    pack_rows(rows.data(), n, k, 0, panels.data());
    bytes.assign(panels.size(), 99);
    scales.assign(static_cast<size_t>(scale_elements(n, k)), NAN);
    panels_to_int8(panels.data(), n, k, bytes.data(), scales.data());
  }
  PackedWeight packed() const {
    return {.n = n, .k = k, .i8 = bytes.data(), .scales = scales.data()};
  }
  // By the layout as linear.h states it.
  float byte(int64_t row, int64_t step) const {
    const int64_t depth = (k + 1) / 2 * 2;
    return bytes[static_cast<size_t>((row / 32 * depth + step) * 32 + row % 32)];
  }
  float scale(int64_t row, int64_t step) const {
    return scales[static_cast<size_t>(step / 256 * ((n + 31) / 32 * 32) + row)];
  }
};

/// Rows of very different sizes, so that a scale of another row or chunk would be seen.
Int8Weight random_weight(int64_t n, int64_t k, uint32_t seed) {
  Floats rows = random_floats(n * k, seed);
  for (int64_t i = 0; i < n * k; ++i) {
    const float chunk = i % k < 256 ? 1.0f : 0.01f;
    rows[static_cast<size_t>(i)] *= static_cast<float>(1 + i / k % 7) * chunk;
  }
  return {std::move(rows), n, k};
}

Floats run_linear(const Int8Weight& w, const Floats& x, int64_t rows) {
  Floats y(static_cast<size_t>(rows * w.n), NAN);
  linear({.x = x.data(),
          .x_stride = w.k,
          .weight = w.packed(),
          .y = y.data(),
          .y_stride = w.n,
          .rows = rows});
  return y;
}

/// A scalar fma chain over the bytes of each chunk of 256, its sum scaled.
float chain(const Int8Weight& w, const float* x, int64_t row) {
  float total = 0;
  for (int64_t begin = 0; begin < w.k; begin += 256) {
    float acc = 0;
    for (int64_t k = begin; k < std::min(w.k, begin + 256); ++k) {
      acc = std::fmaf(x[k], w.byte(row, k), acc);
    }
    acc *= w.scale(row, begin);
    total = begin == 0 ? acc : total + acc;
  }
  return total;
}

// Hand-worked.
TEST(PanelsToInt8, TheLargestIsOneHundredAndTwentySevenAndTheRestTheNearest) {
  Floats rows = {127.0f, -127.0f, 0.5f, 1.5f, -2.5f, 0.4f};
  rows.insert(rows.end(), {-2.54f, 0.02f, 0.029f, 0.031f, 0, 2.54f});
  rows.insert(rows.end(), 6, 0.0f);
  const Int8Weight w(rows, 3, 6);
  const std::vector<std::vector<float>> want = {
      {127, -127, 0, 2, -2, 0}, {-127, 1, 1, 2, 0, 127}, {0, 0, 0, 0, 0, 0}};
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t k = 0; k < 6; ++k) {
      EXPECT_EQ(w.byte(row, k), want[static_cast<size_t>(row)][static_cast<size_t>(k)]) << row << k;
    }
  }
  EXPECT_EQ(w.scale(0, 0), 1.0f);
  EXPECT_EQ(w.scale(1, 0), 2.54f / 127.0f);
  EXPECT_EQ(w.scale(2, 0), 0.0f);
  for (int64_t row = 3; row < 32; ++row) EXPECT_EQ(w.scale(row, 0), 0.0f);  // Padding.
}

TEST(PanelsToInt8, EachChunkHasItsOwnScale) {
  Floats rows(513, 1.0f);
  std::fill(rows.begin() + 256, rows.begin() + 512, 127e-6f);
  rows[512] = -254.0f;
  const Int8Weight w(rows, 1, 513);
  EXPECT_EQ(w.scale(0, 0), 1.0f / 127.0f);
  EXPECT_EQ(w.scale(0, 256), 127e-6f / 127.0f);
  EXPECT_EQ(w.scale(0, 512), 2.0f);
  EXPECT_EQ(w.byte(0, 512), -127.0f);
}

// The numbers at both ends of float32, where a quotient could leave the bytes.
TEST(PanelsToInt8, ChangesAWeightByHalfAScaleAtMost) {
  for (const float size : {1.0f, FLT_MAX, FLT_MIN, 190 * FLT_TRUE_MIN, FLT_TRUE_MIN}) {
    Floats rows = random_floats(40 * 300, 5, size);
    rows[0] = size;
    rows[300] = -size;
    const Int8Weight w(rows, 40, 300);
    for (int64_t row = 0; row < 40; ++row) {
      for (int64_t k = 0; k < 300; ++k) {
        const double scale = w.scale(row, k);
        const double before = rows[static_cast<size_t>(row * 300 + k)];
        const double change = before - scale * w.byte(row, k);
        ASSERT_LE(std::abs(w.byte(row, k)), 127.0f);
        ASSERT_LE(std::abs(change), scale * 0.5 * (1 + 1e-5)) << size << " " << row << " " << k;
      }
    }
  }
}

TEST(LinearInt8, EveryElementIsTheScaledChainOfItsChunks) {
  for (const int64_t n : {1, 31, 33, 160}) {
    for (const int64_t k : {1, 31, 256, 257, 1025}) {
      const Int8Weight w = random_weight(n, k, 1);
      for (const int64_t rows : {1, 2, 3, 4, 6, 7, 13, 50}) {
        const Floats x = random_floats(rows * k, 2);
        const Floats y = run_linear(w, x, rows);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t j = 0; j < n; ++j) {
            ASSERT_EQ(y[static_cast<size_t>(r * n + j)], chain(w, x.data() + r * k, j))
                << "n " << n << " k " << k << " rows " << rows << " r " << r << " j " << j;
          }
        }
      }
    }
  }
}

TEST(LinearInt8, BitsDoNotDependOnBatchThreadsOrInstructionSet) {
  const Int8Weight w = random_weight(576, 300, 3);
  const Floats x = random_floats(205 * 300, 4);
  const Floats base = run_linear(w, x, 205);
  for (const int threads : {1, 2, 3}) {
    const test::ThreadScope scope(threads);
    for (const int64_t rows : {1, 3, 5, 12, 65, 204, 205}) {
      const Floats y = run_linear(w, x, rows);
      EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << threads << " " << rows;
    }
  }
  test::expect_same_bits_on_targets([&] { return run_linear(w, x, 205); });
}

/// Against float32 weights in double: half a scale of every weight, and the rounding of the sums.
TEST(LinearInt8, IsWithinTheQuantizationBoundOfTheSumInDouble) {
  const Int8Weight w = random_weight(70, 1025, 6);
  const Floats x = random_floats(5 * 1025, 7);
  const Floats y = run_linear(w, x, 5);
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t j = 0; j < 70; ++j) {
      double want = 0, bound = 0;
      for (int64_t i = 0; i < 1025; ++i) {
        const double xi = x[static_cast<size_t>(r * 1025 + i)];
        const double wi = w.rows[static_cast<size_t>(j * 1025 + i)];
        want += xi * wi;
        bound += std::abs(xi) * (0.5 * w.scale(j, i) + 256 * 0x1p-24 * std::abs(wi));
      }
      ASSERT_NEAR(y[static_cast<size_t>(r * 70 + j)], want, bound) << r << " " << j;
    }
  }
}

TEST(LinearInt8, AddsBiasAndResidualAfterTheScale) {
  const Int8Weight w = random_weight(40, 9, 8);
  const Floats x = random_floats(2 * 9, 9), bias = random_floats(40, 10);
  const Floats plain = run_linear(w, x, 2);
  Floats y = random_floats(80, 11);
  const Floats before = y;
  linear({.x = x.data(),
          .x_stride = 9,
          .weight = w.packed(),
          .bias = bias.data(),
          .y = y.data(),
          .y_stride = 40,
          .rows = 2,
          .add = true});
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], before[i] + (plain[i] + bias[i % 40]));
}

TEST(LinearInt8, SwigluEpilogueHasTheBitsOfTheOp) {
  const Int8Weight w = random_weight(128, 300, 12);
  for (const int64_t rows : {1, 13}) {
    const Floats x = random_floats(rows * 300, 13);
    const Floats plain = run_linear(w, x, rows);
    Floats y(plain.size()), fused(static_cast<size_t>(rows * 64)), gated(fused.size());
    linear({.x = x.data(),
            .x_stride = 300,
            .weight = w.packed(),
            .y = y.data(),
            .y_stride = 128,
            .rows = rows,
            .swiglu = fused.data()});
    swiglu(plain.data(), gated.data(), rows, 64);
    EXPECT_EQ(y, plain);
    EXPECT_EQ(fused, gated);
  }
}

TEST(EmbeddingInt8, IsBytesTimesScales) {
  const Int8Weight w = random_weight(70, 301, 14);
  const std::vector<int32_t> ids = {0, 69, 31, 32, 33, 63, 64, 31};
  Floats out(ids.size() * 301);
  embedding(w.packed(), ids, out.data());
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t k = 0; k < 301; ++k) {
      ASSERT_EQ(out[i * 301 + static_cast<size_t>(k)], w.byte(ids[i], k) * w.scale(ids[i], k));
    }
  }
}

/// The head's numbers are those of its logits in double, and the sampler's have the scorer's bits.
TEST(HeadInt8, ScoresAndSamplesItsLogits) {
  const int64_t rows = 7, k = 300, ids = 1025;
  const Int8Weight w = random_weight(ids, k, 15);
  const Floats hidden = random_floats(rows * k, 16, 0.05f);
  const Floats z = run_linear(w, hidden, rows);
  const SamplingParams params{.temperature = 0.8f};
  std::vector<SampleRow> draws;
  for (int64_t r = 0; r < rows; ++r) {
    draws.push_back({&params, {}, (static_cast<double>(r) + 0.5) / static_cast<double>(rows)});
  }
  std::vector<SampledToken> drawn(static_cast<size_t>(rows));
  linear_sample({.hidden = hidden.data(),
                 .hidden_stride = k,
                 .head = w.packed(),
                 .allowed = ids,
                 .rows = draws,
                 .out = drawn});
  std::vector<int32_t> targets;
  for (const SampledToken& t : drawn) targets.push_back(t.id);
  Floats logprob(drawn.size()), entropy(drawn.size()), max(drawn.size()), log_sum(drawn.size());
  linear_logprob({.hidden = hidden.data(),
                  .hidden_stride = k,
                  .head = w.packed(),
                  .targets = targets.data(),
                  .rows = rows,
                  .inverse_temperature = 1.0f / 0.8f,
                  .logprob = logprob.data(),
                  .entropy = entropy.data(),
                  .max = max.data(),
                  .log_sum = log_sum.data()});
  for (size_t r = 0; r < drawn.size(); ++r) {
    double sum = 0;
    const float* row = z.data() + r * ids;
    for (int64_t v = 0; v < ids; ++v) sum += std::exp(double{row[v]} / 0.8);
    EXPECT_NEAR(logprob[r], double{row[targets[r]]} / 0.8 - std::log(sum), 1e-5);
    EXPECT_EQ(drawn[r].policy_logprob, logprob[r]);
    EXPECT_EQ(drawn[r].entropy, entropy[r]);
  }
}

// dx is the product with the weights as the embedding reads them: bytes times scales, in float32.
TEST(LinearInt8, InputGradientIsThatOfTheScaledWeights) {
  for (const auto& [n, k] : {std::pair{1, 5}, {33, 300}, {290, 64}, {64, 257}}) {
    const Int8Weight w = random_weight(n, k, 17);
    const int64_t rows = 50;
    const Floats dy = random_floats(rows * n, 18);
    Floats scaled(static_cast<size_t>(panel_elements(n, k)));
    Floats plain(static_cast<size_t>(n * k));
    for (int64_t i = 0; i < n * k; ++i) {
      plain[static_cast<size_t>(i)] = w.byte(i / k, i % k) * w.scale(i / k, i % k);
    }
    pack_rows(plain.data(), n, k, 0, scaled.data());
    const auto run = [&](const PackedWeight& weight, int64_t count) {
      Floats dx(static_cast<size_t>(count * k), NAN);
      linear_backward_input({.dy = dy.data(),
                             .dy_stride = n,
                             .weight = weight,
                             .dx = dx.data(),
                             .dx_stride = k,
                             .rows = count});
      return dx;
    };
    const Floats got = run(w.packed(), rows);
    EXPECT_EQ(got, run({.f32 = scaled.data(), .n = n, .k = k}, rows)) << n << " x " << k;
    const Floats alone = run(w.packed(), 1);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), got.begin()));
  }
}

TEST(LinearInt8, WeightGradientsAndDotsAreRefused) {
  const Int8Weight w = random_weight(3, 5, 17);
  Floats a(5), b(5);
  const LinearLogprobArgs head{.hidden = a.data(), .head = w.packed(), .rows = 1};
  EXPECT_THROW(linear_logprob_backward({.forward = head, .dweight = b.data()}), Error);
  EXPECT_THROW(linear_logprob_train({.pass = {.forward = head, .dweight = b.data()}}), Error);
  PackedWeight dot = w.packed();
  dot.product = Product::kDot;
  EXPECT_THROW(linear({.x = a.data(), .weight = dot, .y = b.data(), .rows = 1}), Error);
}

}  // namespace
}  // namespace temper::kernels
