// The reductions of reduce.cuh: fp64 sums, and the bits of the CPU's sixteen virtual lanes.
#include <gtest/gtest.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cuda_sim/reduce_sim_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "cpu/lanes16-inl.h"
#include "cpu/logits-inl.h"
#include "cuda/math.cuh"
#include "cuda/reduce.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/kernel_test_util.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Sum of squares of one row, as the CPU's kernels add it, and its largest element.
void RowOnCpu(const float* x, int64_t n, float* out) {
  F16 sum = set16(0.0f), top = set16(-INFINITY);
  for (int64_t i = 0; i + 16 <= n; i += 16) {
    const F16 v = load16(x + i);
    sum = fma16(v, v, sum);
    top = max16(v, top);
  }
  if (n % 16 > 0) {
    const F16 v = load16_first(x + n / 16 * 16, n % 16);
    sum = fma16(v, v, sum);
  }
  out[0] = sum16(sum);
  out[1] = max_of16(top);
}

void StatsOnCpu(const float* z, int64_t padded, double* sum) {
  *sum = row_stats(z, padded, 1.0f, nullptr).sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(RowOnCpu);
HWY_EXPORT(StatsOnCpu);

namespace cuda {
namespace {

/// Half a warp a row: sums of squares and, over whole groups of 16 columns, the largest element.
__global__ void half_warp_rows(const float* x, float* out, int64_t rows, int64_t n) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x / 16 + threadIdx.x / 16;
  const int64_t lane = threadIdx.x % 16;
  float sum = 0.0f, top = -INFINITY;
  for (int64_t i = lane; row < rows && i < n; i += 16) {
    const float v = x[row * n + i];
    sum = fmaf(v, v, sum);
    if (i < n / 16 * 16) top = fmaxf(v, top);
  }
  sum = sum16(sum);
  top = max_of16(top);
  if (row < rows && lane == 0) {
    out[2 * row] = sum;
    out[2 * row + 1] = top;
  }
}

/// Sum of exp(z - max) of one row as the CPU adds it: 16 lanes, chunks of 1024, in one warp.
__global__ void exp_sum(const float* z, float max, int64_t n, double* out) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 1024) {
    float lane_sum = 0.0f;
    for (int64_t i = begin + threadIdx.x % 16; i < n && i < begin + 1024; i += 16) {
      lane_sum += vexp(z[i] - max);
    }
    total += ordered_sum16(0.0, lane_sum);
  }
  if (threadIdx.x == 0) out[0] = total;
}

__global__ void block_totals(const float* x, float* out, int64_t n) {
  SharedArena arena;
  float* scratch = arena.take<float>(32);
  float sum = 0.0f, top = -INFINITY;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    sum += x[i];
    top = fmaxf(top, x[i]);
  }
  sum = block_sum(sum, scratch);
  top = block_max(top, scratch);
  out[threadIdx.x] = sum;
  if (threadIdx.x == 0) out[blockDim.x] = top;
}

TEST(ReduceSim, HalfWarpsHaveTheBitsOfTheCpusLanes) {
  for (const int64_t n : {1, 15, 16, 33, 576, 1025}) {
    const int64_t rows = 5;
    const std::vector<float> x = test::random_floats(rows * n, static_cast<uint32_t>(n));
    const std::vector<float> got = test::in_all_orders([&] {
      test::DeviceBuffer<float> in(x), out(static_cast<size_t>(2 * rows));
      EXPECT_TRUE(
          launch(half_warp_rows, dim3(3), dim3(32), 0, nullptr, in.data(), out.data(), rows, n)
              .ok());
      return out.values();
    });
    std::vector<float> want(static_cast<size_t>(2 * rows));
    for (int64_t r = 0; r < rows; ++r) {
      HWY_DYNAMIC_DISPATCH(RowOnCpu)(x.data() + r * n, n, want.data() + 2 * r);
    }
    EXPECT_TRUE(test::same_bits(got, want)) << n;
  }
}

TEST(ReduceSim, OrderedSumsHaveTheBitsOfTheCpusLogitStatistics) {
  for (const int64_t n : {32, 1024, 2080}) {
    const std::vector<float> z = test::random_floats(n, static_cast<uint32_t>(n), 20.0f);
    const float max = *std::max_element(z.begin(), z.end());
    const std::vector<double> got = test::in_all_orders([&] {
      test::DeviceBuffer<float> in(z);
      test::DeviceBuffer<double> out(1);
      EXPECT_TRUE(
          launch(exp_sum, dim3(1), dim3(32), 0, nullptr, in.data(), max, n, out.data()).ok());
      return out.values();
    });
    double want = 0;
    HWY_DYNAMIC_DISPATCH(StatsOnCpu)(z.data(), n, &want);
    EXPECT_EQ(got[0], want) << n;
  }
}

TEST(ReduceSim, BlocksGiveEveryThreadTheSameTotal) {
  for (const unsigned threads : {32u, 96u, 256u, 1024u}) {
    const std::vector<float> x = test::random_floats(5000, threads);
    const std::vector<float> got = test::in_all_orders([&] {
      test::DeviceBuffer<float> in(x), out(threads + 1);
      EXPECT_TRUE(launch(block_totals, dim3(1), dim3(threads), shared_bytes<float>(32), nullptr,
                         in.data(), out.data(), 5000)
                      .ok());
      return out.values();
    });
    double sum = 0;
    for (const float v : x) sum += double{v};
    for (unsigned i = 0; i < threads; ++i) EXPECT_EQ(got[i], got[0]);
    EXPECT_NEAR(got[0], sum, 1e-3);
    EXPECT_EQ(got[threads], *std::max_element(x.begin(), x.end()));
  }
}

}  // namespace
}  // namespace cuda
}  // namespace temper::kernels
#endif  // HWY_ONCE
