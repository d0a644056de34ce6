// Statistics of one row of logits, shared by scoring, training and sampling so that their bits
// agree.
#if defined(TEMPER_KERNELS_LOGITS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_LOGITS_INL_H_
#undef TEMPER_KERNELS_LOGITS_INL_H_
#else
#define TEMPER_KERNELS_LOGITS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/gemm-inl.h"
#include "cpu/math-inl.h"
#include "logits_formula.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Raw products become logits: capped, and -inf from `support` on. padded a multiple of 32.
HWY_INLINE void finish_logits(float* z, int64_t support, int64_t padded, float softcap) {
  if (softcap > 0) {
    const DF d;
    const VF cap = hn::Set(d, softcap);
    for (int64_t i = 0; i < support; i += kLanes) {
      hn::StoreU(hn::Mul(cap, vtanh(d, hn::Div(hn::LoadU(d, z + i), cap))), d, z + i);
    }
  }
  std::fill(z + support, z + padded, -INFINITY);
}

/// 1 - (capped logit / softcap)^2, the slope of the cap; 0 for -inf.
HWY_INLINE VF cap_slope(VF z, float inverse_softcap) {
  const DF d;
  const VF t = hn::Mul(z, hn::Set(d, inverse_softcap));
  return hn::Max(hn::NegMulAdd(t, t, hn::Set(d, 1.0f)), hn::Zero(d));
}

/// z[0, padded) with columns at and past the vocabulary set to -inf; padded a multiple of 32.
/// `chunk_sums`, if given, gets sum exp(x) of each chunk of kLogitChunk columns.
HWY_INLINE RowStats row_stats(const float* z, int64_t padded, float inverse_temperature,
                              double* chunk_sums) {
  constexpr int kV = 16 / kLanes;  // Sixteen virtual lanes whatever the vector length.
  const DF d;
  const VF scale = hn::Set(d, inverse_temperature);
  VF top[kV];
  for (auto& t : top) t = hn::Set(d, -INFINITY);
  for (int64_t i = 0; i < padded; i += 16) {
    for (int v = 0; v < kV; ++v) {
      top[v] = hn::Max(top[v], hn::Mul(hn::LoadU(d, z + i + v * kLanes), scale));
    }
  }
  float lanes[16];
  for (int v = 0; v < kV; ++v) hn::StoreU(top[v], d, lanes + v * kLanes);
  RowStats s{lanes[0], 0, 0};
  for (const float lane : lanes) s.max = lane > s.max ? lane : s.max;
  s.max += 0.0f;  // Which of 0 and -0 is the larger depends on the instruction.
  const VF max = hn::Set(d, s.max);
  for (int64_t begin = 0; begin < padded; begin += kLogitChunk) {
    const int64_t end = begin + kLogitChunk < padded ? begin + kLogitChunk : padded;
    VF sum[kV], weighted[kV];
    for (int v = 0; v < kV; ++v) sum[v] = weighted[v] = hn::Zero(d);
    for (int64_t i = begin; i < end; i += 16) {
      for (int v = 0; v < kV; ++v) {
        const VF scaled = hn::Mul(hn::LoadU(d, z + i + v * kLanes), scale);
        const VF x = hn::Max(hn::Sub(scaled, max), hn::Set(d, kFarBelow));
        const VF e = vexp(d, x);
        sum[v] = hn::Add(sum[v], e);
        weighted[v] = hn::MulAdd(e, x, weighted[v]);
      }
    }
    float sums[16], weights[16];
    for (int v = 0; v < kV; ++v) {
      hn::StoreU(sum[v], d, sums + v * kLanes);
      hn::StoreU(weighted[v], d, weights + v * kLanes);
    }
    double chunk = 0, chunk_weighted = 0;
    for (int i = 0; i < 16; ++i) {
      chunk += double{sums[i]};
      chunk_weighted += double{weights[i]};
    }
    s.sum += chunk;
    s.weighted += chunk_weighted;
    if (chunk_sums != nullptr) chunk_sums[begin / kLogitChunk] = chunk;
  }
  return s;
}

/// KL(p || q) from the logits of both, in the order of `row_stats`.
HWY_INLINE float row_kl(const float* z, const RowStats& p, const float* reference,
                        const RowStats& q, int64_t padded, float inverse_temperature) {
  constexpr int kV = 16 / kLanes;
  const DF d;
  const VF scale = hn::Set(d, inverse_temperature);
  const VF far_below = hn::Set(d, kFarBelow);
  double total = 0;
  for (int64_t begin = 0; begin < padded; begin += kLogitChunk) {
    const int64_t end = begin + kLogitChunk < padded ? begin + kLogitChunk : padded;
    VF sum[kV];
    for (int v = 0; v < kV; ++v) sum[v] = hn::Zero(d);
    for (int64_t i = begin; i < end; i += 16) {
      for (int v = 0; v < kV; ++v) {
        const int64_t at = i + v * kLanes;
        const VF zp = hn::Mul(hn::LoadU(d, z + at), scale);
        const VF zq = hn::Mul(hn::LoadU(d, reference + at), scale);
        const VF x = hn::Max(hn::Sub(zp, hn::Set(d, p.max)), far_below);
        const VF y = hn::Max(hn::Sub(zq, hn::Set(d, q.max)), far_below);
        sum[v] = hn::MulAdd(vexp(d, x), hn::Sub(x, y), sum[v]);
      }
    }
    float sums[16];
    for (int v = 0; v < kV; ++v) hn::StoreU(sum[v], d, sums + v * kLanes);
    double chunk = 0;
    for (const float s : sums) chunk += double{s};
    total += chunk;
  }
  return row_kl_from(total, p, q);
}

/// The `k` largest of z[0, padded) above -inf, descending, the lower id of equals first. Returns
/// how many there are.
HWY_INLINE int64_t row_top_k(const float* z, int64_t padded, int64_t k, float* values,
                             int32_t* ids) {
  const DF d;
  int64_t count = 0;
  float bound = -INFINITY;  // What a value must exceed: an equal one has the higher id.
  for (int64_t i = 0; i < padded; i += kLanes) {
    const VF v = hn::LoadU(d, z + i);
    if (hn::AllFalse(d, hn::Gt(v, hn::Set(d, bound)))) continue;
    float lanes[16];
    hn::StoreU(v, d, lanes);
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(lanes[lane] > bound)) continue;
      int64_t at = count < k ? count++ : k - 1;
      for (; at > 0 && values[at - 1] < lanes[lane]; --at) {
        values[at] = values[at - 1];
        ids[at] = ids[at - 1];
      }
      values[at] = lanes[lane];
      ids[at] = static_cast<int32_t>(i + lane);
      if (count == k) bound = values[k - 1];
    }
  }
  return count;
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
