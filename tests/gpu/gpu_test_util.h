#pragma once
// What every test on a GPU needs: a visible skip where there is none, and buffers in its memory.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "temper/kernels/cuda.h"

namespace temper::test {

// device_memory.cpp with CUDA, without_cuda.cpp else.
void* device_allocate(size_t bytes);
void device_free(void* p);
void copy_to_device(void* to, const void* from, size_t bytes);
/// Waits for all work on the device first.
void copy_to_host(void* to, const void* from, size_t bytes);
/// Waits, and returns the first error of the kernels launched so far, or "".
std::string device_error();

/// True under compute-sanitizer, which makes kernels a hundred times slower: the smallest sizes do.
inline bool smallest_sizes() { return std::getenv("TEMPER_GPU_SMALLEST") != nullptr; }

/// Tests of this suite need a device, skip without one, and say so.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::cuda::available()) {
      GTEST_SKIP() << "no CUDA device: " << kernels::cuda::unavailable_reason();
    }
  }
  void TearDown() override {
    if (!kernels::cuda::available()) return;
    EXPECT_EQ(device_error(), "");
  }
};

/// Device memory: n elements of 0xff bytes (NaN for every float type) between guards, as
/// DeviceBuffer of the emulator's tests. The base is aligned to 256 bytes, or lies `offset`
/// elements behind such an address.
template <class T>
class GpuBuffer {
 public:
  explicit GpuBuffer(size_t n, size_t offset = 0)
      : n_(n),
        begin_(kGuard + offset * sizeof(T)),
        bytes_(begin_ + n * sizeof(T) + kGuard),
        memory_(static_cast<unsigned char*>(device_allocate(bytes_))) {
    const std::vector<unsigned char> fill(bytes_, 0xff);
    copy_to_device(memory_, fill.data(), bytes_);
  }
  explicit GpuBuffer(const std::vector<T>& values, size_t offset = 0)
      : GpuBuffer(values.size(), offset) {
    copy_to_device(data(), values.data(), n_ * sizeof(T));
  }
  GpuBuffer(const GpuBuffer&) = delete;
  GpuBuffer& operator=(const GpuBuffer&) = delete;
  ~GpuBuffer() { device_free(memory_); }

  T* data() { return reinterpret_cast<T*>(memory_ + begin_); }
  size_t size() const { return n_; }

  /// The elements, when all work is done; fails the test if something was written outside.
  std::vector<T> values() {
    std::vector<unsigned char> all(bytes_);
    copy_to_host(all.data(), memory_, bytes_);
    const size_t end = begin_ + n_ * sizeof(T);
    bool clean = true;
    for (size_t i = 0; i < bytes_; ++i) {
      if ((i < begin_ || i >= end) && all[i] != 0xff) clean = false;
    }
    EXPECT_TRUE(clean) << "a kernel wrote outside its buffer";
    std::vector<T> v(n_);
    if (n_ > 0) std::memcpy(v.data(), all.data() + begin_, n_ * sizeof(T));
    return v;
  }

 private:
  static constexpr size_t kGuard = 256;
  size_t n_, begin_, bytes_;
  unsigned char* memory_;
};

}  // namespace temper::test
