// What this machine can do at most, probed in the process that is timed: hosts drift by tens of
// percent within minutes, so a rate means little without the roof of the same moment.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "temper/core/threads.h"

namespace temper::benchmarks {

/// Rates with every thread of the library. 0: the CPU lacks the instruction.
struct Roof {
  double fma = 0;   ///< fp32 fused multiply-add, FLOP/s.
  double dot = 0;   ///< Pairwise bf16 dot into fp32, FLOP/s.
  double read = 0;  ///< Reading 256 MiB, bytes/s.
};

/// Probes take about 20 ms each. Keeps its buffer: make it before memory is measured.
class RoofProbe {
 public:
  static constexpr size_t kBytes = size_t{256} << 20;

  /// @param bytes  of the buffer that is read; the caches may not hold it, or `read` says nothing.
  explicit RoofProbe(size_t bytes = kBytes) : buffer_(bytes / sizeof(float), 1.0f) {}

  [[nodiscard]] Roof measure() const {
    Roof r;
    if (__builtin_cpu_supports("avx512f")) {
      r.fma = rate(fma_loop, kSteps * kChains * 32.0);
    } else if (__builtin_cpu_supports("fma")) {
      r.fma = rate(fma_loop_256, kSteps * kChains * 16.0);
    }
    if (__builtin_cpu_supports("avx512bf16")) r.dot = rate(dot_loop, kSteps * kChains * 64.0);
    r.read = rate([this](int part) { return sum_part(part); },
                  static_cast<double>(buffer_.size() * sizeof(float)) / num_threads());
    return r;
  }

 private:
  static constexpr int kSteps = 1 << 21;
  static constexpr int kChains = 12;

  /// Work a second of all threads, each doing `work`; the best of a few rounds, for a probe asks
  /// for the roof.
  static double rate(const std::function<float(int)>& body, double work) {
    const int threads = num_threads();
    double best = 0;
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
      best = std::max(best, work * threads / d.count());
    }
    return best;
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
    const size_t count = buffer_.size() / static_cast<size_t>(num_threads());
    const float* p = buffer_.data() + count * static_cast<size_t>(part);
    float sums[64] = {};
    for (size_t i = 0; i + 64 <= count; i += 64) {
      for (size_t j = 0; j < 64; ++j) sums[j] += p[i + j];
    }
    return *std::max_element(sums, sums + 64);
  }

  std::vector<float> buffer_;
};

}  // namespace temper::benchmarks
