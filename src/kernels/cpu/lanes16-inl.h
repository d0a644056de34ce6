// Sixteen virtual fp32 lanes on registers of any width, so that a reduction has the same order on
// every target. Included again by Highway for every target.
#if defined(TEMPER_KERNELS_LANES16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_LANES16_INL_H_
#undef TEMPER_KERNELS_LANES16_INL_H_
#else
#define TEMPER_KERNELS_LANES16_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/math-inl.h"
#include "cpu/tile_types.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D16 = hn::CappedTag<float, 16>;
using V16 = hn::Vec<D16>;
#if HWY_TARGET == HWY_SCALAR
inline constexpr int kPartLanes = 1;
#else
inline constexpr int kPartLanes = static_cast<int>(HWY_MIN(HWY_MAX_BYTES / 4, 16));
#endif
inline constexpr int kParts = 16 / kPartLanes;

/// Sixteen floats; lane i of part p is number p * kPartLanes + i.
struct F16 {
  V16 part[kParts];
};

HWY_INLINE F16 load16(const float* p) {
  F16 r;
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) r.part[i] = hn::LoadU(D16(), p + i * kPartLanes);
  return r;
}

HWY_INLINE void store16(const F16& a, float* p) {
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) hn::StoreU(a.part[i], D16(), p + i * kPartLanes);
}

HWY_INLINE F16 set16(float x) {
  F16 r;
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) r.part[i] = hn::Set(D16(), x);
  return r;
}

/// The first `count` floats (below 16), zeros behind them.
HWY_INLINE F16 load16_first(const float* p, int64_t count) {
  alignas(64) float buffer[16] = {};
  std::memcpy(buffer, p, static_cast<size_t>(count) * sizeof(float));
  return load16(buffer);
}

HWY_INLINE void store16_first(const F16& a, float* p, int64_t count) {
  alignas(64) float buffer[16];
  store16(a, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(count) * sizeof(float));
}

/// `count` floats of at most 16.
HWY_INLINE F16 load_some(const float* p, int64_t count) {
  return count == 16 ? load16(p) : load16_first(p, count);
}
HWY_INLINE void store_some(const F16& a, float* p, int64_t count) {
  if (count == 16) {
    store16(a, p);
  } else {
    store16_first(a, p, count);
  }
}

#define TEMPER_LANEWISE(name, expression)                    \
  HWY_INLINE F16 name(const F16& a, const F16& b) {          \
    F16 r;                                                   \
    TEMPER_UNROLL                                            \
    for (int i = 0; i < kParts; ++i) r.part[i] = expression; \
    return r;                                                \
  }
TEMPER_LANEWISE(add16, hn::Add(a.part[i], b.part[i]))
TEMPER_LANEWISE(sub16, hn::Sub(a.part[i], b.part[i]))
TEMPER_LANEWISE(mul16, hn::Mul(a.part[i], b.part[i]))
TEMPER_LANEWISE(max16, hn::Max(a.part[i], b.part[i]))
#undef TEMPER_LANEWISE

/// a * b + c, rounded once.
HWY_INLINE F16 fma16(const F16& a, const F16& b, const F16& c) {
  F16 r;
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) r.part[i] = hn::MulAdd(a.part[i], b.part[i], c.part[i]);
  return r;
}

HWY_INLINE F16 exp16(const F16& a) {
  F16 r;
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) r.part[i] = vexp(D16(), a.part[i]);
  return r;
}

HWY_INLINE F16 sigmoid16(const F16& a) {
  F16 r;
  TEMPER_UNROLL
  for (int i = 0; i < kParts; ++i) r.part[i] = vsigmoid(D16(), a.part[i]);
  return r;
}

/// Sum of the lanes by halving: i + (i + 8), then 4, 2, 1.
HWY_INLINE float sum16(const F16& a) {
#if HWY_MAX_BYTES >= 32 && HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 8> d8;
  const hn::FixedTag<float, 4> d4;
#if HWY_MAX_BYTES >= 64
  const auto eight = hn::Add(hn::LowerHalf(d8, a.part[0]), hn::UpperHalf(d8, a.part[0]));
#else
  const auto eight = hn::Add(a.part[0], a.part[1]);
#endif
  const auto four = hn::Add(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight));
  const auto two = hn::Add(four, hn::Shuffle1032(four));
  return hn::GetLane(hn::Add(two, hn::Shuffle2301(two)));
#else
  alignas(64) float lane[16];
  store16(a, lane);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
#endif
}

HWY_INLINE float max_of16(const F16& a) {
  V16 most = a.part[0];
  TEMPER_UNROLL
  for (int i = 1; i < kParts; ++i) most = hn::Max(most, a.part[i]);
  return hn::GetLane(hn::MaxOfLanes(D16(), most));
}

/// e^x and ln x of one float, with the bits of the vector functions.
HWY_INLINE float exp1(float x) {
  const hn::CappedTag<float, 4> d;
  return hn::GetLane(vexp(d, hn::Set(d, x)));
}
HWY_INLINE float log1(float x) {
  const hn::CappedTag<float, 4> d;
  return hn::GetLane(vlog(d, hn::Set(d, x)));
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif
