// Products on a GPU: kFma has the CPU's bits; kDot has the tensor cores' own, so it is compared
// with sums in double, and with itself where its bits must not move.
#include <algorithm>

#include "gpu/gpu_test_util.h"
#include "kernels/linear_case.h"

namespace temper::kernels::cuda {
namespace {

using test::Forward;
using test::Kind;
using test::LinearHost;
using test::LinearWeight;

struct Gpu {
  template <class T>
  using Buffer = test::GpuBuffer<T>;
  static bool linear(const LinearArgs& a) { return cuda::linear(a, nullptr).ok(); }
  static bool linear_backward_input(const LinearBackwardInputArgs& a) {
    return cuda::linear_backward_input(a, nullptr).ok();
  }
  static bool linear_backward_weight(const LinearBackwardWeightArgs& a) {
    return cuda::linear_backward_weight(a, nullptr).ok();
  }
};

using LinearGpu = test::GpuTest;

TEST_F(LinearGpu, FmaHasTheBitsOfTheCpu) {
  for (const Kind kind : test::kFmaKinds) {
    for (const int64_t n : {1, 33, 576}) {
      for (const int64_t k : {1, 31, 256, 1537}) {
        const LinearWeight w(kind, n, k);
        for (const Forward& f :
             {Forward{.rows = 1}, Forward{.rows = 4, .bias = true, .add = true, .pad = 3},
              Forward{.rows = 16, .offset = 1}, Forward{.rows = 300, .bias = true, .add = true}}) {
          EXPECT_TRUE(test::same_bits(test::forward<Gpu>(w, f), test::forward<LinearHost>(w, f)))
              << n << " " << k << " " << f.rows;
        }
      }
    }
  }
}

TEST_F(LinearGpu, DotIsTheSumInDouble) {
  for (const int64_t k : {1, 31, 256, 1537}) {
    const LinearWeight w(Kind::kDot, 133, k);
    for (const Forward& f : {Forward{.rows = 5}, Forward{.rows = 150, .bias = true, .add = true}}) {
      test::expect_dot_sums(test::forward<Gpu>(w, f), w, f, 4.0 * static_cast<double>(k) + 16);
    }
  }
}

TEST_F(LinearGpu, BitsOfARowDoNotDependOnTheOtherRowsOrItsPlace) {
  for (const Kind kind : {Kind::kFloat, Kind::kBf16, Kind::kDot, Kind::kHalf}) {
    const LinearWeight w(kind, 576, 1536);
    const std::vector<float> base = test::forward<Gpu>(w, {.rows = 2048});
    for (const int64_t rows : {1, 2, 3, 4, 8, 12, 16, 17, 37, 64, 65, 512}) {
      const std::vector<float> y = test::forward<Gpu>(w, {.rows = rows});
      EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << rows;
    }
    for (const int64_t row : {9, 1000, 2047}) {
      const auto at = base.begin() + row * w.n;
      EXPECT_TRUE(test::same_bits(test::forward_row<Gpu>(w, {.rows = 2048}, row),
                                  std::vector<float>(at, at + w.n)))
          << row;
    }
  }
}

TEST_F(LinearGpu, InputGradientHasTheBitsOfTheCpuOrTheSumInDouble) {
  for (const int64_t n : {7, 300, 1536}) {
    for (const Kind kind : test::kFmaKinds) {
      const LinearWeight w(kind, n, 145);
      for (const test::InputGradient& g : {test::InputGradient{1, false}, {200, true}}) {
        EXPECT_TRUE(test::same_bits(test::input_gradient<Gpu>(w, g),
                                    test::input_gradient<LinearHost>(w, g)))
            << n << " " << g.rows;
      }
    }
    const LinearWeight w(Kind::kDot, n, 145);
    test::expect_dot_input_gradient(test::input_gradient<Gpu>(w, {70, true}), w, 70,
                                    4.0 * static_cast<double>(n) + 16);
  }
}

TEST_F(LinearGpu, WeightGradientHasTheBitsOfTheCpuOrTheSumInDoubleAndContinues) {
  const test::WeightGradient fma{140, 145, 333, Product::kFma};
  const auto want = test::weight_gradient<LinearHost>(fma, {333});
  EXPECT_TRUE(test::same_bits(test::weight_gradient<Gpu>(fma, {333}), want));
  EXPECT_TRUE(test::same_bits(test::weight_gradient<Gpu>(fma, {1, 200, 132}), want));
  const test::WeightGradient dot{140, 145, 333, Product::kDot};
  const auto got = test::weight_gradient<Gpu>(dot, {333});
  EXPECT_TRUE(test::same_bits(test::weight_gradient<Gpu>(dot, {16, 304, 13}), got));
  test::expect_dot_weight_gradient(got, dot, 4.0 * 333 + 16);
}

}  // namespace
}  // namespace temper::kernels::cuda
