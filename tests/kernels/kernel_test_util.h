#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "temper/core/rng.h"
#include "temper/core/threads.h"

namespace temper::test {

/// Uniform numbers in [-scale, scale], the same on every machine.
inline std::vector<float> random_floats(int64_t n, uint32_t seed, float scale = 1.0f) {
  std::vector<float> out(static_cast<size_t>(n));
  uint64_t state = 0x9e3779b97f4a7c15ull * (seed + 1);
  for (float& v : out) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    v = scale * (static_cast<float>(state >> 40) / 8388608.0f - 1.0f);
  }
  return out;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Sets the number of threads for one scope.
class ThreadScope {
 public:
  explicit ThreadScope(int n) : before_(num_threads()) { set_num_threads(n); }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;
  ~ThreadScope() { set_num_threads(before_); }

 private:
  int before_;
};

/// Restricts kernels to one instruction set for one scope.
class TargetScope {
 public:
  explicit TargetScope(int64_t target) { hwy::SetSupportedTargetsForTest(target); }
  TargetScope(const TargetScope&) = delete;
  TargetScope& operator=(const TargetScope&) = delete;
  ~TargetScope() { hwy::SetSupportedTargetsForTest(0); }
};

/// Runs `make` under AVX2 and under AVX-512 and expects the same bits.
template <class Make>
void expect_same_bits_on_targets(const Make& make) {
  const int64_t wanted = HWY_AVX2 | HWY_AVX3;
  if ((hwy::SupportedTargets() & wanted) != wanted) GTEST_SKIP() << "needs a CPU with AVX-512";
  std::vector<float> narrow, wide;
  {
    const TargetScope scope(HWY_AVX2);
    narrow = make();
  }
  {
    const TargetScope scope(HWY_AVX3);
    wide = make();
  }
  EXPECT_TRUE(same_bits(narrow, wide));
}

}  // namespace temper::test
