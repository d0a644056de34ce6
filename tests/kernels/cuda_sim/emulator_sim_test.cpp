// What the emulator must see, and say: planted mistakes, misuse of the vocabulary, and its own
// tools. Data races and overruns inside arrays are seen by sanitizers (planted_main.cpp).
#include <gtest/gtest-spi.h>

#include <cmath>
#include <string>

#include "kernels/cuda_sim/planted.cuh"
#include "kernels/cuda_sim/sim_test_util.h"

namespace temper::kernels::cuda {
namespace {

/// What run() threw, or "".
template <class F>
std::string error_of(dim3 block, size_t shared, const F& body) {
  try {
    sim::run(dim3(1), block, shared, body);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

#define EXPECT_MENTIONS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << "got \"" << (text) << '"'

TEST(EmulatorSim, ThreadsSeeTheirIndices) {
  const auto seen = test::in_all_orders([] {
    std::vector<int> v;
    v.resize(2 * 3 * 2 * 4 * 3 * 2);
    sim::run(dim3(2, 3, 2), dim3(4, 3, 2), 0, [&] {
      EXPECT_EQ(gridDim.y, 3u);
      EXPECT_EQ(blockDim.z, 2u);
      const unsigned block = blockIdx.x + 2 * (blockIdx.y + 3 * blockIdx.z);
      const unsigned thread = threadIdx.x + 4 * (threadIdx.y + 3 * threadIdx.z);
      EXPECT_EQ(lane_id() + 32 * warp_id(), thread);
      v[block * 24 + thread] += 1 + static_cast<int>(thread);
    });
    return v;
  });
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], 1 + static_cast<int>(i % 24));
}

TEST(EmulatorSim, EveryOrderIsAnother) {
  const auto arrivals = [] {
    std::vector<int> order;
    sim::run(dim3(2), dim3(4), 0,
             [&] { order.push_back(static_cast<int>(blockIdx.x * 4 + threadIdx.x)); });
    return order;
  };
  if (sim::under_thread_sanitizer()) GTEST_SKIP() << "the list is shared without order on purpose";
  sim::options = {sim::Order::kForward, 0};
  EXPECT_EQ(arrivals(), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
  sim::options = {sim::Order::kReverse, 0};
  EXPECT_EQ(arrivals(), (std::vector<int>{7, 6, 5, 4, 3, 2, 1, 0}));
  EXPECT_EQ(test::orders_that_differ(arrivals), static_cast<int>(test::all_orders().size()) - 1);
}

std::vector<float> rotate(void (*kernel)(const float*, float*)) {
  std::vector<float> values(128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  test::DeviceBuffer<float> in(values), out(values.size());
  EXPECT_TRUE(
      launch(kernel, dim3(2), dim3(64), shared_bytes<float>(64), nullptr, in.data(), out.data())
          .ok());
  return out.values();
}

TEST(EmulatorSim, MissingBarrierReadsPoisonAndDiffersBetweenOrders) {
  const std::vector<float> good = test::in_all_orders([] { return rotate(rotate_block<true>); });
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(good[i], static_cast<float>(i / 64 * 64 + (i + 1) % 64));
  }
  if (sim::under_thread_sanitizer()) GTEST_SKIP() << "cuda_sim_planted_thread reports this race";
  const auto bad = [] { return rotate(rotate_block<false>); };
  EXPECT_GE(test::orders_that_differ(bad), 4);
  EXPECT_TRUE(std::isnan(bad()[0]));
}

TEST(EmulatorSim, FloatAtomicsDifferBetweenOrders) {
  const auto run = [] {
    std::vector<float> values(64);
    for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f / static_cast<float>(i + 1);
    test::DeviceBuffer<float> in(values);
    test::DeviceBuffer<unsigned> sum(std::vector<unsigned>{0});
    EXPECT_TRUE(launch(float_atomic, dim3(1), dim3(64), 0, nullptr, in.data(), sum.data()).ok());
    return sum.values();
  };
  EXPECT_GE(test::orders_that_differ(run), 1);
}

TEST(EmulatorSim, DivergentBarrierIsNamedWithBothPlaces) {
  std::vector<float> out(64);
  const std::string error = error_of(dim3(64), 0, [&] { divergent_barrier(out.data()); });
  EXPECT_MENTIONS(error, "divergent barrier: thread 0 of block 0 at ");
  EXPECT_MENTIONS(error, ", thread 32 of block 0 at ");
  EXPECT_MENTIONS(error, "planted.cuh:");
}

TEST(EmulatorSim, EndedThreadsDoNotCountAtBarriers) {
  EXPECT_EQ(error_of(dim3(64), 0,
                     [] {
                       if (threadIdx.x < 40) __syncthreads();
                     }),
            "");
}

TEST(EmulatorSim, WrongMasksAreNamed) {
  EXPECT_MENTIONS(error_of(dim3(32), 0, [] { __syncwarp(0x7fffffffu); }),
                  "caller not in its own mask: thread 31 of block 0 at ");
  EXPECT_MENTIONS(error_of(dim3(32), 0,
                           [] {
                             if (threadIdx.x != 3) __syncwarp();
                           }),
                  "the mask names lane 3, which is gone: ");
  EXPECT_MENTIONS(error_of(dim3(24), 0, [] { __syncwarp(); }), "the mask names lane 24");
  EXPECT_MENTIONS(
      error_of(dim3(32), 0,
               [] { (void)__shfl_sync(threadIdx.x < 16 ? 0xffffu : 0xffff0000u, 1.0f, 3); }),
      "shuffle from a lane outside the mask: thread 16 ");
}

TEST(EmulatorSim, DifferentOperationsMeeting) {
  const std::string ops = error_of(dim3(32), 0, [] {
    if (threadIdx.x < 16) {
      (void)__any_sync(kAllLanes, 1);
    } else {
      (void)__all_sync(kAllLanes, 1);
    }
  });
  EXPECT_MENTIONS(ops, "different warp operations or masks meet: thread 0 of block 0 at ");
  EXPECT_MENTIONS(ops, ", thread 16 of block 0 at ");
  EXPECT_MENTIONS(error_of(dim3(32), 0, [] { __syncwarp(threadIdx.x < 16 ? ~0u : ~1u); }),
                  "different warp operations or masks meet");
}

TEST(EmulatorSim, DeadlockSaysWhoWaitsWhere) {
  const std::string error = error_of(dim3(64), 0, [] {
    if (threadIdx.x == 0) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  });
  EXPECT_MENTIONS(error, "deadlock: thread 0 of block 0 at ");
  EXPECT_MENTIONS(error, ", thread 1 of block 0 at ");
}

TEST(EmulatorSim, SharedMemoryIsHeldToTheLaunch) {
  EXPECT_EQ(error_of(dim3(32), 144,
                     [] {
                       SharedArena arena;
                       arena.take<float>(32);
                       arena.take<char>(3);  // Rounded up to 16.
                     }),
            "");
  EXPECT_MENTIONS(error_of(dim3(32), 128,
                           [] {
                             SharedArena arena;
                             arena.take<float>(32);
                             arena.take<char>(3);
                           }),
                  "the launch gave too little shared memory (16 bytes wanted, 0 there): thread 0");
  EXPECT_MENTIONS(error_of(dim3(32), 256,
                           [] {
                             SharedArena arena;
                             arena.take<float>(threadIdx.x == 5 ? 33 : 32);
                           }),
                  "threads take different shared arrays (132 bytes wanted, 128 there): thread 5");
  EXPECT_MENTIONS(error_of(dim3(32), 228 * 1024, [] {}), "at most 227 KiB of shared memory");
}

TEST(EmulatorSim, ShapesThatNoDeviceTakesAreRefused) {
  EXPECT_MENTIONS(error_of(dim3(1025), 0, [] {}), "a block has 1 to 1024 threads, got 1025");
  EXPECT_MENTIONS(error_of(dim3(1, 1, 65), 0, [] {}), "a block has");
  EXPECT_THROW(sim::run(dim3(1, 65536), dim3(1), 0, [] {}), std::runtime_error);
  EXPECT_MENTIONS(error_of(dim3(1), 0, [] { sim::run(dim3(1), dim3(1), 0, [] {}); }),
                  "a kernel launches a kernel");
}

TEST(EmulatorSim, MisusedCopiesAreNamed) {
  alignas(16) static float source[8];
  const auto copy = [](int to, int from, int valid) {
    return error_of(dim3(1), 64, [=] {
      SharedArena arena;
      float* s = arena.take<float>(16);
      async_copy16(s + to, source + from, valid);
    });
  };
  EXPECT_EQ(copy(4, 4, 16), "");
  EXPECT_MENTIONS(copy(1, 4, 16), "no multiple of 16: thread 0 of block 0 at ");
  EXPECT_MENTIONS(copy(0, 2, 16), "no multiple of 16");
  EXPECT_EQ(copy(0, 2, 0), "");  // Nothing is read.
  EXPECT_MENTIONS(copy(0, 0, 17), "more than 16 bytes");
  EXPECT_MENTIONS(error_of(dim3(1), 0, [] { async_copy16(source, source + 4); }),
                  "to memory that is not shared");
}

TEST(EmulatorSim, GoesOnAfterAnError) {
  EXPECT_NE(error_of(dim3(32), 0, [] { __syncwarp(0x7fffffffu); }), "");
  const std::vector<float> good = rotate(rotate_block<true>);
  EXPECT_EQ(good[0], 1.0f);
}

TEST(EmulatorSim, BuffersShowStrayWrites) {
  if (sim::under_address_sanitizer()) GTEST_SKIP() << "the sanitizer reports these writes";
  const auto write_behind = [] {
    test::DeviceBuffer<float> buffer(3);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    buffer.data()[3] = 0.0f;
    (void)buffer.values();
  };
  const auto write_before = [] {
    test::DeviceBuffer<float> buffer(std::vector<float>{1, 2}, 1);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 4u);
    buffer.data()[-1] = 0.0f;
    (void)buffer.values();
  };
  EXPECT_NONFATAL_FAILURE(write_behind(), "a kernel wrote outside its buffer");
  EXPECT_NONFATAL_FAILURE(write_before(), "a kernel wrote outside its buffer");
  EXPECT_TRUE(std::isnan(test::DeviceBuffer<float>(1).values()[0]));
}

TEST(EmulatorSim, ResultsThatDependOnTheOrderFailATest) {
  const auto depends = [] {
    return std::vector<int>{sim::options.order == sim::Order::kReverse ? 1 : 0};
  };
  EXPECT_NONFATAL_FAILURE(test::in_all_orders(depends), "thread order reverse changes the result");
}

}  // namespace
}  // namespace temper::kernels::cuda
