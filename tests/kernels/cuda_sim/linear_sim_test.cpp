// Products on the emulator. kFma has the CPU's bits; kDot is compared with sums in double, and with
// itself where its bits must not move.
#include <algorithm>

#include "cuda/linear.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/linear_case.h"

namespace temper::kernels::cuda {
namespace {

using test::DeviceBuffer;
using test::Forward;
using test::Kind;
using test::LinearHost;
using test::LinearWeight;

/// `kFew`: rows up to which the launch shape of decode is taken.
template <int64_t kFew = kFewRows>
struct LinearSide {
  template <class T>
  using Buffer = DeviceBuffer<T>;
  static bool linear(const LinearArgs& a) { return launch_linear(a, nullptr, kFew).ok(); }
  static bool linear_backward_input(const LinearBackwardInputArgs& a) {
    return launch_linear_backward_input(a, nullptr).ok();
  }
  static bool linear_backward_weight(const LinearBackwardWeightArgs& a) {
    return launch_linear_backward_weight(a, nullptr).ok();
  }
};
using Sim = LinearSide<>;
using SimLarge = LinearSide<0>;

TEST(LinearSim, FmaHasTheBitsOfTheCpu) {
  for (const Kind kind : test::kFmaKinds) {
    for (const int64_t n : {1, 33, 200}) {
      for (const int64_t k : {1, 31, 256, 301}) {
        const LinearWeight w(kind, n, k);
        for (const int64_t rows : {1, 3, 16, 65}) {
          const Forward f{.rows = rows};
          const auto want = test::forward<LinearHost>(w, f);
          EXPECT_TRUE(test::same_bits(test::forward<Sim>(w, f), want))
              << n << " " << k << " " << rows;
          EXPECT_TRUE(rows == 65 || test::same_bits(test::forward<SimLarge>(w, f), want))
              << n << " " << k << " " << rows;
        }
      }
    }
  }
}

TEST(LinearSim, BiasResidualStridesAndUnalignedRowsHaveTheBitsOfTheCpu) {
  for (const Kind kind : test::kFmaKinds) {
    const LinearWeight w(kind, 70, 150);
    for (const int64_t rows : {2, 66}) {
      for (const Forward& f :
           {Forward{.rows = rows, .bias = true}, Forward{.rows = rows, .add = true, .pad = 6},
            Forward{.rows = rows, .bias = true, .add = true, .pad = 4},
            Forward{.rows = rows, .add = true, .offset = 1}}) {
        EXPECT_TRUE(test::same_bits(test::forward<Sim>(w, f), test::forward<LinearHost>(w, f)))
            << rows;
      }
    }
  }
}

TEST(LinearSim, EveryThreadOrderGivesTheSameBits) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16, Kind::kDot, Kind::kHalf}) {
    const LinearWeight w(kind, 40, 290);
    for (const int64_t rows : {2, 18}) {
      const Forward f{.rows = rows, .bias = true, .add = true};
      test::in_all_orders([&] { return test::forward<Sim>(w, f); });
    }
  }
}

TEST(LinearSim, DotIsTheSumInDouble) {
  for (const int64_t k : {1, 31, 256, 601}) {
    const LinearWeight w(Kind::kDot, 133, k);
    const Forward few{.rows = 5}, many{.rows = 130, .bias = true, .add = true, .pad = 3};
    const double ulps = static_cast<double>(k) + 4;
    test::expect_dot_sums(test::forward<Sim>(w, few), w, few, ulps);
    test::expect_dot_sums(test::forward<SimLarge>(w, few), w, few, ulps);
    test::expect_dot_sums(test::forward<Sim>(w, many), w, many, ulps);
  }
}

TEST(LinearSim, BitsOfARowDoNotDependOnTheOtherRowsOrItsPlace) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16, Kind::kDot, Kind::kHalf}) {
    const LinearWeight w(kind, 72, 600);
    const std::vector<float> base = test::forward<Sim>(w, {.rows = 65});
    for (const int64_t rows : {1, 3, 16, 17}) {
      const std::vector<float> few = test::forward<Sim>(w, {.rows = rows});
      const std::vector<float> many = test::forward<SimLarge>(w, {.rows = rows});
      EXPECT_TRUE(std::equal(few.begin(), few.end(), base.begin())) << rows;
      EXPECT_TRUE(std::equal(many.begin(), many.end(), base.begin())) << rows;
    }
    const std::vector<float> last(base.end() - w.n, base.end());
    EXPECT_TRUE(test::same_bits(test::forward_row<Sim>(w, {.rows = 65}, 64), last));
  }
}

TEST(LinearSim, SwigluComesWithTheBitsOfTheCpu) {
  const LinearWeight w(Kind::kBf16, 92, 64);
  const auto run = [&]<class D>(int64_t rows) {
    test::WeightOn<D> weight(w);
    const std::vector<float> nothing(static_cast<size_t>(rows * 92), 0.0f);
    typename D::template Buffer<float> x(test::random_floats(rows * 64, 1), 0), y(nothing, 0),
        gated(std::vector<float>(nothing.begin(), nothing.begin() + rows * 46), 0);
    EXPECT_TRUE(D::linear({.x = x.data(),
                           .x_stride = 64,
                           .weight = weight.view,
                           .y = y.data(),
                           .y_stride = 92,
                           .rows = rows,
                           .swiglu = gated.data()}));
    return std::tuple(y.values(), gated.values());
  };
  for (const int64_t rows : {3, 17}) {
    EXPECT_TRUE(test::identical(run.template operator()<Sim>(rows),
                                run.template operator()<LinearHost>(rows)));
  }
}

TEST(LinearSim, InputGradientByFmaHasTheBitsOfTheCpu) {
  for (const Kind kind : test::kFmaKinds) {
    for (const int64_t n : {1, 33, 300}) {
      for (const int64_t k : {1, 45, 200}) {
        const LinearWeight w(kind, n, k);
        for (const test::InputGradient& g :
             {test::InputGradient{1, false}, {1, true}, {66, false}, {66, true}}) {
          EXPECT_TRUE(test::same_bits(test::input_gradient<Sim>(w, g),
                                      test::input_gradient<LinearHost>(w, g)))
              << n << " " << k << " " << g.rows << " " << g.add;
        }
      }
    }
  }
}

TEST(LinearSim, InputGradientByDotIsTheSumInDouble) {
  for (const int64_t n : {7, 290}) {
    const LinearWeight w(Kind::kDot, n, 141);
    const auto dx = test::in_all_orders([&] { return test::input_gradient<Sim>(w, {19, true}); });
    test::expect_dot_input_gradient(dx, w, 19, static_cast<double>(n) + 3);
  }
}

TEST(LinearSim, WeightGradientByFmaHasTheBitsOfTheCpuInOneCallOrSeveral) {
  for (const int64_t n : {1, 45, 140}) {
    for (const int64_t k : {1, 70}) {
      const test::WeightGradient g{n, k, 37, Product::kFma};
      const auto want = test::weight_gradient<LinearHost>(g, {37});
      EXPECT_TRUE(test::same_bits(test::weight_gradient<Sim>(g, {37}), want)) << n << " " << k;
      EXPECT_TRUE(test::same_bits(test::weight_gradient<Sim>(g, {1, 20, 16}), want))
          << n << " " << k;
    }
  }
  test::in_all_orders([] { return test::weight_gradient<Sim>({45, 70, 37, Product::kFma}, {37}); });
}

TEST(LinearSim, WeightGradientByDotIsTheSumInDoubleAndContinues) {
  const test::WeightGradient g{45, 139, 77, Product::kDot};
  const auto got = test::in_all_orders([&] { return test::weight_gradient<Sim>(g, {77}); });
  EXPECT_TRUE(test::same_bits(test::weight_gradient<Sim>(g, {16, 48, 13}), got));
  test::expect_dot_weight_gradient(got, g, static_cast<double>(g.rows) + 3);
}

TEST(LinearSim, RefusesBeforeLaunching) {
  const LinearWeight weight(Kind::kFloat, 8, 8);
  test::WeightOn<Sim> w(weight);
  LinearArgs a{.x_stride = 8, .weight = w.view, .y_stride = 8, .rows = 1};
  a.weight.product = Product::kDot;
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] Product::kDot needs bf16 panels");
  a.weight = {};
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] a weight must have n >= 1 and k >= 1");
  a.weight = {.n = 8, .k = 8};
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] the weight has no panels");
  const std::vector<int8_t> bytes(64);
  a.weight = {.n = 8, .k = 8, .i8 = bytes.data()};
  EXPECT_STREQ(launch_linear(a, nullptr).what, "[linear] int8 panels and blocks are read on the CPU alone");
  EXPECT_STREQ(launch_linear_backward_input({.weight = a.weight, .rows = 1}, nullptr).what,
               "[linear] int8 panels and blocks are read on the CPU alone");
  a.weight = w.view;
  a.weight.f32 += 1;
  EXPECT_STREQ(launch_linear(a, nullptr).what,
               "[linear] panels must begin at a multiple of 16 bytes");
  a.weight = w.view;
  a.rows = int64_t{65536} * kFmaRows;
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
