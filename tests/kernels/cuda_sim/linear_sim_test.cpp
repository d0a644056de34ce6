// Products on the emulator. kFma has the CPU's bits; kDot is compared with sums in double, and with
// itself where its bits must not move.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/linear.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/linear.h"

namespace temper::kernels::cuda {
namespace {

using test::DeviceBuffer;
using Floats = std::vector<float>;

enum class Kind { kFloat, kBf16, kDot };

struct Weight {
  int64_t n, k;
  Kind kind;
  Floats rows, panels;  // What is multiplied, row-major and packed.
  std::vector<uint16_t> half;

  Weight(Kind kind_, int64_t n_, int64_t k_)
      : n(n_), k(k_), kind(kind_), rows(test::random_floats(n_ * k_, 7)) {
    panels.assign(static_cast<size_t>(panel_elements(n, k)), 0.0f);
    half.assign(panels.size(), 0);
    if (kind != Kind::kFloat) {
      for (float& v : rows) v = bf16_to_float(temper::float_to_bf16(v));
    }
    pack_rows(rows.data(), n, k, 0, panels.data());
    panels_to_bf16(panels.data(), static_cast<int64_t>(panels.size()), half.data());
  }
  Product product() const { return kind == Kind::kDot ? Product::kDot : Product::kFma; }
  PackedWeight on_cpu() const {
    return {panels.data(), kind == Kind::kFloat ? nullptr : half.data(), n, k, product()};
  }
  float at(int64_t row, int64_t step) const { return rows[static_cast<size_t>(row * k + step)]; }
};

/// The same in guarded buffers.
struct DeviceWeight {
  DeviceBuffer<float> panels;
  DeviceBuffer<uint16_t> half;
  PackedWeight view;
  explicit DeviceWeight(const Weight& w) : panels(w.panels), half(w.half), view(w.on_cpu()) {
    view.f32 = panels.data();
    if (view.bf16 != nullptr) view.bf16 = half.data();
  }
};

struct Forward {
  int64_t rows;
  bool bias = false;
  bool add = false;
  int64_t pad = 0;    // Of x's and y's rows.
  size_t offset = 0;  // Of x and y from an aligned address.
  int64_t few = kFewRows;
};

struct Inputs {
  Floats x, y, bias;
  Inputs(const Weight& w, const Forward& f)
      : x(test::random_floats(f.rows * (w.k + f.pad), 1)),
        y(test::random_floats(f.rows * (w.n + f.pad), 2)),
        bias(test::random_floats(w.n, 3)) {}
};

LinearArgs args(const Weight& w, const Forward& f, const PackedWeight& view) {
  LinearArgs a;
  a.weight = view;
  a.x_stride = w.k + f.pad;
  a.y_stride = w.n + f.pad;
  a.rows = f.rows;
  a.add = f.add;
  return a;
}

Floats on_cpu(const Weight& w, const Forward& f) {
  Inputs in(w, f);
  LinearArgs a = args(w, f, w.on_cpu());
  a.x = in.x.data();
  a.y = in.y.data();
  if (f.bias) a.bias = in.bias.data();
  kernels::linear(a);
  return in.y;
}

Floats on_device(const Weight& w, const Forward& f) {
  const Inputs in(w, f);
  DeviceWeight weight(w);
  DeviceBuffer<float> x(in.x, f.offset), y(in.y, f.offset), bias(in.bias);
  LinearArgs a = args(w, f, weight.view);
  a.x = x.data();
  a.y = y.data();
  if (f.bias) a.bias = bias.data();
  EXPECT_TRUE(launch_linear(a, nullptr, f.few).ok());
  return y.values();
}

TEST(LinearSim, FmaHasTheBitsOfTheCpu) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16}) {
    for (const int64_t n : {1, 33, 200}) {
      for (const int64_t k : {1, 31, 128, 301}) {
        const Weight w(kind, n, k);
        for (const int64_t rows : {1, 3, 16, 65}) {
          for (const int64_t few : {int64_t{0}, int64_t{kFewRows}}) {
            if (rows > kFewRows && few == 0) continue;
            const Forward f{.rows = rows, .few = few};
            EXPECT_TRUE(test::same_bits(on_device(w, f), on_cpu(w, f)))
                << "n " << n << " k " << k << " rows " << rows << " few " << few;
          }
        }
      }
    }
  }
}

TEST(LinearSim, BiasResidualStridesAndUnalignedRowsHaveTheBitsOfTheCpu) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16}) {
    const Weight w(kind, 70, 150);
    for (const int64_t rows : {2, 66}) {
      for (const Forward& f :
           {Forward{.rows = rows, .bias = true}, Forward{.rows = rows, .add = true, .pad = 6},
            Forward{.rows = rows, .bias = true, .add = true, .pad = 4},
            Forward{.rows = rows, .add = true, .offset = 1}}) {
        EXPECT_TRUE(test::same_bits(on_device(w, f), on_cpu(w, f))) << rows;
      }
    }
  }
}

TEST(LinearSim, EveryThreadOrderGivesTheSameBits) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16, Kind::kDot}) {
    const Weight w(kind, 40, 290);
    for (const int64_t rows : {2, 18}) {
      test::in_all_orders([&] { return on_device(w, {.rows = rows, .bias = true, .add = true}); });
    }
  }
}

float rounded(float x) { return bf16_to_float(temper::float_to_bf16(x)); }

// Each of a product's terms and partial sums is rounded once: |error| <= terms 2^-24 sum |a b|, and
// the operands are exact bf16 numbers in the reference too.
TEST(LinearSim, DotIsTheSumInDouble) {
  for (const int64_t k : {1, 31, 256, 601}) {
    const Weight w(Kind::kDot, 133, k);
    for (const Forward& f : {Forward{.rows = 5}, Forward{.rows = 5, .few = 0},
                             Forward{.rows = 130, .bias = true, .add = true, .pad = 3}}) {
      const Inputs in(w, f);
      const Floats y = on_device(w, f);
      for (int64_t r = 0; r < f.rows; ++r) {
        for (int64_t j = 0; j < w.n; ++j) {
          const auto at = static_cast<size_t>(r * (w.n + f.pad) + j);
          const double old = f.add ? in.y[at] : 0.0;
          const double bias = f.bias ? in.bias[static_cast<size_t>(j)] : 0.0;
          double want = old + bias, magnitude = std::abs(old) + std::abs(bias);
          for (int64_t i = 0; i < k; ++i) {
            const double p =
                double{rounded(in.x[static_cast<size_t>(r * (k + f.pad) + i)])} * w.at(j, i);
            want += p;
            magnitude += std::abs(p);
          }
          ASSERT_NEAR(y[at], want, static_cast<double>(k + 4) * 0x1p-24 * magnitude)
              << k << " " << r << " " << j;
        }
      }
    }
  }
}

TEST(LinearSim, BitsOfARowDoNotDependOnTheOtherRows) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16, Kind::kDot}) {
    const Weight w(kind, 72, 600);
    const Floats base = on_device(w, {.rows = 65});
    for (const int64_t rows : {1, 3, 16, 17}) {
      for (const int64_t few : {int64_t{0}, int64_t{kFewRows}}) {
        const Floats y = on_device(w, {.rows = rows, .few = few});
        EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << rows << " few " << few;
      }
    }
    // A row elsewhere among the others: the last one alone.
    const Inputs in(w, {.rows = 65});
    DeviceWeight weight(w);
    DeviceBuffer<float> x(Floats(in.x.end() - w.k, in.x.end())), y(static_cast<size_t>(w.n));
    LinearArgs a = args(w, {.rows = 1}, weight.view);
    a.x = x.data();
    a.y = y.data();
    EXPECT_TRUE(launch_linear(a, nullptr).ok());
    EXPECT_TRUE(test::same_bits(y.values(), Floats(base.end() - w.n, base.end())));
  }
}

TEST(LinearSim, SwigluComesWithTheBitsOfTheCpu) {
  for (const int64_t rows : {3, 17}) {
    const Weight w(Kind::kBf16, 92, 64);
    Floats x = test::random_floats(rows * 64, 1), y(static_cast<size_t>(rows * 92));
    Floats gated(static_cast<size_t>(rows * 46));
    LinearArgs a = args(w, {.rows = rows}, w.on_cpu());
    a.x = x.data();
    a.y = y.data();
    a.swiglu = gated.data();
    kernels::linear(a);
    DeviceWeight weight(w);
    DeviceBuffer<float> dx(x), dy(y.size()), dgated(gated.size());
    a.weight = weight.view;
    a.x = dx.data();
    a.y = dy.data();
    a.swiglu = dgated.data();
    ASSERT_TRUE(launch_linear(a, nullptr).ok());
    EXPECT_TRUE(test::same_bits(dy.values(), y));
    EXPECT_TRUE(test::same_bits(dgated.values(), gated));
  }
}

Floats input_gradient(const Weight& w, int64_t rows, bool add, bool device) {
  const Floats dy = test::random_floats(rows * w.n, 4);
  Floats dx = test::random_floats(rows * w.k, 5);
  LinearBackwardInputArgs a{.dy = dy.data(),
                            .dy_stride = w.n,
                            .weight = w.on_cpu(),
                            .dx = dx.data(),
                            .dx_stride = w.k,
                            .rows = rows,
                            .add = add};
  if (!device) {
    linear_backward_input(a);
    return dx;
  }
  DeviceWeight weight(w);
  DeviceBuffer<float> from(dy), to(dx);
  a.dy = from.data();
  a.weight = weight.view;
  a.dx = to.data();
  EXPECT_TRUE(launch_linear_backward_input(a, nullptr).ok());
  return to.values();
}

TEST(LinearSim, InputGradientByFmaHasTheBitsOfTheCpu) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16}) {
    for (const int64_t n : {1, 33, 300}) {
      for (const int64_t k : {1, 45, 200}) {
        const Weight w(kind, n, k);
        for (const int64_t rows : {1, 66}) {
          for (const bool add : {false, true}) {
            const Floats want = input_gradient(w, rows, add, false);
            EXPECT_TRUE(test::same_bits(input_gradient(w, rows, add, true), want))
                << n << " " << k << " " << rows << " " << add;
          }
        }
      }
    }
  }
}

TEST(LinearSim, InputGradientByDotIsTheSumInDouble) {
  for (const int64_t n : {7, 290}) {
    const int64_t k = 141, rows = 19;
    const Weight w(Kind::kDot, n, k);
    const Floats dy = test::random_floats(rows * n, 4), before = test::random_floats(rows * k, 5);
    const Floats dx = test::in_all_orders([&] { return input_gradient(w, rows, true, true); });
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<size_t>(r * k + i);
        double want = before[at], magnitude = std::abs(want);
        for (int64_t j = 0; j < n; ++j) {
          const double p = double{rounded(dy[static_cast<size_t>(r * n + j)])} * w.at(j, i);
          want += p;
          magnitude += std::abs(p);
        }
        ASSERT_NEAR(dx[at], want, static_cast<double>(n + 3) * 0x1p-24 * magnitude)
            << n << " " << r << " " << i;
      }
    }
  }
}

struct WeightGradient {
  int64_t n, k, rows;
  Product product;
};

/// dweight and dbias, the rows in calls of the given sizes.
Floats weight_gradient(const WeightGradient& g, const std::vector<int64_t>& calls, bool device) {
  const Floats dy = test::random_floats(g.rows * g.n, 6), x = test::random_floats(g.rows * g.k, 7);
  Floats dweight = test::random_floats(panel_elements(g.n, g.k), 8);
  // Padding is zero, as in a gradient.
  Floats only(dweight.size(), 0.0f), rows(static_cast<size_t>(g.n * g.k));
  unpack_rows(dweight.data(), 0, g.n, g.k, rows.data());
  pack_rows(rows.data(), g.n, g.k, 0, only.data());
  Floats dbias = test::random_floats(g.n, 9);
  DeviceBuffer<float> d_dy(dy), d_x(x), d_weight(only), d_bias(dbias);
  int64_t row = 0;
  for (const int64_t count : calls) {
    LinearBackwardWeightArgs a{.dy = (device ? d_dy.data() : dy.data()) + row * g.n,
                               .dy_stride = g.n,
                               .x = (device ? d_x.data() : x.data()) + row * g.k,
                               .x_stride = g.k,
                               .dweight = device ? d_weight.data() : only.data(),
                               .dbias = device ? d_bias.data() : dbias.data(),
                               .rows = count,
                               .n = g.n,
                               .k = g.k,
                               .product = g.product};
    if (device) {
      EXPECT_TRUE(launch_linear_backward_weight(a, nullptr).ok());
    } else {
      linear_backward_weight(a);
    }
    row += count;
  }
  Floats out = device ? d_weight.values() : only;
  const Floats bias = device ? d_bias.values() : dbias;
  out.insert(out.end(), bias.begin(), bias.end());
  return out;
}

TEST(LinearSim, WeightGradientByFmaHasTheBitsOfTheCpuInOneCallOrSeveral) {
  for (const int64_t n : {1, 45, 140}) {
    for (const int64_t k : {1, 70}) {
      const WeightGradient g{n, k, 37, Product::kFma};
      const Floats want = weight_gradient(g, {37}, false);
      EXPECT_TRUE(test::same_bits(weight_gradient(g, {37}, true), want)) << n << " " << k;
      EXPECT_TRUE(test::same_bits(weight_gradient(g, {1, 20, 16}, true), want)) << n << " " << k;
    }
  }
  test::in_all_orders([] { return weight_gradient({45, 70, 37, Product::kFma}, {37}, true); });
}

TEST(LinearSim, WeightGradientByDotIsTheSumInDoubleAndContinues) {
  const WeightGradient g{45, 139, 77, Product::kDot};
  const Floats got = test::in_all_orders([&] { return weight_gradient(g, {77}, true); });
  EXPECT_TRUE(test::same_bits(weight_gradient(g, {16, 48, 13}, true), got));
  const Floats dy = test::random_floats(g.rows * g.n, 6), x = test::random_floats(g.rows * g.k, 7);
  const Floats before = test::random_floats(panel_elements(g.n, g.k), 8);
  for (int64_t j = 0; j < g.n; ++j) {
    for (int64_t i = 0; i < g.k; ++i) {
      const auto at =
          static_cast<size_t>((j / kPanel * panel_depth(g.k) + i) * kPanel + j % kPanel);
      double want = before[at], magnitude = std::abs(want);
      for (int64_t r = 0; r < g.rows; ++r) {
        const double p = double{rounded(dy[static_cast<size_t>(r * g.n + j)])} *
                         rounded(x[static_cast<size_t>(r * g.k + i)]);
        want += p;
        magnitude += std::abs(p);
      }
      ASSERT_NEAR(got[at], want, static_cast<double>(g.rows + 3) * 0x1p-24 * magnitude)
          << j << " " << i;
    }
  }
}

TEST(LinearSim, RefusesBeforeLaunching) {
  const Weight w(Kind::kFloat, 8, 8);
  LinearArgs a = args(w, {.rows = 1}, w.on_cpu());
  a.weight.product = Product::kDot;
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] Product::kDot needs bf16 panels");
  a.weight = {};
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] a weight must have n >= 1 and k >= 1");
  a.weight = {.n = 8, .k = 8};
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] the weight has no panels");
  a.weight = w.on_cpu();
  a.weight.f32 += 1;
  EXPECT_STREQ(launch_linear(a, nullptr).what,
               "[linear] panels must begin at a multiple of 16 bytes");
  a = args(w, {.rows = int64_t{65536} * kFmaRows}, w.on_cpu());
  EXPECT_STREQ(launch_linear(a, nullptr).what,
               "[linear] too many rows for one launch: at most 4,194,240");
  a.rows = -1;
  EXPECT_EQ(launch_linear(a, nullptr).code, kInvalidArgument);
  a.rows = 0;
  EXPECT_TRUE(launch_linear(a, nullptr).ok());
  EXPECT_FALSE(launch_linear_backward_weight({.rows = 1, .n = 0, .k = 1}, nullptr).ok());
}

}  // namespace
}  // namespace temper::kernels::cuda
