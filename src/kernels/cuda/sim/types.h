#pragma once
// CUDA's built-in types as plain structs with the same size, alignment and names, so that kernels
// compile on machines without a toolkit. They hold values only: arithmetic on bfloat16 and half is
// a compile error, as the kernels convert to float first.

#include <cstdint>
#include <cstring>

namespace temper::sim {

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

template <class To, class From>
inline To bit_copy(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

struct alignas(2) Bf16 {
  uint16_t bits;
};
struct alignas(2) Half {
  uint16_t bits;
};

inline float __bfloat162float(Bf16 v) { return bit_copy<float>(uint32_t{v.bits} << 16); }

/// Nearest even; NaN becomes 0x7fff, as on the device.
inline Bf16 __float2bfloat16_rn(float f) {
  const uint32_t u = bit_copy<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}

inline float __half2float(Half v) {
  const uint32_t sign = uint32_t{v.bits} >> 15 << 31;
  const uint32_t exponent = v.bits >> 10 & 31, fraction = v.bits & 1023u;
  if (exponent == 31) {  // NaN loses its payload on the device too.
    return bit_copy<float>(fraction != 0 ? 0x7fffffffu : sign | 0x7f800000u);
  }
  if (exponent != 0) return bit_copy<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = static_cast<float>(fraction) * 0x1p-24f;
  return bit_copy<float>(bit_copy<uint32_t>(small) | sign);
}

/// Nearest even; above 65504 infinity; NaN becomes 0x7fff.
inline Half __float2half_rn(float f) {
  const uint32_t u = bit_copy<uint32_t>(f), sign = u >> 31 << 15, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {  // Subnormal: adding 0.5 rounds to multiples of 2^-24.
    const uint32_t sum = bit_copy<uint32_t>(bit_copy<float>(magnitude) + 0.5f);
    return {static_cast<uint16_t>(sign | (sum - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return {static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13)};
}

inline uint16_t __bfloat16_as_ushort(Bf16 v) { return v.bits; }
inline Bf16 __ushort_as_bfloat16(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(Half v) { return v.bits; }
inline Half __ushort_as_half(uint16_t bits) { return {bits}; }

}  // namespace temper::sim
