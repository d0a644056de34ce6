// What this machine can do at most, probed in the process that is timed: hosts drift by tens of
// percent within minutes, so a rate means little without the roof of the same moment.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "rounds.h"
#include "temper/core/memory.h"
#include "temper/core/threads.h"

namespace temper::benchmarks {

/// Rates with every thread of the library. 0: the CPU lacks the instruction.
struct Roof {
  double fma = 0;   ///< fp32 fused multiply-add, FLOP/s.
  double dot = 0;   ///< Pairwise bf16 dot into fp32, FLOP/s.
  double read = 0;  ///< Reading 256 MiB in huge pages, bytes/s.
};

/// Probes take about 20 ms each. Keeps its buffer: make it before memory is measured.
class RoofProbe {
 public:
  static constexpr size_t kBytes = size_t{256} << 20;

  /// @param bytes  of the buffer that is read; the caches may not hold it, or `read` says nothing.
  explicit RoofProbe(size_t bytes = kBytes)
      : count_(bytes / sizeof(float)),
        buffer_(static_cast<float*>(allocate_aligned(bytes)), std::free) {
    std::fill_n(buffer_.get(), count_, 1.0f);
  }

  [[nodiscard]] Roof measure() const {
    Roof r;
    if (__builtin_cpu_supports("avx512f")) {
      r.fma = best(rates(fma_loop, kSteps * kChains * 32.0));
    } else if (__builtin_cpu_supports("fma")) {
      r.fma = best(rates(fma_loop_256, kSteps * kChains * 16.0));
    }
    if (__builtin_cpu_supports("avx512bf16")) r.dot = best(rates(dot_loop, kSteps * kChains * 64.0));
    r.read = median(rates([this](int part) { return sum_part(part); },
                          static_cast<double>(count_ * sizeof(float)) / num_threads()));
    return r;
  }

 private:
  static constexpr int kSteps = 1 << 21;
  static constexpr int kChains = 12;

  static double best(const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); }

  /// Work a second of all threads, each doing `work`, in a few rounds. Of arithmetic the best is
  /// the roof; the rate of reading moves with the neighbours of the host, so its median is what a
  /// kernel can be held to.
  static std::vector<double> rates(const std::function<float(int)>& body, double work) {
    const int threads = num_threads();
    std::vector<double> found;
    for (int round = 0; round < 3; ++round) {
      std::vector<float> keep(static_cast<size_t>(threads));
      const auto start = std::chrono::steady_clock::now();
      parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          keep[static_cast<size_t>(i)] = body(static_cast<int>(i));
        }
      });
      const std::chrono::duration<double> d = std::chrono::steady_clock::now() - start;
      sink() = sink() + keep[0];
      found.push_back(work * threads / d.count());
    }
    return found;
  }

  static volatile float& sink() {
    static volatile float value = 0;
    return value;
  }

  // Independent chains that start from different numbers, unrolled so that they stay in registers.
  __attribute__((target("avx512f"))) static float fma_loop(int) {
    __m512 acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
    const __m512 x = _mm512_set1_ps(0.5f);
    for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
      for (auto& a : acc) a = _mm512_fmadd_ps(a, x, x);
    }
    __m512 total = acc[0];
    for (const auto& a : acc) total = _mm512_add_ps(total, a);
    return _mm512_cvtss_f32(total);
  }

  __attribute__((target("avx2,fma"))) static float fma_loop_256(int) {
    __m256 acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
    const __m256 x = _mm256_set1_ps(0.5f);
    for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
      for (auto& a : acc) a = _mm256_fmadd_ps(a, x, x);
    }
    __m256 total = acc[0];
    for (const auto& a : acc) total = _mm256_add_ps(total, a);
    return _mm256_cvtss_f32(total);
  }

  __attribute__((target("avx512f,avx512bf16"))) static float dot_loop(int) {
    __m512 acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
    const __m512i bits = _mm512_set1_epi32(0x3f003f00);  // Two bf16 halves of 0.5.
    for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
      for (auto& a : acc)
        a = _mm512_dpbf16_ps(a, reinterpret_cast<__m512bh>(bits), reinterpret_cast<__m512bh>(bits));
    }
    __m512 total = acc[0];
    for (const auto& a : acc) total = _mm512_add_ps(total, a);
    return _mm512_cvtss_f32(total);
  }

  float sum_part(int part) const {
    const size_t count = count_ / static_cast<size_t>(num_threads());
    const float* p = buffer_.get() + count * static_cast<size_t>(part);
    float sums[64] = {};
    for (size_t i = 0; i + 64 <= count; i += 64) {
      for (size_t j = 0; j < 64; ++j) sums[j] += p[i + j];
    }
    return *std::max_element(sums, sums + 64);
  }

  size_t count_;
  std::unique_ptr<float, decltype(&std::free)> buffer_;  // In huge pages, as a model keeps weights.
};

}  // namespace temper::benchmarks
