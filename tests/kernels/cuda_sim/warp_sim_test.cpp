// The emulator's warp operations, tensor-core product and background copies against their
// definitions, worked by hand or by a loop.
#include <array>
#include <bit>
#include <cmath>

#include "cuda/math.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/kernel_test_util.h"

namespace temper::kernels::cuda {
namespace {

/// Runs `f(lane)` in the 32 lanes of one warp and returns what each gave, in all orders.
template <class F>
std::vector<double> per_lane(const F& f) {
  return test::in_all_orders([&] {
    std::vector<double> out(32);
    sim::run(dim3(1), dim3(32), 0, [&] {
      const int lane = static_cast<int>(lane_id());
      out[static_cast<size_t>(lane)] = f(lane);
    });
    return out;
  });
}

template <class F>
std::vector<double> table(const F& f) {
  std::vector<double> out;
  for (int lane = 0; lane < 32; ++lane) out.push_back(f(lane));
  return out;
}

TEST(WarpSim, ShufflesMoveValuesAsDefined) {
  const auto value = [](int lane) { return 100.0f + static_cast<float>(lane); };
  EXPECT_EQ(per_lane([&](int l) { return __shfl_sync(kAllLanes, value(l), 5); }),
            table([](int) { return 105; }));
  EXPECT_EQ(per_lane([&](int l) { return __shfl_sync(kAllLanes, value(l), 3, 8); }),
            table([](int l) { return 100 + l / 8 * 8 + 3; }));
  EXPECT_EQ(per_lane([&](int l) { return __shfl_sync(kAllLanes, value(l), 35 + l); }),
            table([](int l) { return 100 + (l + 3) % 32; }));  // The source counts modulo 32.
  EXPECT_EQ(per_lane([&](int l) { return __shfl_xor_sync(kAllLanes, value(l), 12); }),
            table([](int l) { return 100 + (l ^ 12); }));
  EXPECT_EQ(per_lane([&](int l) { return __shfl_up_sync(kAllLanes, value(l), 3); }),
            table([](int l) { return 100 + (l < 3 ? l : l - 3); }));
  EXPECT_EQ(per_lane([&](int l) { return __shfl_down_sync(kAllLanes, value(l), 3, 16); }),
            table([](int l) { return 100 + (l % 16 > 12 ? l : l + 3); }));
  EXPECT_EQ(per_lane([&](int l) { return __shfl_xor_sync(kAllLanes, 1e300 * l, 1); }),
            table([](int l) { return 1e300 * (l ^ 1); }));  // Eight bytes.
}

TEST(WarpSim, VotesMatchesAndReductionsAreAsDefined) {
  EXPECT_EQ(per_lane([](int l) { return __ballot_sync(kAllLanes, l % 3 == 0); }),
            table([](int) { return 0x49249249u; }));
  EXPECT_EQ(per_lane([](int l) { return __any_sync(kAllLanes, l == 7 ? 2 : 0); }),
            table([](int) { return 1; }));
  EXPECT_EQ(per_lane([](int) { return __any_sync(kAllLanes, 0); }), table([](int) { return 0; }));
  EXPECT_EQ(per_lane([](int l) { return __all_sync(kAllLanes, l != 7); }),
            table([](int) { return 0; }));
  EXPECT_EQ(per_lane([](int) { return __all_sync(kAllLanes, 4); }), table([](int) { return 1; }));
  EXPECT_EQ(per_lane([](int l) { return __match_any_sync(kAllLanes, l % 4); }),
            table([](int l) { return 0x11111111u << l % 4; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_add_sync(kAllLanes, l); }),
            table([](int) { return 496; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_min_sync(kAllLanes, 5 - l); }),
            table([](int) { return -26; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_max_sync(kAllLanes, 5 - l); }),
            table([](int) { return 5; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_min_sync(kAllLanes, unsigned(l) - 5u); }),
            table([](int) { return 0; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_max_sync(kAllLanes, unsigned(l) - 5u); }),
            table([](int) { return 4294967295.0; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_or_sync(kAllLanes, 1u << l % 5); }),
            table([](int) { return 31; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_and_sync(kAllLanes, ~(1u << l % 5)); }),
            table([](int) { return 4294967264.0; }));
  EXPECT_EQ(per_lane([](int l) { return __reduce_xor_sync(kAllLanes, 1u << l); }),
            table([](int) { return 4294967295.0; }));
}

TEST(WarpSim, PartsOfAWarpMeetByTheirOwnMasks) {
  const auto half_sums = per_lane([](int l) {
    if (l < 8) return __reduce_add_sync(0x000000ffu, l);
    int v = l;
    for (int d = 4; d > 0; d /= 2) v += __shfl_xor_sync(0xffffff00u, v, d);
    return v;
  });
  EXPECT_EQ(half_sums, table([](int l) { return l < 8 ? 28 : l / 8 * 64 + 28; }));
  // Lanes may end while others go on with a mask that does not name them.
  EXPECT_EQ(per_lane([](int l) { return l < 16 ? -1 : __reduce_add_sync(0xffff0000u, 1); }),
            table([](int l) { return l < 16 ? -1 : 16; }));
}

TEST(WarpSim, IntegerAtomicsDoNotLoseUpdates) {
  const auto counts = test::in_all_orders([] {
    std::vector<unsigned> c = {0, 7, 1000, 0, 5};
    std::vector<unsigned long long> wide = {0};
    sim::run(dim3(2), dim3(64), 0, [&] {
      const unsigned i = blockIdx.x * 64 + threadIdx.x;
      atomicAdd(&c[0], 2);
      atomicMax(&c[1], i);
      atomicMin(&c[2], i + 3);
      atomicAdd(&wide[0], 1ull << 33);
      for (unsigned seen = 0, old; (old = atomicCAS(&c[3], seen, seen + 1)) != seen;) seen = old;
      if (i == 9) atomicExch(&c[4], 6u);
    });
    c.push_back(static_cast<unsigned>(wide[0] >> 33));
    return c;
  });
  EXPECT_EQ(counts, (std::vector<unsigned>{256, 127, 3, 128, 6, 128}));
}

TEST(WarpSim, BitFunctionsAreAsDefined) {
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__popcll(1ull << 40 | 3), 3);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clzll(0), 64);
  EXPECT_EQ(__clzll(1), 63);
  EXPECT_EQ(__umulhi(0xffffffffu, 0x10000u), 0xffffu);
}

struct Product {
  std::vector<float> a, b, c;  // [16, 16], [16, 8], [16, 8], the first two exact in bfloat16.
};

std::vector<float> by_mma(const Product& p) {
  return test::in_all_orders([&] {
    std::vector<float> d(128);
    sim::run(dim3(1), dim3(32), 0, [&] {
      const size_t g = lane_id() / 4, t = lane_id() % 4;
      const auto pair_a = [&](size_t row, size_t k) {
        return pack_bf16(p.a[row * 16 + k], p.a[row * 16 + k + 1]);
      };
      const auto pair_b = [&](size_t k) { return pack_bf16(p.b[k * 8 + g], p.b[k * 8 + 8 + g]); };
      const uint32_t a[4] = {pair_a(g, 2 * t), pair_a(g + 8, 2 * t), pair_a(g, 2 * t + 8),
                             pair_a(g + 8, 2 * t + 8)};
      const uint32_t b[2] = {pair_b(2 * t), pair_b(2 * t + 8)};
      float sums[4];
      for (size_t i = 0; i < 4; ++i) sums[i] = p.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
      mma_bf16_16x8x16(sums, a, b, sums);
      for (size_t i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
    });
    return d;
  });
}

TEST(WarpSim, MmaIsTheProductOfTheFragments) {
  Product p{test::random_floats(256, 1), test::random_floats(128, 2), test::random_floats(128, 3)};
  for (float& v : p.a) v = bf16_to_float(float_to_bf16(v));
  for (float& v : p.b) v = bf16_to_float(float_to_bf16(v));
  const std::vector<float> d = by_mma(p);
  for (size_t m = 0; m < 16; ++m) {
    for (size_t n = 0; n < 8; ++n) {
      float chain = p.c[m * 8 + n];
      double exact = chain;
      for (size_t k = 0; k < 16; ++k) {
        chain = std::fma(p.a[m * 16 + k], p.b[k * 8 + n], chain);
        exact += double{p.a[m * 16 + k]} * double{p.b[k * 8 + n]};
      }
      EXPECT_EQ(d[m * 8 + n], chain);
      EXPECT_NEAR(d[m * 8 + n], exact, 2e-6);
    }
  }
}

/// Two groups of copies, one float4 a thread each; the first `kKeep` of the latest stay pending.
template <int kKeep>
void copy_twice(const float* in, float* out, int valid) {
  SharedArena arena;
  float* first = arena.take<float>(128);
  float* second = arena.take<float>(128);
  const unsigned i = threadIdx.x * 4;
  async_copy16(first + i, in + i);
  async_commit();
  async_copy16(second + i, in + 128 + i, valid);
  async_commit();
  if (kKeep >= 0) async_wait<(kKeep < 0 ? 0 : kKeep)>();
  for (unsigned j = i; j < i + 4; ++j) {
    out[j] = first[j];
    out[128 + j] = second[j];
  }
}

std::vector<float> copied(void (*kernel)(const float*, float*, int), int valid) {
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return test::in_all_orders([&] {
    test::DeviceBuffer<float> in(values), out(256);
    EXPECT_TRUE(launch(kernel, dim3(1), dim3(32), 2 * shared_bytes<float>(128), nullptr, in.data(),
                       out.data(), valid)
                    .ok());
    return out.values();
  });
}

TEST(WarpSim, CopiesArriveAtTheWaitAndNotBefore) {
  const std::vector<float> all = copied(copy_twice<0>, 16);
  for (size_t i = 0; i < 256; ++i) EXPECT_EQ(all[i], static_cast<float>(i));
  const std::vector<float> oldest = copied(copy_twice<1>, 16);
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(oldest[i], static_cast<float>(i));
    EXPECT_TRUE(std::isnan(oldest[128 + i]));
  }
  for (const float v : copied(copy_twice<-1>, 16)) EXPECT_TRUE(std::isnan(v));
  const std::vector<float> half = copied(copy_twice<0>, 8);
  for (size_t i = 128; i < 256; ++i) EXPECT_EQ(half[i], i % 4 < 2 ? static_cast<float>(i) : 0.0f);
}

}  // namespace
}  // namespace temper::kernels::cuda
