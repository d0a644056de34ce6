#pragma once
// Products of one weight on any side: a type with `Buffer<T>` (from a vector and an offset;
// `data()`, `values()`) and the three products as static functions.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/linear.h"

namespace temper::test {

enum class Kind { kFloat, kBf16, kDot, kHalf };
/// Those whose products are fma chains.
inline constexpr Kind kFmaKinds[] = {Kind::kFloat, Kind::kBf16, Kind::kHalf};

/// What is multiplied, row-major and packed.
struct LinearWeight {
  int64_t n, k;
  Kind kind;
  std::vector<float> rows, panels;
  std::vector<uint16_t> half;

  LinearWeight(Kind kind_, int64_t n_, int64_t k_)
      : n(n_), k(k_), kind(kind_), rows(random_floats(n_ * k_, 7)) {
    panels.assign(static_cast<size_t>(kernels::panel_elements(n, k)), 0.0f);
    half.assign(panels.size(), 0);
    for (float& v : rows) {
      if (kind == Kind::kHalf) {
        v = half_to_float(float_to_half(v));
      } else if (kind != Kind::kFloat) {
        v = bf16_to_float(float_to_bf16(v));
      }
    }
    kernels::pack_rows(rows.data(), n, k, 0, panels.data());
    const auto round = kind == Kind::kHalf ? kernels::panels_to_f16 : kernels::panels_to_bf16;
    round(panels.data(), static_cast<int64_t>(panels.size()), half.data());
  }
  float at(int64_t row, int64_t step) const { return rows[static_cast<size_t>(row * k + step)]; }
};

/// The same in the memory of a side.
template <class D>
struct WeightOn {
  typename D::template Buffer<float> panels;
  typename D::template Buffer<uint16_t> half;
  kernels::PackedWeight view;

  explicit WeightOn(const LinearWeight& w) : panels(w.panels, 0), half(w.half, 0) {
    const bool bf16 = w.kind == Kind::kBf16 || w.kind == Kind::kDot;
    view = {.f32 = panels.data(),
            .bf16 = bf16 ? half.data() : nullptr,
            .n = w.n,
            .k = w.k,
            .product = w.kind == Kind::kDot ? kernels::Product::kDot : kernels::Product::kFma,
            .f16 = w.kind == Kind::kHalf ? half.data() : nullptr};
  }
};

struct Forward {
  int64_t rows;
  bool bias = false;
  bool add = false;
  int64_t pad = 0;    // Of x's and y's rows.
  size_t offset = 0;  // Of x and y from an aligned address.
};

struct ForwardInputs {
  std::vector<float> x, y, bias;
  ForwardInputs(const LinearWeight& w, const Forward& f)
      : x(random_floats(f.rows * (w.k + f.pad), 1)),
        y(random_floats(f.rows * (w.n + f.pad), 2)),
        bias(random_floats(w.n, 3)) {}
};

template <class D>
std::vector<float> forward(const LinearWeight& w, const Forward& f) {
  const ForwardInputs in(w, f);
  WeightOn<D> weight(w);
  typename D::template Buffer<float> x(in.x, f.offset), y(in.y, f.offset), bias(in.bias, 0);
  EXPECT_TRUE(D::linear({.x = x.data(),
                         .x_stride = w.k + f.pad,
                         .weight = weight.view,
                         .bias = f.bias ? bias.data() : nullptr,
                         .y = y.data(),
                         .y_stride = w.n + f.pad,
                         .rows = f.rows,
                         .add = f.add}));
  return y.values();
}

/// Row `row` of the same alone.
template <class D>
std::vector<float> forward_row(const LinearWeight& w, const Forward& f, int64_t row) {
  const ForwardInputs in(w, f);
  WeightOn<D> weight(w);
  const std::vector<float> one(in.x.begin() + row * w.k, in.x.begin() + (row + 1) * w.k);
  typename D::template Buffer<float> x(one, 0), y(std::vector<float>(static_cast<size_t>(w.n)), 0);
  EXPECT_TRUE(D::linear({.x = x.data(),
                         .x_stride = w.k,
                         .weight = weight.view,
                         .y = y.data(),
                         .y_stride = w.n,
                         .rows = 1}));
  return y.values();
}

inline float rounded(float x) { return bf16_to_float(float_to_bf16(x)); }

/// kDot against sums in double. Each term and each partial sum is rounded once, and a tensor core
/// may cut instead of rounding: |error| <= `ulps` 2^-24 sum |a b|, with `ulps` about the number of
/// terms. The operands are the exact bf16 numbers in the reference too.
inline void expect_dot_sums(const std::vector<float>& y, const LinearWeight& w, const Forward& f,
                            double ulps) {
  const ForwardInputs in(w, f);
  for (int64_t r = 0; r < f.rows; ++r) {
    for (int64_t j = 0; j < w.n; ++j) {
      const auto at = static_cast<size_t>(r * (w.n + f.pad) + j);
      const double old = f.add ? in.y[at] : 0.0;
      const double bias = f.bias ? in.bias[static_cast<size_t>(j)] : 0.0;
      double want = old + bias, magnitude = std::abs(old) + std::abs(bias);
      for (int64_t i = 0; i < w.k; ++i) {
        const float x = in.x[static_cast<size_t>(r * (w.k + f.pad) + i)];
        const double p = double{rounded(x)} * w.at(j, i);
        want += p;
        magnitude += std::abs(p);
      }
      ASSERT_NEAR(y[at], want, ulps * 0x1p-24 * magnitude) << w.k << " " << r << " " << j;
    }
  }
}

struct InputGradient {
  int64_t rows;
  bool add;
};

template <class D>
std::vector<float> input_gradient(const LinearWeight& w, const InputGradient& g) {
  WeightOn<D> weight(w);
  typename D::template Buffer<float> dy(random_floats(g.rows * w.n, 4), 0),
      dx(random_floats(g.rows * w.k, 5), 0);
  EXPECT_TRUE(D::linear_backward_input({.dy = dy.data(),
                                        .dy_stride = w.n,
                                        .weight = weight.view,
                                        .dx = dx.data(),
                                        .dx_stride = w.k,
                                        .rows = g.rows,
                                        .add = g.add}));
  return dx.values();
}

inline void expect_dot_input_gradient(const std::vector<float>& dx, const LinearWeight& w,
                                      int64_t rows, double ulps) {
  const std::vector<float> dy = random_floats(rows * w.n, 4), old = random_floats(rows * w.k, 5);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < w.k; ++i) {
      const auto at = static_cast<size_t>(r * w.k + i);
      double want = old[at], magnitude = std::abs(want);
      for (int64_t j = 0; j < w.n; ++j) {
        const double p = double{rounded(dy[static_cast<size_t>(r * w.n + j)])} * w.at(j, i);
        want += p;
        magnitude += std::abs(p);
      }
      ASSERT_NEAR(dx[at], want, ulps * 0x1p-24 * magnitude) << w.n << " " << r << " " << i;
    }
  }
}

struct WeightGradient {
  int64_t n, k, rows;
  kernels::Product product;
};

/// Panels whose padding is zero, as a gradient's is.
inline std::vector<float> gradient_panels(const WeightGradient& g) {
  const std::vector<float> rows = random_floats(g.n * g.k, 8);
  std::vector<float> panels(static_cast<size_t>(kernels::panel_elements(g.n, g.k)), 0.0f);
  kernels::pack_rows(rows.data(), g.n, g.k, 0, panels.data());
  return panels;
}

/// dweight and then dbias, the rows in calls of the given sizes.
template <class D>
std::vector<float> weight_gradient(const WeightGradient& g, const std::vector<int64_t>& calls) {
  typename D::template Buffer<float> dy(random_floats(g.rows * g.n, 6), 0),
      x(random_floats(g.rows * g.k, 7), 0), dweight(gradient_panels(g), 0),
      dbias(random_floats(g.n, 9), 0);
  int64_t row = 0;
  for (const int64_t count : calls) {
    EXPECT_TRUE(D::linear_backward_weight({.dy = dy.data() + row * g.n,
                                           .dy_stride = g.n,
                                           .x = x.data() + row * g.k,
                                           .x_stride = g.k,
                                           .dweight = dweight.data(),
                                           .dbias = dbias.data(),
                                           .rows = count,
                                           .n = g.n,
                                           .k = g.k,
                                           .product = g.product}));
    row += count;
  }
  std::vector<float> out = dweight.values();
  const std::vector<float> bias = dbias.values();
  out.insert(out.end(), bias.begin(), bias.end());
  return out;
}

inline void expect_dot_weight_gradient(const std::vector<float>& got, const WeightGradient& g,
                                       double ulps) {
  const std::vector<float> dy = random_floats(g.rows * g.n, 6), x = random_floats(g.rows * g.k, 7);
  const std::vector<float> old = random_floats(g.n * g.k, 8);
  std::vector<float> rows(old.size());
  kernels::unpack_rows(got.data(), 0, g.n, g.k, rows.data());
  for (int64_t j = 0; j < g.n; ++j) {
    for (int64_t i = 0; i < g.k; ++i) {
      const auto at = static_cast<size_t>(j * g.k + i);
      double want = old[at], magnitude = std::abs(want);
      for (int64_t r = 0; r < g.rows; ++r) {
        const double p = double{rounded(dy[static_cast<size_t>(r * g.n + j)])} *
                         rounded(x[static_cast<size_t>(r * g.k + i)]);
        want += p;
        magnitude += std::abs(p);
      }
      ASSERT_NEAR(rows[at], want, ulps * 0x1p-24 * magnitude) << j << " " << i;
    }
  }
}

/// The CPU's side.
template <class T>
class PlainBuffer {
 public:
  PlainBuffer(std::vector<T> values, size_t /*offset*/) : values_(std::move(values)) {}
  T* data() { return values_.data(); }
  std::vector<T> values() { return values_; }

 private:
  std::vector<T> values_;
};
struct LinearHost {
  template <class T>
  using Buffer = PlainBuffer<T>;
  static bool linear(const kernels::LinearArgs& a) { return kernels::linear(a), true; }
  static bool linear_backward_input(const kernels::LinearBackwardInputArgs& a) {
    return kernels::linear_backward_input(a), true;
  }
  static bool linear_backward_weight(const kernels::LinearBackwardWeightArgs& a) {
    return kernels::linear_backward_weight(a), true;
  }
};

}  // namespace temper::test
