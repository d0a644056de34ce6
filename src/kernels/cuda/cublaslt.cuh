#pragma once
// The small kernels around a product of cuBLASLt: rounded activations, what comes after the
// product, and the comparison by which an algorithm is accepted.

#include "cuda/elementwise.cuh"
#include "cuda/linear_tiles.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// out[row][pair] = words of bf16 of x; x.columns is even.
__global__ void __launch_bounds__(kElementThreads) round_rows(RowsView x, uint32_t* out) {
  const int64_t pairs = x.columns / 2;
  for_elements(x.rows * pairs, [&](int64_t i) {
    const float* p = x.p + i / pairs * x.stride + i % pairs * 2;
    out[i] = round_pair(p[0], p[1]);
  });
}

/// y += bias in every row.
__global__ void __launch_bounds__(kElementThreads)
    add_bias(float* y, int64_t stride, int64_t rows, int64_t n, const float* bias) {
  for_elements(rows * n, [&](int64_t i) { y[i / n * stride + i % n] += bias[i % n]; });
}

/// Rows that repeat after `kPatterns`: a product of theirs must repeat too, wherever a row lies.
inline constexpr int kPatterns = 7;

/// bf16 numbers in (-2, 2), both signs, fixed by (row modulo kPatterns, column).
__global__ void __launch_bounds__(kElementThreads)
    fill_patterns(uint16_t* x, int64_t rows, int64_t k) {
  for_elements(rows * k, [&](int64_t i) {
    unsigned h = static_cast<unsigned>(i / k % kPatterns) * 0x9e3779b9u +
                 static_cast<unsigned>(i % k) * 0x85ebca6bu + 1u;
    h ^= h >> 15;
    h *= 0x2c1b3c6du;
    h ^= h >> 12;
    // A sign, an exponent of 124 to 127, seven bits of fraction.
    x[i] = static_cast<uint16_t>((h & 0x8000u) | (124u + (h & 3u)) << 7 | (h >> 8 & 0x7fu));
  });
}

/// Counts elements of y [rows, n] whose bits differ from row (row % kPatterns) of `first`.
__global__ void __launch_bounds__(kElementThreads)
    count_differences(const float* y, const float* first, int64_t rows, int64_t n,
                      unsigned* count) {
  for_elements(rows * n, [&](int64_t i) {
    const float want = first[i / n % kPatterns * n + i % n];
    if (__float_as_uint(y[i]) != __float_as_uint(want)) atomicAdd(count, 1u);
  });
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
