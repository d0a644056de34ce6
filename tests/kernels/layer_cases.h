#pragma once
// Cases of a model's small layers and of the optimizer; see rl_cases.h.

#include <gtest/gtest.h>

#include <tuple>

#include "kernels/host_ops.h"
#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/linear.h"

namespace temper::test {

/// `n` floats around 1: weights of a norm.
inline std::vector<float> around_one(int64_t n, uint32_t seed) {
  std::vector<float> w = random_floats(n, seed, 0.2f);
  for (float& v : w) v += 1.0f;
  return w;
}

template <class Compare>
void rms_norm_cases(const Compare& compare) {
  struct Shape {
    int64_t rows, width;
  };
  // Widths up to 256 and beyond are two kernels; beyond 2048 a row takes several tiles.
  for (const auto& [rows, width] : {Shape{0, 5}, Shape{1, 1}, Shape{5, 31}, Shape{4, 32},
                                    Shape{3, 33}, Shape{37, 64}, Shape{2, 255}, Shape{3, 256},
                                    Shape{2, 257}, Shape{3, 576}, Shape{2, 1025}, Shape{2, 4100}}) {
    const std::vector<float> x = random_floats(rows * width, 1, 3.0f), w = around_one(width, 2);
    compare([&, n = static_cast<size_t>(rows), width = width, rows = rows]<class D>() {
      typename D::template Buffer<float> in(x), weight(w), y(x.size()), rstd(n);
      EXPECT_TRUE(
          D::rms_norm({in.data(), weight.data(), y.data(), rstd.data(), rows, width, 1e-5f}));
      EXPECT_TRUE(D::rms_norm({in.data(), weight.data(), in.data(), nullptr, rows, width, 1e-5f}));
      EXPECT_EQ(in.values(), y.values());  // In place.
      return std::tuple(y.values(), rstd.values());
    });
  }
}

template <class Compare>
void rms_norm_backward_cases(const Compare& compare) {
  struct Shape {
    int64_t rows, width;
  };
  for (const auto& [rows, width] :
       {Shape{0, 5}, Shape{1, 1}, Shape{5, 31}, Shape{4, 32}, Shape{35, 33}, Shape{3, 255},
        Shape{2, 257}, Shape{9, 576}, Shape{3, 1025}, Shape{2, 4100}}) {
    const std::vector<float> x = random_floats(rows * width, 1, 3.0f), w = around_one(width, 2),
                             dy = random_floats(rows * width, 3), r = around_one(rows, 4),
                             before = random_floats(rows * width, 5), dw = random_floats(width, 6);
    for (const bool accumulate : {false, true}) {
      compare([&, width = width, rows = rows]<class D>() {
        typename D::template Buffer<float> in(x), weight(w), gradient(dy), rstd(r), dx(before),
            dweight(dw);
        EXPECT_TRUE(D::rms_norm_backward({gradient.data(), in.data(), weight.data(), rstd.data(),
                                          dx.data(), accumulate, dweight.data(), rows, width}));
        return std::tuple(dx.values(), dweight.values());
      });
    }
    compare([&, width = width, rows = rows]<class D>() {  // dx over dy.
      typename D::template Buffer<float> in(x), weight(w), gradient(dy), rstd(r), dweight(dw);
      EXPECT_TRUE(D::rms_norm_backward({gradient.data(), in.data(), weight.data(), rstd.data(),
                                        gradient.data(), false, dweight.data(), rows, width}));
      return std::tuple(gradient.values(), dweight.values());
    });
  }
}

template <class Compare>
void rope_cases(const Compare& compare) {
  struct Shape {
    int64_t heads, head_dim, gap;  // gap: floats between rows that are not theirs.
  };
  constexpr int64_t kRows = 9, kPositions = 50;
  for (const auto& [heads, head_dim, gap] :
       {Shape{1, 2, 0}, Shape{3, 62, 5}, Shape{9, 64, 0}, Shape{2, 66, 1}, Shape{0, 64, 3}}) {
    const kernels::RopeTable table = kernels::make_rope_table(head_dim, kPositions, 10000.0);
    const std::vector<float> x = random_floats(kRows * (heads * head_dim + gap), 7, 2.0f);
    const std::vector<int32_t> at = {0, 1, 49, 7, 7, 30, 2, 48, 11};
    for (const bool inverse : {false, true}) {
      compare([&, heads = heads, head_dim = head_dim, gap = gap]<class D>() {
        typename D::template Buffer<float> rows(x), cos(table.cos), sin(table.sin);
        typename D::template Buffer<int32_t> positions(at);
        EXPECT_TRUE(D::rope({.x = rows.data(),
                             .row_stride = heads * head_dim + gap,
                             .positions = positions.data(),
                             .rows = kRows,
                             .heads = heads,
                             .cos = cos.data(),
                             .sin = sin.data(),
                             .half = head_dim / 2,
                             .inverse = inverse},
                            kPositions));
        return rows.values();
      });
    }
  }
}

template <class Compare>
void embedding_cases(const Compare& compare) {
  const std::vector<int32_t> wanted = {0, 31, 32, 40, 17, 40, 63, 64, 69};
  for (const int64_t width : {1, 31, 32, 33, 255}) {
    const std::vector<float> rows = random_floats(70 * width, 8);
    std::vector<float> panels(static_cast<size_t>(kernels::panel_elements(70, width)), 0.0f);
    kernels::pack_rows(rows.data(), 70, width, 0, panels.data());
    std::vector<uint16_t> bf16(panels.size()), f16(panels.size());
    kernels::panels_to_bf16(panels.data(), std::ssize(panels), bf16.data());
    kernels::panels_to_f16(panels.data(), std::ssize(panels), f16.data());
    for (const size_t count : {wanted.size(), size_t{0}}) {
      for (const int type : {0, 1, 2}) {
        compare([&]<class D>() {
          typename D::template Buffer<float> floats(panels);
          typename D::template Buffer<uint16_t> half(type == 1 ? bf16 : f16);
          typename D::template Buffer<int32_t> ids(wanted);
          typename D::template Buffer<float> out(count * static_cast<size_t>(width));
          const kernels::PackedWeight weight{.f32 = type == 0 ? floats.data() : nullptr,
                                             .bf16 = type == 1 ? half.data() : nullptr,
                                             .n = 70,
                                             .k = width,
                                             .f16 = type == 2 ? half.data() : nullptr};
          EXPECT_TRUE(
              D::embedding(weight, std::span<const int32_t>(ids.data(), count), out.data()));
          return out.values();
        });
      }
    }
  }
}

template <class Compare>
void swiglu_cases(const Compare& compare) {
  struct Shape {
    int64_t rows, width;
  };
  for (const auto& [rows, width] : {Shape{0, 4}, Shape{1, 1}, Shape{3, 31}, Shape{2, 32},
                                    Shape{3, 33}, Shape{2, 255},
                                    Shape{tsan_size<int64_t>(7, 3), 1025}}) {
    const std::vector<float> gate_up = random_floats(rows * 2 * width, 9, 30.0f),
                             dy = random_floats(rows * width, 10);
    compare([&, rows = rows, width = width]<class D>() {
      typename D::template Buffer<float> in(gate_up), y(dy.size()), gradient(dy),
          dgate_up(gate_up.size());
      EXPECT_TRUE(D::swiglu(in.data(), y.data(), rows, width));
      EXPECT_TRUE(D::swiglu_backward(gradient.data(), in.data(), dgate_up.data(), rows, width));
      EXPECT_TRUE(D::swiglu_backward(gradient.data(), in.data(), in.data(), rows, width));
      EXPECT_EQ(in.values(), dgate_up.values());  // In place.
      return std::tuple(y.values(), dgate_up.values());
    });
  }
  for (const int64_t n : std::vector<int64_t>{0, 1, 33, kMany}) {
    const std::vector<float> a = random_floats(n, 11), b = random_floats(n, 12);
    compare([&]<class D>() {
      typename D::template Buffer<float> x(a), y(b);
      EXPECT_TRUE(D::add_inplace(x.data(), y.data(), n));
      return x.values();
    });
  }
}

template <class Compare>
void adamw_cases(const Compare& compare) {
  for (const int64_t n :
       std::vector<int64_t>{0, 1, 31, 33, 64, 255, 1024, (kMany + 63) / 64 * 64}) {
    const std::vector<float> param = random_floats(n, 13), grad = random_floats(n, 14, 0.1f),
                             m0 = random_floats(n, 15, 0.1f);
    std::vector<float> v0 = random_floats(n, 16, 0.01f);
    for (float& v : v0) v = std::abs(v);
    for (const bool on_device : {false, true}) {
      const bool writes = n % 64 == 0,
                 f16 = on_device;  // Both scales and both copies, in two runs.
      compare([&]<class D>() {
        typename D::template Buffer<float> p(param), g(grad), m(m0), v(v0),
            factor(std::vector<float>{0.37f});
        typename D::template Buffer<uint16_t> half(writes ? param.size() : 0);
        const kernels::AdamWArgs args{.param = p.data(),
                                      .grad = g.data(),
                                      .exp_avg = m.data(),
                                      .exp_avg_sq = v.data(),
                                      .bf16 = writes && !f16 ? half.data() : nullptr,
                                      .f16 = writes && f16 ? half.data() : nullptr,
                                      .count = n,
                                      .grad_scale = 0.9f,
                                      .learning_rate = 3e-3,
                                      .beta2 = 0.99,
                                      .weight_decay = 0.1,
                                      .step = 7};
        EXPECT_TRUE(D::adamw(args, on_device ? factor.data() : nullptr));
        return std::tuple(p.values(), m.values(), v.values(), half.values());
      });
      compare([&]<class D>() {
        std::vector<uint16_t> m16, v16;
        for (const float x : m0) m16.push_back(float_to_bf16(x));
        for (const float x : v0) v16.push_back(float_to_bf16(x));
        typename D::template Buffer<float> p(param), g(grad), factor(std::vector<float>{0.37f});
        typename D::template Buffer<uint16_t> half(writes ? param.size() : 0), m(m16), v(v16);
        const kernels::AdamWArgs args{.param = p.data(),
                                      .grad = g.data(),
                                      .bf16 = writes && !f16 ? half.data() : nullptr,
                                      .f16 = writes && f16 ? half.data() : nullptr,
                                      .count = n,
                                      .learning_rate = 3e-3,
                                      .step = 7,
                                      .exp_avg_bf16 = m.data(),
                                      .exp_avg_sq_bf16 = v.data(),
                                      .rounding_key = 0x0123456789abcdefull,
                                      .first = (int64_t{1} << 32) - 40};  // Indices wrap.
        EXPECT_TRUE(D::adamw(args, on_device ? factor.data() : nullptr));
        return std::tuple(p.values(), m.values(), v.values(), half.values());
      });
    }
  }
}

template <class Compare>
void clipping_cases(const Compare& compare) {
  std::vector<double> sums;
  for (const int64_t n : std::vector<int64_t>{0, 1, 15, 16, 17, 255, 4095, 4096, 4097, kMany}) {
    const std::vector<float> x = random_floats(n, 17, 3.0f);
    sums.push_back(kernels::sum_of_squares(x.data(), n));
    compare([&]<class D>() {
      typename D::template Buffer<float> values(x);
      typename D::template Buffer<double> sum(1),
          workspace(static_cast<size_t>(kernels::cuda::sum_of_squares_workspace(n)));
      EXPECT_TRUE(D::sum_of_squares(values.data(), n, workspace.data(), sum.data()));
      return sum.values();
    });
  }
  while (sums.size() < 600) sums.push_back(sums[sums.size() - 9] * 1.01);
  for (const double max_norm : {0.0, 1.0, 1e9}) {
    for (const size_t buffers : {size_t{0}, size_t{1}, size_t{256}, sums.size()}) {
      compare([&]<class D>() {
        typename D::template Buffer<double> squares(sums), norm(1);
        typename D::template Buffer<float> factor(1);
        EXPECT_TRUE(D::clip_factor({.squares = squares.data(),
                                    .buffers = static_cast<int64_t>(buffers),
                                    .max_norm = max_norm,
                                    .norm = norm.data(),
                                    .factor = factor.data()}));
        return std::tuple(norm.values(), factor.values());
      });
    }
  }
}

}  // namespace temper::test
