#pragma once
// What kernels may use, for the host. A name of CUDA that is missing here is not in the vocabulary.

#include <cmath>
#include <type_traits>

#include "cuda/sim/sim.h"

#define __global__ inline  // Two tests may include one kernel.
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// An ordinary macro would silently make a variable of each thread.
#define __shared__ use_SharedArena_instead_of_shared_variables

#define threadIdx (::temper::sim::ctx->thread)
#define blockIdx (::temper::sim::ctx->block)
#define blockDim (::temper::sim::ctx->block_dim)
#define gridDim (::temper::sim::ctx->grid_dim)
#define TEMPER_SIM_PLACE ::temper::sim::Place at = {__builtin_FILE(), __builtin_LINE()}

namespace temper::sim {

inline int own_lane() { return static_cast<int>(linear_thread() & 31); }

template <class T>
T shuffle(unsigned mask, T value, int source, Place at) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_meet(Op::kShuffle, mask, bits, source, at);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void __syncthreads(TEMPER_SIM_PLACE) { block_barrier(at); }
inline void __syncwarp(unsigned mask = 0xffffffffu, TEMPER_SIM_PLACE) {
  warp_meet(Op::kSyncWarp, mask, 0, 0, at);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, TEMPER_SIM_PLACE) {
  const int base = own_lane() & -width;
  return shuffle(mask, value, base + (source & (width - 1)), at);
}
/// Lanes whose partner would lie outside their segment of `width` get their own value.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, TEMPER_SIM_PLACE) {
  const int lane = own_lane(), source = lane ^ bits;
  return shuffle(mask, value, source < (lane & -width) + width ? source : lane, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, TEMPER_SIM_PLACE) {
  const int lane = own_lane(), source = lane - static_cast<int>(by);
  return shuffle(mask, value, source >= (lane & -width) ? source : lane, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, TEMPER_SIM_PLACE) {
  const int lane = own_lane(), source = lane + static_cast<int>(by);
  return shuffle(mask, value, source < (lane & -width) + width ? source : lane, at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, TEMPER_SIM_PLACE) {
  return static_cast<unsigned>(warp_meet(Op::kBallot, mask, predicate != 0, 0, at));
}
inline int __any_sync(unsigned mask, int predicate, TEMPER_SIM_PLACE) {
  return static_cast<int>(warp_meet(Op::kAny, mask, predicate != 0, 0, at));
}
inline int __all_sync(unsigned mask, int predicate, TEMPER_SIM_PLACE) {
  return static_cast<int>(warp_meet(Op::kAll, mask, predicate != 0, 0, at));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, TEMPER_SIM_PLACE) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return static_cast<unsigned>(warp_meet(Op::kMatchAny, mask, bits, 0, at));
}

/// int or unsigned, as the hardware has them.
template <class T>
T reduce(Op op, unsigned mask, T value, Place at) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  return static_cast<T>(warp_meet(op, mask, static_cast<unsigned>(value), 0, at));
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, TEMPER_SIM_PLACE) {
  return reduce(Op::kReduceAdd, mask, value, at);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, TEMPER_SIM_PLACE) {
  constexpr Op kOp = std::is_signed_v<T> ? Op::kReduceMinSigned : Op::kReduceMin;
  return reduce(kOp, mask, value, at);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, TEMPER_SIM_PLACE) {
  constexpr Op kOp = std::is_signed_v<T> ? Op::kReduceMaxSigned : Op::kReduceMax;
  return reduce(kOp, mask, value, at);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, TEMPER_SIM_PLACE) {
  return reduce(Op::kReduceAnd, mask, value, at);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, TEMPER_SIM_PLACE) {
  return reduce(Op::kReduceOr, mask, value, at);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, TEMPER_SIM_PLACE) {
  return reduce(Op::kReduceXor, mask, value, at);
}

template <class T>
inline constexpr bool kAtomicType =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

// The second argument converts, as with CUDA's overloads. Integers only: a sum of floats would
// depend on the order of arrival.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  static_assert(kAtomicType<T>, "atomics are for int, unsigned and unsigned long long");
  return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  static_assert(kAtomicType<T>, "atomics are for int, unsigned and unsigned long long");
  return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}
/// Returns what was there; it was replaced if that equals `expected`.
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired) {
  static_assert(kAtomicType<T>, "atomics are for int, unsigned and unsigned long long");
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  static_assert(kAtomicType<T>, "atomics are for int, unsigned and unsigned long long");
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (old < v &&
         !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  static_assert(kAtomicType<T>, "atomics are for int, unsigned and unsigned long long");
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (v < old &&
         !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}
inline unsigned __float_as_uint(float v) { return bit_copy<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return bit_copy<float>(v); }
inline int __float_as_int(float v) { return bit_copy<int>(v); }
inline float __int_as_float(int v) { return bit_copy<float>(v); }
inline long long __double_as_longlong(double v) { return bit_copy<long long>(v); }
inline double __longlong_as_double(long long v) { return bit_copy<double>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __clzll(long long v) {
  return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}

template <class T>
inline constexpr bool kMinMaxType = std::is_integral_v<T> && sizeof(T) >= 4;
/// Integers of one type; fmaxf and fminf are for floats.
template <class T>
T min(T a, T b) {
  static_assert(kMinMaxType<T>);
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  static_assert(kMinMaxType<T>);
  return a < b ? b : a;
}

}  // namespace temper::sim

// Kernels use the names as CUDA has them, without a namespace.
using __nv_bfloat16 = temper::sim::Bf16;
using __half = temper::sim::Half;
using temper::sim::__all_sync;
using temper::sim::__any_sync;
using temper::sim::__ballot_sync;
using temper::sim::__bfloat162float;
using temper::sim::__bfloat16_as_ushort;
using temper::sim::__clz;
using temper::sim::__clzll;
using temper::sim::__double_as_longlong;
using temper::sim::__ffs;
using temper::sim::__float2bfloat16_rn;
using temper::sim::__float2half_rn;
using temper::sim::__float_as_int;
using temper::sim::__float_as_uint;
using temper::sim::__half2float;
using temper::sim::__half_as_ushort;
using temper::sim::__int_as_float;
using temper::sim::__ldg;
using temper::sim::__longlong_as_double;
using temper::sim::__match_any_sync;
using temper::sim::__popc;
using temper::sim::__popcll;
using temper::sim::__reduce_add_sync;
using temper::sim::__reduce_and_sync;
using temper::sim::__reduce_max_sync;
using temper::sim::__reduce_min_sync;
using temper::sim::__reduce_or_sync;
using temper::sim::__reduce_xor_sync;
using temper::sim::__shfl_down_sync;
using temper::sim::__shfl_sync;
using temper::sim::__shfl_up_sync;
using temper::sim::__shfl_xor_sync;
using temper::sim::__syncthreads;
using temper::sim::__syncwarp;
using temper::sim::__uint_as_float;
using temper::sim::__umulhi;
using temper::sim::__ushort_as_bfloat16;
using temper::sim::__ushort_as_half;
using temper::sim::atomicAdd;
using temper::sim::atomicCAS;
using temper::sim::atomicExch;
using temper::sim::atomicMax;
using temper::sim::atomicMin;
using temper::sim::dim3;
using temper::sim::double2;
using temper::sim::float2;
using temper::sim::float4;
using temper::sim::int2;
using temper::sim::int4;
using temper::sim::make_double2;
using temper::sim::make_float2;
using temper::sim::make_float4;
using temper::sim::make_int2;
using temper::sim::make_int4;
using temper::sim::make_uint2;
using temper::sim::make_uint4;
using temper::sim::max;
using temper::sim::min;
using temper::sim::uint2;
using temper::sim::uint3;
using temper::sim::uint4;
