// The whole way of an emulator test on a small kernel: fp64 reference, all orders, guards.
#include <algorithm>
#include <cmath>

#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/cuda_sim/softmax.cuh"
#include "kernels/kernel_test_util.h"

namespace temper::kernels::cuda {
namespace {

struct Reference {
  std::vector<double> out, sums;
};

Reference reference(const std::vector<float>& in, int64_t rows, int64_t n) {
  Reference r{std::vector<double>(in.size()), std::vector<double>(static_cast<size_t>(rows))};
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = in.data() + row * n;
    const double m = *std::max_element(x, x + n);
    double& sum = r.sums[static_cast<size_t>(row)];
    for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - m);
    for (int64_t i = 0; i < n; ++i) {
      r.out[static_cast<size_t>(row * n + i)] = std::exp(x[i] - m) / sum;
    }
  }
  return r;
}

TEST(SoftmaxSim, EqualsTheFormulaInAllOrders) {
  for (const int64_t n : {1, 31, 32, 33, 255, 1025}) {
    const int64_t rows = 3;
    const std::vector<float> in = test::random_floats(rows * n, static_cast<uint32_t>(n), 5.0f);
    const auto [out, sums] = test::in_all_orders([&] {
      test::DeviceBuffer<float> x(in), y(in.size()), s(static_cast<size_t>(rows));
      EXPECT_TRUE(softmax({x.data(), y.data(), s.data(), rows, n}, nullptr).ok());
      return std::tuple(y.values(), s.values());
    });
    const Reference want = reference(in, rows, n);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], want.out[i], 3e-7) << n;
    for (size_t i = 0; i < sums.size(); ++i) {
      EXPECT_NEAR(sums[i], want.sums[i], 1e-6 * want.sums[i]) << n;
    }
  }
}

TEST(SoftmaxSim, BadShapesAreRefusedBeforeTheLaunch) {
  const Status status = softmax({nullptr, nullptr, nullptr, 1, 0}, nullptr);
  EXPECT_EQ(status.code, kInvalidArgument);
  EXPECT_STREQ(status.what, "[softmax] n must be positive");
  EXPECT_TRUE(softmax({nullptr, nullptr, nullptr, 0, 4}, nullptr).ok());  // No rows: nothing to do.
}

}  // namespace
}  // namespace temper::kernels::cuda
