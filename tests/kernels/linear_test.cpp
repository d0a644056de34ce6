#include "temper/kernels/linear.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "temper/core/dtype.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/core/threads.h"
#include "temper/kernels/swiglu.h"

namespace temper::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t n, uint64_t seed) {
  RngStream rng(seed, RngPurpose::kTest, 0);
  Floats out(static_cast<size_t>(n));
  for (auto& v : out) v = static_cast<float>(rng.next_uniform() * 2 - 1);
  return out;
}

struct Case {
  int64_t n, k;
  Floats rows, panels;
  std::vector<uint16_t> half;
  Product product = Product::kFma;
  bool f16 = false;
  Case(int64_t n_, int64_t k_, uint64_t seed) : n(n_), k(k_), rows(random_floats(n_ * k_, seed)) {
    panels.assign(static_cast<size_t>(panel_elements(n, k)), 0.0f);
    pack_rows(rows.data(), n, k, 0, panels.data());
  }
  void round_to_bf16() {
    half.resize(panels.size());
    panels_to_bf16(panels.data(), static_cast<int64_t>(panels.size()), half.data());
    for (auto& v : rows) v = bf16_to_float(float_to_bf16(v));
  }
  void round_to_half() {
    f16 = true;
    half.resize(panels.size());
    panels_to_f16(panels.data(), static_cast<int64_t>(panels.size()), half.data());
    for (auto& v : rows) v = half_to_float(float_to_half(v));
  }
  PackedWeight weight() const {
    const uint16_t* words = half.empty() ? nullptr : half.data();
    return {.f32 = panels.data(),
            .bf16 = f16 ? nullptr : words,
            .n = n,
            .k = k,
            .product = product,
            .f16 = f16 ? words : nullptr};
  }
};

Floats run_linear(const Case& c, const Floats& x, int64_t rows) {
  Floats y(static_cast<size_t>(rows * c.n), NAN);
  linear({.x = x.data(),
          .x_stride = c.k,
          .weight = c.weight(),
          .y = y.data(),
          .y_stride = c.n,
          .rows = rows});
  return y;
}

float rounded(float x) { return bf16_to_float(float_to_bf16(x)); }

// Oracle of kDot: pairs, the odd product first, in chunks of 512.
float dot_chain(const Case& c, const float* x, int64_t n) {
  float total = 0;
  const float* w = c.rows.data() + n * c.k;
  for (int64_t begin = 0; begin < c.k; begin += 512) {
    float acc = 0;
    for (int64_t k = begin; k < std::min(c.k, begin + 512); k += 2) {
      if (k + 1 < c.k) acc = std::fmaf(rounded(x[k + 1]), w[k + 1], acc);
      acc = std::fmaf(rounded(x[k]), w[k], acc);
    }
    total = begin == 0 ? acc : total + acc;
  }
  return total;
}

// Oracle of kFma: a scalar fma chain for each chunk of 256.
float chain(const Case& c, const float* x, int64_t n) {
  if (c.product == Product::kDot) return dot_chain(c, x, n);
  float total = 0;
  for (int64_t begin = 0; begin < c.k; begin += 256) {
    float acc = 0;
    for (int64_t k = begin; k < std::min(c.k, begin + 256); ++k) {
      acc = std::fmaf(x[k], c.rows[static_cast<size_t>(n * c.k + k)], acc);
    }
    total = begin == 0 ? acc : total + acc;
  }
  return total;
}

enum class Kind { kFloat, kBf16, kDot, kHalf };
constexpr Kind kKinds[] = {Kind::kFloat, Kind::kBf16, Kind::kDot, Kind::kHalf};

Case make_case(Kind kind, int64_t n, int64_t k, uint64_t seed) {
  Case c(n, k, seed);
  if (kind == Kind::kBf16 || kind == Kind::kDot) c.round_to_bf16();
  if (kind == Kind::kHalf) c.round_to_half();
  if (kind == Kind::kDot) c.product = Product::kDot;
  return c;
}

TEST(Linear, EveryElementIsTheChainOfItsContract) {
  for (const Kind kind : kKinds) {
    for (const int64_t n : {1, 31, 32, 33, 160, 200}) {
      for (const int64_t k : {1, 31, 256, 300, 515}) {
        const Case c = make_case(kind, n, k, static_cast<uint64_t>(n * 1000 + k));
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 12, 13, 25}) {
          const Floats x = random_floats(rows * k, 5);
          const Floats y = run_linear(c, x, rows);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t j = 0; j < n; ++j) {
              ASSERT_EQ(y[static_cast<size_t>(r * n + j)], chain(c, x.data() + r * k, j))
                  << "n " << n << " k " << k << " rows " << rows << " r " << r << " j " << j;
            }
          }
        }
      }
    }
  }
}

TEST(Linear, BitsDoNotDependOnBatchThreadsOrInstructionSet) {
  const Floats x = random_floats(65 * 300, 6);
  for (const Kind kind : kKinds) {
    const Case c = make_case(kind, 576, 300, 9);
    set_num_threads(1);
    const Floats base = run_linear(c, x, 65);
    for (const int threads : {1, 2, 3}) {
      set_num_threads(threads);
      for (const int64_t rows : {1, 3, 5, 12, 37, 64, 65}) {
        const Floats y = run_linear(c, x, rows);
        EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << threads << " " << rows;
      }
    }
    set_num_threads(2);
    // AVX3 without the dot instruction is not a target of its own: AVX2 covers the way by fma.
    for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_AVX3}}) {
      if ((hwy::SupportedTargets() & target) == 0) continue;
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().DeInit();
      EXPECT_EQ(run_linear(c, x, 65), base) << hwy::TargetName(target);
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
}

// Hand-worked: what becomes of numbers that bf16 cannot hold.
TEST(LinearDot, RoundsActivationsToNearestEvenAndKeepsNanAndInfinity) {
  Case c = make_case(Kind::kDot, 1, 1, 1);
  c.panels.assign(c.panels.size(), 0.0f);
  c.panels[0] = 1.0f;
  panels_to_bf16(c.panels.data(), std::ssize(c.panels), c.half.data());
  const auto through = [&](float x) { return run_linear(c, {x}, 1)[0]; };
  EXPECT_EQ(through(1.0f + 0x1p-8f), 1.0f);                     // A tie goes to even.
  EXPECT_EQ(through(1.0f + 3 * 0x1p-8f), 1.0f + 4 * 0x1p-8f);   // The next tie goes up.
  EXPECT_EQ(through(1.0f + 0x1.02p-8f), 1.0f + 2 * 0x1p-8f);    // Above a tie.
  EXPECT_EQ(through(3.4e38f), INFINITY);                        // Beyond the largest bf16.
  EXPECT_EQ(through(-INFINITY), -INFINITY);
  EXPECT_TRUE(std::isnan(through(NAN)));
  EXPECT_EQ(through(0x1p-127f), 0.0f);  // Denormal.
  EXPECT_EQ(through(0x1p-126f), 0x1p-126f);
}

TEST(LinearDot, WithoutBf16PanelsIsRefused) {
  Case c = make_case(Kind::kHalf, 3, 5, 1);
  c.product = Product::kDot;
  Floats y(5), x(5);
  EXPECT_THROW(linear({.x = x.data(), .weight = c.weight(), .y = y.data(), .rows = 1}), Error);
  EXPECT_THROW(
      linear_backward_input({.dy = x.data(), .weight = c.weight(), .dx = y.data(), .rows = 1}),
      Error);
}

TEST(Linear, AddsBiasAndResidual) {
  Case c(40, 8, 3);
  const Floats x = random_floats(2 * 8, 4);
  const Floats bias = random_floats(40, 5);
  const Floats plain = run_linear(c, x, 2);
  Floats y = random_floats(80, 6);
  const Floats before = y;
  linear({.x = x.data(),
          .x_stride = 8,
          .weight = c.weight(),
          .bias = bias.data(),
          .y = y.data(),
          .y_stride = 40,
          .rows = 2,
          .add = true});
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], before[i] + (plain[i] + bias[i % 40]));
}

// Invariant: fused or not, the same bits. 2 * 48 output rows do not fill whole panels each.
TEST(Linear, SwigluEpilogueHasTheBitsOfTheOp) {
  for (const Kind kind : kKinds) {
    for (const int64_t width : {32, 48, 160}) {
      for (const int64_t rows : {1, 4, 13}) {
        const Case c = make_case(kind, 2 * width, 70, 11);
        const Floats x = random_floats(rows * 70, 12);
        const Floats bias = random_floats(2 * width, 13);
        Floats y(static_cast<size_t>(rows * 2 * width)), fused_y(y.size());
        Floats gated(static_cast<size_t>(rows * width)), fused(gated.size());
        LinearArgs args{.x = x.data(),
                        .x_stride = 70,
                        .weight = c.weight(),
                        .bias = bias.data(),
                        .y = y.data(),
                        .y_stride = 2 * width,
                        .rows = rows};
        linear(args);
        swiglu(y.data(), gated.data(), rows, width);
        args.y = fused_y.data();
        args.swiglu = fused.data();
        linear(args);
        EXPECT_EQ(fused_y, y);
        EXPECT_EQ(fused, gated);
      }
    }
  }
}

TEST(LinearBackward, InputGradientMatchesTheSumInDouble) {
  for (const Kind kind : kKinds) {
    for (const int64_t n : {7, 64, 1100}) {
      const Case c = make_case(kind, n, 45, 8);
      const bool dot = kind == Kind::kDot;
      const Floats dy = random_floats(14 * n, 9);
      Floats dx(14 * 45, 0.5f);
      linear_backward_input({.dy = dy.data(),
                             .dy_stride = n,
                             .weight = c.weight(),
                             .dx = dx.data(),
                             .dx_stride = 45,
                             .rows = 14,
                             .add = true});
      for (int64_t r = 0; r < 14; ++r) {
        for (int64_t k = 0; k < 45; ++k) {
          double sum = 0.5;
          for (int64_t j = 0; j < n; ++j) {
            const float d = dy[static_cast<size_t>(r * n + j)];
            sum += double{dot ? rounded(d) : d} * double{c.rows[static_cast<size_t>(j * 45 + k)]};
          }
          ASSERT_NEAR(dx[static_cast<size_t>(r * 45 + k)], sum, 1e-4) << n << " " << r << " " << k;
        }
      }
    }
  }
}

struct WeightGradient {
  Floats panels, bias;
  bool operator==(const WeightGradient&) const = default;
};

constexpr int64_t kN = 70, kK = 33, kRows = 301;

WeightGradient weight_gradient(const Floats& dy, const Floats& x, Product product,
                               const std::vector<int64_t>& parts) {
  WeightGradient d{Floats(static_cast<size_t>(panel_elements(kN, kK)), 0.0f), Floats(kN, 0.0f)};
  int64_t at = 0;
  for (const int64_t part : parts) {
    linear_backward_weight({.dy = dy.data() + at * kN,
                            .dy_stride = kN,
                            .x = x.data() + at * kK,
                            .x_stride = kK,
                            .dweight = d.panels.data(),
                            .dbias = d.bias.data(),
                            .rows = part,
                            .n = kN,
                            .k = kK,
                            .product = product});
    at += part;
  }
  return d;
}

TEST(LinearBackward, WeightGradientMatchesAndSplitsBitwise) {
  const Floats dy = random_floats(kRows * kN, 1);
  const Floats x = random_floats(kRows * kK, 2);
  for (const Product product : {Product::kFma, Product::kDot}) {
    const auto whole = weight_gradient(dy, x, product, {kRows});
    const auto value = [&](float v) { return double{product == Product::kDot ? rounded(v) : v}; };
    Floats rows_major(static_cast<size_t>(kN * kK));
    unpack_rows(whole.panels.data(), 0, kN, kK, rows_major.data());
    for (int64_t j = 0; j < kN; ++j) {
      double bias = 0;
      for (int64_t m = 0; m < kRows; ++m) bias += double{dy[static_cast<size_t>(m * kN + j)]};
      EXPECT_NEAR(whole.bias[static_cast<size_t>(j)], bias, 1e-4);
      for (int64_t i = 0; i < kK; ++i) {
        double sum = 0;
        for (int64_t m = 0; m < kRows; ++m) {
          sum += value(dy[static_cast<size_t>(m * kN + j)]) *
                 value(x[static_cast<size_t>(m * kK + i)]);
        }
        ASSERT_NEAR(rows_major[static_cast<size_t>(j * kK + i)], sum, 1e-4);
      }
    }
    set_num_threads(1);
    const auto even = weight_gradient(dy, x, product, {2, 256, 42, 1});
    set_num_threads(3);
    EXPECT_EQ(weight_gradient(dy, x, product, {150, 151}), whole);
    EXPECT_EQ(even, whole);
    const auto odd = weight_gradient(dy, x, product, {1, 1, 255, 44});
    EXPECT_EQ(odd == whole, product == Product::kFma);  // Pairs of rows are part of kDot's order.
    set_num_threads(2);
  }
}

TEST(Panels, PackAndUnpackAreInverse) {
  const Floats rows = random_floats(50 * 7, 3);
  Floats panels(static_cast<size_t>(panel_elements(90, 7)), 0.0f);
  pack_rows(rows.data(), 50, 7, 40, panels.data());
  Floats back(50 * 7);
  unpack_rows(panels.data(), 40, 50, 7, back.data());
  EXPECT_EQ(back, rows);
}

}  // namespace
}  // namespace temper::kernels
