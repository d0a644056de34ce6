// The CPU kernels of products, norms and elementwise parts against plain ATen.
#include "ops_test_util.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/swiglu.h"

namespace temper::test_ops {
namespace {

struct Shape {
  int64_t rows, n, k;
};
constexpr Shape kShapes[] = {{1, 1, 1},       {31, 33, 1025}, {33, 1025, 31}, {1025, 31, 33},
                             {1, 1025, 1025}, {33, 1, 31},    {2, 64, 1},     {7, 96, 130}};

std::string name(const Shape& s, Stored how) {
  return std::to_string(s.rows) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k) +
         ", stored " + std::to_string(static_cast<int>(how));
}

// Rounding errors of a product in units of 2^-24 times its sum of absolute terms. A chunk of 128
// steps is one chain and errors of either sign cancel, so a few units are all that is seen.
constexpr double kProductUnits = 6;

TEST(Products, ForwardIsThatOfATen) {
  for (const Shape& s : kShapes) {
    for (const Stored how : kAllRead) {
      const Weight w(s.n, s.k, 1, how);
      const Floats x = random_floats(s.rows * (s.k + 3), 2), bias = random_floats(s.n, 3);
      const auto run = [&](auto op, const Weight& weight, const Floats& in, const Floats& b,
                           bool add) {
        Floats y = random_floats(s.rows * (s.n + 1), 4);
        if (&weight != &w) y = absolute(y);
        op(kernels::LinearArgs{.x = in.data(),
                               .x_stride = s.k + 3,
                               .weight = weight.packed(),
                               .bias = add ? nullptr : b.data(),
                               .y = y.data(),
                               .y_stride = s.n + 1,
                               .rows = s.rows,
                               .add = add});
        return y;
      };
      for (const bool add : {false, true}) {
        const Floats magnitude =
            run(reference().linear, w.magnitude(), absolute(x), absolute(bias), add);
        expect_within(run(kernels::linear, w, x, bias, add),
                      run(reference().linear, w, x, bias, add), magnitude, kProductUnits,
                      name(s, how));
      }
    }
  }
}

TEST(Products, SwigluOfAProductIsThatOfATen) {
  const Weight w(66, 31, 26, Stored::kFloat32);
  const Floats x = random_floats(33 * 31, 27, 3.0f);
  const auto run = [&](auto op) {
    Floats gate_up(33 * 66), y(33 * 33);
    op(kernels::LinearArgs{.x = x.data(),
                           .x_stride = 31,
                           .weight = w.packed(),
                           .y = gate_up.data(),
                           .y_stride = 66,
                           .rows = 33,
                           .swiglu = y.data()});
    return y;
  };
  // Gates of a few tens, whose rounding is that of their products' terms.
  expect_within(run(kernels::linear), run(reference().linear), 300.0, 6);
}

TEST(Products, InputGradientIsThatOfATen) {
  for (const Shape& s : kShapes) {
    for (const Stored how : kAllStored) {
      const Weight w(s.n, s.k, 5, how);
      const Floats dy = random_floats(s.rows * (s.n + 2), 6);
      const auto run = [&](auto op, const Weight& weight, const Floats& d, bool add) {
        Floats dx = random_floats(s.rows * (s.k + 1), 7);
        if (&weight != &w) dx = absolute(dx);
        op(kernels::LinearBackwardInputArgs{.dy = d.data(),
                                            .dy_stride = s.n + 2,
                                            .weight = weight.packed(),
                                            .dx = dx.data(),
                                            .dx_stride = s.k + 1,
                                            .rows = s.rows,
                                            .add = add});
        return dx;
      };
      for (const bool add : {false, true}) {
        expect_within(run(kernels::linear_backward_input, w, dy, add),
                      run(reference().linear_backward_input, w, dy, add),
                      run(reference().linear_backward_input, w.magnitude(), absolute(dy), add),
                      kProductUnits, name(s, how));
      }
    }
  }
}

TEST(Products, WeightGradientIsThatOfATen) {
  for (const Shape& s : kShapes) {
    for (const auto product : {kernels::Product::kFma, kernels::Product::kDot}) {
      const Floats dy = random_floats(s.rows * s.n, 8), x = random_floats(s.rows * s.k, 9);
      const Weight start(s.n, s.k, 10, Stored::kFloat32);
      const auto run = [&](auto op, const Floats& d, const Floats& in, const Weight& from) {
        Floats dw = from.f32, db = absolute(random_floats(s.n, 11));
        op(kernels::LinearBackwardWeightArgs{.dy = d.data(),
                                             .dy_stride = s.n,
                                             .x = in.data(),
                                             .x_stride = s.k,
                                             .dweight = dw.data(),
                                             .dbias = db.data(),
                                             .rows = s.rows,
                                             .n = s.n,
                                             .k = s.k,
                                             .product = product});
        dw.insert(dw.end(), db.begin(), db.end());
        return dw;
      };
      // One chain over all rows: errors grow with the square root of their number.
      expect_within(
          run(kernels::linear_backward_weight, dy, x, start),
          run(reference().linear_backward_weight, dy, x, start),
          run(reference().linear_backward_weight, absolute(dy), absolute(x), start.magnitude()),
          kProductUnits, std::to_string(s.rows) + " rows");
    }
  }
}

TEST(Norms, ForwardIsThatOfATen) {
  for (const int64_t width : {1, 31, 33, 1025}) {
    for (const int64_t rows : {1, 31, 33}) {
      for (const float scale : {1e-4f, 1.0f, 1e4f}) {
        const Floats x = random_floats(rows * width, 12, scale), w = random_floats(width, 13);
        const auto run = [&](auto op) {
          Floats y(x.size()), rstd(static_cast<size_t>(rows));
          op(kernels::RmsNormArgs{x.data(), w.data(), y.data(), rstd.data(), rows, width, 1e-5f});
          y.insert(y.end(), rstd.begin(), rstd.end());
          return y;
        };
        const Floats want = run(reference().rms_norm);
        expect_within(run(kernels::rms_norm), want, want, 8, std::to_string(width));
      }
    }
  }
}

TEST(Norms, GradientsAreThoseOfATen) {
  for (const int64_t width : {1, 31, 33, 1025}) {
    for (const int64_t rows : {1, 33, 257}) {
      const Floats x = random_floats(rows * width, 14), w = random_floats(width, 15);
      const Floats dy = random_floats(rows * width, 16);
      Floats y(x.size()), rstd(static_cast<size_t>(rows));
      kernels::rms_norm({x.data(), w.data(), y.data(), rstd.data(), rows, width, 1e-5f});
      const auto run = [&](auto op, bool accumulate) {
        Floats dx = random_floats(rows * width, 17), dw = random_floats(width, 18);
        op(kernels::RmsNormBackwardArgs{dy.data(), x.data(), w.data(), rstd.data(), dx.data(),
                                        accumulate, dw.data(), rows, width});
        dx.insert(dx.end(), dw.begin(), dw.end());
        return dx;
      };
      // dx of a row: rstd (|g| + |h| mean|g h|) with |h| <= sqrt(width).
      Floats magnitude;
      for (int64_t r = 0; r < rows; ++r) {
        const float bound = rstd[static_cast<size_t>(r)] * 4;
        magnitude.insert(magnitude.end(), static_cast<size_t>(width), bound + 1);
      }
      magnitude.insert(magnitude.end(), static_cast<size_t>(width),
                       2 * std::sqrt(static_cast<float>(rows)) + 1);
      for (const bool accumulate : {false, true}) {
        expect_within(run(kernels::rms_norm_backward, accumulate),
                      run(reference().rms_norm_backward, accumulate), magnitude, 12,
                      std::to_string(width) + " wide");
      }
    }
  }
}

TEST(Rope, HasTheBitsOfATenUpToTheEndOfTheTable) {
  // Products are rounded before they are added in both.
  for (const int64_t half : {1, 31, 33}) {
    const auto table = kernels::make_rope_table(2 * half, 8192, 10000.0);
    const std::vector<int32_t> positions = {0, 1, 31, 4095, 8190, 8191};
    for (const int64_t heads : {1, 3}) {
      for (const bool inverse : {false, true}) {
        const int64_t stride = heads * 2 * half + 5;
        const auto run = [&](auto op) {
          Floats x = random_floats(std::ssize(positions) * stride, 19);
          op(x.data(), stride, positions, heads, table, inverse);
          return x;
        };
        EXPECT_TRUE(test::same_bits(run(kernels::rope), run(reference().rope))) << half;
      }
    }
  }
}

TEST(Embedding, CopiesExactlyInEveryType) {
  for (const Stored how : kAllRead) {
    for (const int64_t width : {1, 31, 33}) {
      const Weight w(1025, width, 20, how);
      const std::vector<int32_t> ids = {0, 31, 32, 33, 1024, 5, 5};
      const auto run = [&](auto op) {
        Floats out(ids.size() * static_cast<size_t>(width));
        op(w.packed(), ids, out.data());
        return out;
      };
      EXPECT_EQ(run(kernels::embedding), run(reference().embedding)) << name({7, 1025, width}, how);
    }
  }
}

TEST(Swiglu, ValuesAndGradientsAreThoseOfATen) {
  for (const int64_t width : {1, 31, 33, 1025}) {
    for (const float scale : {1.0f, 30.0f, 1e4f}) {
      const int64_t rows = 3;
      const Floats in = random_floats(rows * 2 * width, 21, scale);
      const Floats dy = random_floats(rows * width, 22);
      const auto forward = [&](auto op) {
        Floats y(dy.size());
        op(in.data(), y.data(), rows, width);
        return y;
      };
      const Floats want = forward(reference().swiglu);
      expect_within(forward(kernels::swiglu), want, want, 8, "forward");
      const auto backward = [&](auto op) {
        Floats d(in.size());
        op(dy.data(), in.data(), d.data(), rows, width);
        return d;
      };
      // d gate is dy up (s + s g (1 - s)), whose parts cancel near g = -1.28.
      expect_within(backward(kernels::swiglu_backward), backward(reference().swiglu_backward),
                    double{scale} * 1.1, 8, "backward");
    }
  }
}

TEST(AddInplace, HasTheBitsOfATen) {
  for (const int64_t n : {1, 31, 33, 1025}) {
    const auto run = [&](auto op) {
      Floats x = random_floats(n, 23);
      op(x.data(), random_floats(n, 24).data(), n);
      return x;
    };
    EXPECT_TRUE(test::same_bits(run(kernels::add_inplace), run(reference().add_inplace)));
  }
}

}  // namespace
}  // namespace temper::test_ops
