#include "temper/kernels/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_test_util.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using test::random_floats;
using test::same_bits;

constexpr float kEps = 1e-5f;

struct Norm {
  std::vector<float> y, rstd;
};

Norm run(const std::vector<float>& x, const std::vector<float>& w, int64_t rows) {
  Norm out;
  out.y.resize(x.size());
  out.rstd.resize(static_cast<size_t>(rows));
  rms_norm({.x = x.data(),
            .weight = w.data(),
            .y = out.y.data(),
            .rstd = out.rstd.data(),
            .rows = rows,
            .width = std::ssize(w),
            .eps = kEps});
  return out;
}

struct NormGradients {
  std::vector<float> dx, dw;
};

NormGradients run_backward(const std::vector<float>& dy, const std::vector<float>& x,
                           const std::vector<float>& w, const std::vector<float>& rstd) {
  NormGradients g{std::vector<float>(x.size()), std::vector<float>(w.size())};
  rms_norm_backward({.dy = dy.data(),
                     .x = x.data(),
                     .weight = w.data(),
                     .rstd = rstd.data(),
                     .dx = g.dx.data(),
                     .accumulate_dx = false,
                     .dweight = g.dw.data(),
                     .rows = std::ssize(rstd),
                     .width = std::ssize(w)});
  return g;
}

/// sum of dy * y in double, the function whose gradient the backward is.
double weighted_sum(const std::vector<float>& dy, const std::vector<double>& x,
                    const std::vector<double>& w) {
  const size_t width = w.size();
  double total = 0;
  for (size_t row = 0; row < x.size() / width; ++row) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += x[row * width + i] * x[row * width + i];
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(width) + double{kEps});
    for (size_t i = 0; i < width; ++i)
      total += dy[row * width + i] * x[row * width + i] * rstd * w[i];
  }
  return total;
}

TEST(RmsNorm, HandWorkedRow) {
  // mean(x^2) = (9 + 16) / 2 = 12.5.
  const Norm n = run({3.0f, 4.0f}, {1.0f, 2.0f}, 1);
  const double rstd = 1 / std::sqrt(12.5 + 1e-5);
  EXPECT_NEAR(n.rstd[0], rstd, 1e-7);
  EXPECT_NEAR(n.y[0], 3 * rstd, 1e-6);
  EXPECT_NEAR(n.y[1], 8 * rstd, 1e-6);
}

TEST(RmsNorm, MatchesDoubleFormula) {
  for (const int64_t width : {1, 8, 31, 32, 33, 576, 1025}) {
    const auto x = random_floats(3 * width, 1, 2.0f);
    const auto w = random_floats(width, 2);
    const Norm n = run(x, w, 3);
    for (int64_t row = 0; row < 3; ++row) {
      double squares = 0;
      for (int64_t i = 0; i < width; ++i)
        squares += double{x[row * width + i]} * x[row * width + i];
      const double rstd = 1 / std::sqrt(squares / static_cast<double>(width) + double{kEps});
      for (int64_t i = 0; i < width; ++i) {
        ASSERT_NEAR(n.y[row * width + i], x[row * width + i] * rstd * w[i], 2e-6) << width;
      }
    }
  }
}

TEST(RmsNorm, GradientsMatchFiniteDifferencesInDouble) {
  for (const int64_t width : {5, 33}) {
    const auto x = random_floats(2 * width, 4);
    const auto w = random_floats(width, 5);
    const auto dy = random_floats(2 * width, 6);
    const NormGradients g = run_backward(dy, x, w, run(x, w, 2).rstd);
    std::vector<double> xd(x.begin(), x.end()), wd(w.begin(), w.end());
    const auto slope = [&](double& v) {
      const double v0 = v, h = 1e-5;
      v = v0 + h;
      const double up = weighted_sum(dy, xd, wd);
      v = v0 - h;
      const double down = weighted_sum(dy, xd, wd);
      v = v0;
      return (up - down) / (2 * h);
    };
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(g.dx[i], slope(xd[i]), 1e-5) << i;
    for (size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(g.dw[i], slope(wd[i]), 1e-5) << i;
  }
}

TEST(RmsNorm, RowAloneHasTheBitsOfTheBatch) {
  const int64_t rows = 65, width = 577;
  const auto x = random_floats(rows * width, 7);
  const auto w = random_floats(width, 8);
  const Norm all = run(x, w, rows);
  for (const int64_t row : {0, 31, 64}) {
    const std::vector<float> one(x.begin() + row * width, x.begin() + (row + 1) * width);
    const Norm alone = run(one, w, 1);
    EXPECT_TRUE(
        same_bits(alone.y, {all.y.begin() + row * width, all.y.begin() + (row + 1) * width}));
    EXPECT_EQ(alone.rstd[0], all.rstd[static_cast<size_t>(row)]);
  }
}

TEST(RmsNorm, SameBitsForAnyThreadsAndTarget) {
  const int64_t rows = 200, width = 577;
  const auto x = random_floats(rows * width, 9);
  const auto w = random_floats(width, 10);
  const auto dy = random_floats(rows * width, 11);
  const auto everything = [&] {
    const Norm n = run(x, w, rows);
    const NormGradients g = run_backward(dy, x, w, n.rstd);
    std::vector<float> all = n.y;
    for (const auto* part : {&n.rstd, &g.dx, &g.dw})
      all.insert(all.end(), part->begin(), part->end());
    return all;
  };
  const std::vector<float> want = everything();
  for (const int threads : {1, 2, 3}) {
    const test::ThreadScope scope(threads);
    EXPECT_TRUE(same_bits(everything(), want)) << threads;
  }
  test::expect_same_bits_on_targets(everything);
}

TEST(RmsNorm, WeightGradientOfSplitRowsHasTheBitsOfOneCall) {
  const int64_t rows = 37, width = 100;
  const auto x = random_floats(rows * width, 12);
  const auto w = random_floats(width, 13);
  const auto dy = random_floats(rows * width, 14);
  const Norm n = run(x, w, rows);
  const NormGradients whole = run_backward(dy, x, w, n.rstd);
  std::vector<float> dw(static_cast<size_t>(width));
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 12}, {12, 13}, {13, 37}}) {
    rms_norm_backward({.dy = dy.data() + begin * width,
                       .x = x.data() + begin * width,
                       .weight = w.data(),
                       .rstd = n.rstd.data() + begin,
                       .dx = nullptr,
                       .accumulate_dx = false,
                       .dweight = dw.data(),
                       .rows = end - begin,
                       .width = width});
  }
  EXPECT_TRUE(same_bits(dw, whole.dw));
}

TEST(RmsNorm, AccumulatesIntoDx) {
  const auto x = random_floats(66, 15);
  const auto w = random_floats(33, 16);
  const auto dy = random_floats(66, 17);
  const Norm n = run(x, w, 2);
  const NormGradients plain = run_backward(dy, x, w, n.rstd);
  const auto before = random_floats(66, 18);
  std::vector<float> dx = before;
  rms_norm_backward({.dy = dy.data(),
                     .x = x.data(),
                     .weight = w.data(),
                     .rstd = n.rstd.data(),
                     .dx = dx.data(),
                     .accumulate_dx = true,
                     .dweight = nullptr,
                     .rows = 2,
                     .width = 33});
  for (size_t i = 0; i < dx.size(); ++i) EXPECT_EQ(dx[i], before[i] + plain.dx[i]);
}

TEST(RmsNorm, EmptyBatchAndNotANumber) {
  const Norm empty = run({}, {1.0f}, 0);
  EXPECT_TRUE(empty.y.empty());
  const Norm bad = run({1.0f, NAN, 1.0f, 1.0f}, {1.0f, 1.0f}, 2);
  EXPECT_TRUE(std::isnan(bad.y[0]));
  EXPECT_FALSE(std::isnan(bad.y[2]));
}

TEST(RmsNorm, RefusesZeroWidth) {
  EXPECT_THROW(rms_norm({nullptr, nullptr, nullptr, nullptr, 1, 0, kEps}), Error);
}

}  // namespace
}  // namespace temper::kernels
