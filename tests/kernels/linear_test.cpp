#include "temper/kernels/linear.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "temper/core/dtype.h"
#include "temper/core/rng.h"
#include "temper/core/threads.h"

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
  Case(int64_t n_, int64_t k_, uint64_t seed) : n(n_), k(k_), rows(random_floats(n_ * k_, seed)) {
    panels.assign(static_cast<size_t>(panel_elements(n, k)), 0.0f);
    pack_rows(rows.data(), n, k, 0, panels.data());
  }
  void round_to_bf16() {
    half.resize(panels.size());
    panels_to_bf16(panels.data(), static_cast<int64_t>(panels.size()), half.data());
    for (auto& v : rows) v = bf16_to_float(float_to_bf16(v));
  }
  PackedWeight weight() const {
    return {panels.data(), half.empty() ? nullptr : half.data(), n, k};
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

// Oracle: the contract itself, a scalar fma chain for each chunk of 128.
float chain(const Case& c, const float* x, int64_t n) {
  float total = 0;
  for (int64_t begin = 0; begin < c.k; begin += 128) {
    float acc = 0;
    for (int64_t k = begin; k < std::min(c.k, begin + 128); ++k) {
      acc = std::fmaf(x[k], c.rows[static_cast<size_t>(n * c.k + k)], acc);
    }
    total = begin == 0 ? acc : total + acc;
  }
  return total;
}

TEST(Linear, EveryElementIsAscendingFmaChainsOverChunks) {
  for (const bool bf16 : {false, true}) {
    for (const int64_t n : {1, 31, 32, 33, 160, 200}) {
      for (const int64_t k : {1, 31, 128, 300}) {
        Case c(n, k, static_cast<uint64_t>(n * 1000 + k));
        if (bf16) c.round_to_bf16();
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
  Case c(576, 192, 9);
  c.round_to_bf16();
  const Floats x = random_floats(65 * 192, 6);
  set_num_threads(1);
  const Floats base = run_linear(c, x, 65);
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    for (const int64_t rows : {1, 3, 12, 37, 64, 65}) {
      const Floats y = run_linear(c, x, rows);
      EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << threads << " " << rows;
    }
  }
  set_num_threads(2);
  for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_AVX3}}) {
    if ((hwy::SupportedTargets() & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
    EXPECT_EQ(run_linear(c, x, 65), base) << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
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

TEST(LinearBackward, InputGradientMatchesTheSumInDouble) {
  for (const bool bf16 : {false, true}) {
    for (const int64_t n : {7, 64, 1100}) {
      Case c(n, 45, 8);
      if (bf16) c.round_to_bf16();
      const Floats dy = random_floats(14 * n, 9);
      Floats dx(14 * 45, NAN);
      linear_backward_input({.dy = dy.data(),
                             .dy_stride = n,
                             .weight = c.weight(),
                             .dx = dx.data(),
                             .dx_stride = 45,
                             .rows = 14});
      for (int64_t r = 0; r < 14; ++r) {
        for (int64_t k = 0; k < 45; ++k) {
          double sum = 0;
          for (int64_t j = 0; j < n; ++j) {
            sum += double{dy[static_cast<size_t>(r * n + j)]} *
                   double{c.rows[static_cast<size_t>(j * 45 + k)]};
          }
          ASSERT_NEAR(dx[static_cast<size_t>(r * 45 + k)], sum, 1e-4) << n << " " << r << " " << k;
        }
      }
    }
  }
}

TEST(LinearBackward, WeightGradientMatchesAndSplitsBitwise) {
  const int64_t n = 70, k = 33, rows = 300;
  const Floats dy = random_floats(rows * n, 1);
  const Floats x = random_floats(rows * k, 2);
  const auto run = [&](const std::vector<int64_t>& parts) {
    std::pair<Floats, Floats> d{Floats(static_cast<size_t>(panel_elements(n, k)), 0.0f),
                                Floats(n, 0.0f)};
    int64_t at = 0;
    for (const int64_t part : parts) {
      linear_backward_weight({.dy = dy.data() + at * n,
                              .dy_stride = n,
                              .x = x.data() + at * k,
                              .x_stride = k,
                              .dweight = d.first.data(),
                              .dbias = d.second.data(),
                              .rows = part,
                              .n = n,
                              .k = k});
      at += part;
    }
    return d;
  };
  const auto whole = run({300});
  Floats rows_major(static_cast<size_t>(n * k));
  unpack_rows(whole.first.data(), 0, n, k, rows_major.data());
  for (int64_t j = 0; j < n; ++j) {
    double bias = 0;
    for (int64_t m = 0; m < rows; ++m) bias += double{dy[static_cast<size_t>(m * n + j)]};
    EXPECT_NEAR(whole.second[static_cast<size_t>(j)], bias, 1e-4);
    for (int64_t i = 0; i < k; ++i) {
      double sum = 0;
      for (int64_t m = 0; m < rows; ++m) {
        sum +=
            double{dy[static_cast<size_t>(m * n + j)]} * double{x[static_cast<size_t>(m * k + i)]};
      }
      ASSERT_NEAR(rows_major[static_cast<size_t>(j * k + i)], sum, 1e-4);
    }
  }
  set_num_threads(1);
  EXPECT_EQ(run({1, 1, 255, 43}), whole);
  set_num_threads(3);
  EXPECT_EQ(run({150, 150}), whole);
  set_num_threads(2);
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
