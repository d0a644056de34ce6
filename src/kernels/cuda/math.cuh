#pragma once
// Scalar twins of the vector functions of cpu/math-inl.h and of core/dtype.h: the same expressions
// in the same order, hence the same bits (but which NaN an addition makes is the processor's).
// Change both together.

#include "cuda/device.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// e^x within 2 ulp. Exactly 1 at 0, exactly 0 below -87.33, infinity above 88.72; NaN stays NaN.
__device__ __forceinline__ float vexp(float x) {
  // Adding 1.5 * 2^23 rounds to an integer that then stands in the low bits of the sum.
  const float magic = 12582912.0f;
  const float z = fmaf(x, 1.44269504f, magic);
  const float n = z - magic;
  float r = fmaf(-n, 0.693359375f, x);
  r = fmaf(-n, -2.12194440e-4f, r);
  float q = 0.00139262131f;
  q = fmaf(q, r, 0.00836320315f);
  q = fmaf(q, r, 0.0416665561f);
  q = fmaf(q, r, 0.166665763f);
  q = fmaf(q, r, 0.5f);
  const float p = fmaf(q, r * r, r) + 1.0f;
  const float y = __uint_as_float(__float_as_uint(p) + (__float_as_uint(z) << 23));
  if (x < -87.33f) return 0.0f;
  if (x > 88.72f) return INFINITY;
  return x == x ? y : x;
}

/// ln x within 2 ulp for normal x > 0; 0 and subnormal numbers give -infinity, infinity gives
/// infinity, negative numbers and NaN give NaN.
__device__ __forceinline__ float vlog(float x) {
  const unsigned bits = __float_as_uint(x);
  const int exponent = static_cast<int>(bits - 0x3f3504f3u) >> 23;
  const float m = __uint_as_float(bits - (static_cast<unsigned>(exponent) << 23));
  const float n = static_cast<float>(exponent);
  const float f = m - 1.0f;
  const float s = f / (f + 2.0f);
  const float s2 = s * s;
  float tail = 2.0f / 11;
  tail = fmaf(tail, s2, 2.0f / 9);
  tail = fmaf(tail, s2, 2.0f / 7);
  tail = fmaf(tail, s2, 2.0f / 5);
  tail = fmaf(tail, s2, 2.0f / 3);
  const float half_square = f * f * 0.5f;
  const float correction = s * fmaf(tail, s2, half_square);
  const float low = fmaf(-n, 2.12194440e-4f, correction);
  float y = fmaf(n, 0.693359375f, f - (half_square - low));
  if (x < 1.17549435e-38f) y = -INFINITY;
  if (x < 0.0f) y = __uint_as_float(0x7fffffffu);
  return x < INFINITY ? y : x;
}

/// 1 / (1 + e^-x).
__device__ __forceinline__ float vsigmoid(float x) { return 1.0f / (1.0f + vexp(-x)); }

/// Hyperbolic tangent within 2 ulp, odd to the bit; +-1 at +-infinity, NaN stays NaN.
__device__ __forceinline__ float vtanh(float x) {
  const float a = fabsf(x);
  const float t = a * a;
  float q = 0.00229274482f;
  q = fmaf(q, t, -0.00834394526f);
  q = fmaf(q, t, 0.0217689183f);
  q = fmaf(q, t, -0.0539592579f);
  q = fmaf(q, t, 0.133333042f);
  q = fmaf(q, t, -0.333333343f);
  const float y = a < 0.625f ? fmaf(q * t, a, a) : 1.0f - 2.0f / (1.0f + vexp(a + a));
  return copysignf(y, x);
}

/// bfloat16 bits to float, exact.
__device__ __forceinline__ float bf16_to_float(uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}
/// The two halves of a word that holds elements (k, k + 1).
__device__ __forceinline__ float bf16_low(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float bf16_high(uint32_t word) {
  return __uint_as_float(word & 0xffff0000u);
}
/// float to bfloat16 bits, round to nearest even; NaN stays a quiet NaN.
__device__ __forceinline__ uint16_t float_to_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
/// How a word of a 16-bit panel is widened to elements (k, k + 1): bfloat16, half precision.
struct Bf16Words {
  __device__ static __forceinline__ float low(uint32_t word) { return bf16_low(word); }
  __device__ static __forceinline__ float high(uint32_t word) { return bf16_high(word); }
};
struct HalfWords {
  __device__ static __forceinline__ float low(uint32_t word) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
  }
  __device__ static __forceinline__ float high(uint32_t word) { return low(word >> 16); }
};
/// Two floats in one word of half precision, nearest even, `low` in the low half.
__device__ __forceinline__ uint32_t pack_half(float low, float high) {
  return static_cast<uint32_t>(__half_as_ushort(__float2half_rn(low))) |
         static_cast<uint32_t>(__half_as_ushort(__float2half_rn(high))) << 16;
}
/// The same in bfloat16.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(float_to_bf16(low)) | static_cast<uint32_t>(float_to_bf16(high))
                                                         << 16;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
