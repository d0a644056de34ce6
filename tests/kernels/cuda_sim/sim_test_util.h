#pragma once
// What every emulator test needs: device buffers that show stray writes, and a run in all orders.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/device.cuh"
#include "kernels/cuda_sim/tsan_size.h"

extern "C" __attribute__((weak)) void __asan_poison_memory_region(const volatile void*, size_t);
extern "C" __attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);

namespace temper::test {

/// Stands for device memory: n elements of 0xff bytes (NaN for every float type) between guards. A
/// write outside is reported by AddressSanitizer at its line and else by `values()`. The base is
/// aligned to 64 bytes, or lies `offset` elements behind such an address.
template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t n, size_t offset = 0)
      : n_(n), bytes_(kGuard + 64 + offset * sizeof(T) + n * sizeof(T) + kGuard, 0xff) {
    const auto base = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
    begin_ = kGuard + (64 - base % 64) % 64 + offset * sizeof(T);
    end_ = begin_ + n * sizeof(T);
    if (__asan_poison_memory_region) {
      __asan_poison_memory_region(bytes_.data(), begin_);
      __asan_poison_memory_region(bytes_.data() + end_, bytes_.size() - end_);
    }
  }
  explicit DeviceBuffer(const std::vector<T>& values, size_t offset = 0)
      : DeviceBuffer(values.size(), offset) {
    if (n_ > 0) std::memcpy(data(), values.data(), n_ * sizeof(T));
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { unguard(); }

  T* data() { return reinterpret_cast<T*>(bytes_.data() + begin_); }
  size_t size() const { return n_; }

  /// The elements; fails the test if something was written outside.
  std::vector<T> values() {
    unguard();
    bool clean = true;
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if ((i < begin_ || i >= end_) && bytes_[i] != 0xff) clean = false;
    }
    EXPECT_TRUE(clean) << "a kernel wrote outside its buffer";
    std::vector<T> v(n_);
    if (n_ > 0) std::memcpy(v.data(), bytes_.data() + begin_, n_ * sizeof(T));
    return v;
  }

 private:
  static constexpr size_t kGuard = 128;
  void unguard() {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(bytes_.data(), bytes_.size());
  }

  size_t n_, begin_ = 0, end_ = 0;
  std::vector<unsigned char> bytes_;
};

template <class T>
bool identical(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class... T>
bool identical(const std::tuple<std::vector<T>...>& a, const std::tuple<std::vector<T>...>& b) {
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return (identical(std::get<I>(a), std::get<I>(b)) && ...);
  }
  (std::index_sequence_for<T...>());
}

/// The orders that every kernel runs in; fewer where ThreadSanitizer sees races in any.
inline std::vector<sim::Options> all_orders() {
  std::vector<sim::Options> orders = {{sim::Order::kForward, 0}, {sim::Order::kReverse, 0}};
  for (uint64_t seed = 1; seed <= tsan_size(4u, 0u); ++seed) {
    orders.push_back({sim::Order::kRandom, seed});
  }
  return orders;
}

/// Number of `all_orders()` whose result differs from that of the first.
template <class Run>
int orders_that_differ(const Run& run) {
  const std::vector<sim::Options> orders = all_orders();
  sim::options = orders[0];
  const auto first = run();
  int differ = 0;
  for (size_t i = 1; i < orders.size(); ++i) {
    sim::options = orders[i];
    if (!identical(run(), first)) ++differ;
  }
  sim::options = {};
  return differ;
}

/// `run` fills its buffers, launches, and returns a std::vector, or a std::tuple of them, of all
/// outputs. Expects the same bits in all orders and returns those of the first.
template <class Run>
auto in_all_orders(const Run& run) {
  const std::vector<sim::Options> orders = all_orders();
  sim::options = orders[0];
  auto first = run();
  for (size_t i = 1; i < orders.size(); ++i) {
    sim::options = orders[i];
    EXPECT_TRUE(identical(run(), first))
        << "thread order " << (i == 1 ? "reverse" : "random " + std::to_string(orders[i].seed))
        << " changes the result: a barrier is missing, or a sum depends on arrival";
  }
  sim::options = {};
  return first;
}

}  // namespace temper::test
