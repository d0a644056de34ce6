// The small kernels around cuBLASLt. The product itself needs a GPU (gpu/cublaslt_gpu_test.cpp).
#include <cmath>
#include <set>
#include <tuple>

#include "cuda/cublaslt.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"

namespace temper::kernels::cuda {
namespace {

using test::DeviceBuffer;

TEST(CublasltSim, RowsAreRoundedToNearestEvenPairByPair) {
  const int64_t rows = 5, k = 34, stride = 37;
  const std::vector<float> in = test::random_floats(rows * stride, 1);
  const std::vector<uint32_t> words = test::in_all_orders([&] {
    DeviceBuffer<float> x(in);
    DeviceBuffer<uint32_t> out(static_cast<size_t>(rows * k / 2));
    const RowsView view = view_rows(x.data(), stride, rows, k);
    EXPECT_TRUE(launch(round_rows, 2, kElementThreads, 0, nullptr, view, out.data()).ok());
    return out.values();
  });
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      const uint32_t word = words[static_cast<size_t>(r * k / 2 + i / 2)];
      EXPECT_EQ(i % 2 == 0 ? word & 0xffffu : word >> 16,
                temper::float_to_bf16(in[static_cast<size_t>(r * stride + i)]));
    }
  }
}

TEST(CublasltSim, BiasIsAddedToEveryRow) {
  const std::vector<float> y = test::random_floats(3 * 10, 1), bias = test::random_floats(8, 2);
  const std::vector<float> got = test::in_all_orders([&] {
    DeviceBuffer<float> to(y), b(bias);
    EXPECT_TRUE(launch(add_bias, 1, kElementThreads, 0, nullptr, to.data(), int64_t{10}, int64_t{3},
                       int64_t{8}, b.data())
                    .ok());
    return to.values();
  });
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(got[i], i % 10 < 8 ? y[i] + bias[i % 10] : y[i]);
  }
}

// Invariants of the test data: finite, of moderate size, of both signs, with the period of the
// rows, and no two rows of a period alike.
TEST(CublasltSim, PatternsRepeatAndDiffer) {
  const int64_t rows = 2 * kPatterns + 3, k = 40;
  const std::vector<uint16_t> x = test::in_all_orders([&] {
    DeviceBuffer<uint16_t> out(static_cast<size_t>(rows * k));
    EXPECT_TRUE(launch(fill_patterns, 3, kElementThreads, 0, nullptr, out.data(), rows, k).ok());
    return out.values();
  });
  std::set<std::vector<uint16_t>> different;
  int negative = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<uint16_t> row(x.begin() + r * k, x.begin() + (r + 1) * k);
    different.insert(row);
    for (const uint16_t v : row) {
      const float f = bf16_to_float(v);
      EXPECT_TRUE(std::abs(f) >= 0.125f && std::abs(f) < 2.0f) << f;
      negative += f < 0 ? 1 : 0;
    }
  }
  EXPECT_EQ(different.size(), static_cast<size_t>(kPatterns));
  EXPECT_GT(negative, rows * k / 4);
  EXPECT_LT(negative, rows * k * 3 / 4);
}

TEST(CublasltSim, DifferencesAreCountedByBits) {
  const int64_t rows = kPatterns + 2, n = 33;
  std::vector<float> first = test::random_floats(kPatterns * n, 3);
  first[5] = 0.0f;
  std::vector<float> y(first);
  y.insert(y.end(), first.begin(), first.begin() + 2 * n);
  const auto count = [&] {
    return test::in_all_orders([&] {
      DeviceBuffer<float> a(y), b(first);
      DeviceBuffer<unsigned> out(std::vector<unsigned>{0});
      EXPECT_TRUE(launch(count_differences, 2, kElementThreads, 0, nullptr, a.data(), b.data(),
                         rows, n, out.data())
                      .ok());
      return out.values();
    })[0];
  };
  EXPECT_EQ(count(), 0u);
  y[5] = -0.0f;  // Equal as a number.
  y.back() = std::nextafter(y.back(), 9.0f);
  EXPECT_EQ(count(), 2u);
}

}  // namespace
}  // namespace temper::kernels::cuda
