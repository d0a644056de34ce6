#include "temper/kernels/adamw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/adamw.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "adamw_formula.h"
#include "cpu/lanes16-inl.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"
#include "temper/kernels/linear.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// (x ^ x >> shift) * factor.
template <int kShift, class D, class V = hn::Vec<D>>
HWY_INLINE V Stir(D u, V x, uint32_t factor) {
  return hn::Mul(hn::Xor(x, hn::ShiftRight<kShift>(x)), hn::Set(u, factor));
}

/// `moment_bits` of neighbouring elements.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V MomentBits(D u, uint64_t key, int64_t element) {
  V x = hn::Xor(hn::Iota(u, static_cast<uint32_t>(element)), hn::Set(u, static_cast<uint32_t>(key)));
  x = Stir<15>(u, Stir<16>(u, x, 0x21f0aaadu), 0x735a2d97u);
  x = hn::Add(hn::Xor(x, hn::ShiftRight<15>(x)), hn::Set(u, static_cast<uint32_t>(key >> 32)));
  x = Stir<13>(u, Stir<16>(u, x, 0x85ebca6bu), 0xc2b2ae35u);
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

/// Where moments are kept: as floats.
struct FloatMoments {
  const AdamWArgs& a;

  template <class D>
  HWY_INLINE hn::Vec<D> mean(D d, int64_t i) const {
    return hn::LoadU(d, a.exp_avg + i);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> square(D d, int64_t i) const {
    return hn::LoadU(d, a.exp_avg_sq + i);
  }
  template <class D, class V = hn::Vec<D>>
  HWY_INLINE void store(D d, int64_t i, V m, V v) const {
    hn::StoreU(m, d, a.exp_avg + i);
    hn::StoreU(v, d, a.exp_avg_sq + i);
  }
};

/// In bfloat16, rounded by the draws.
struct RoundedMoments {
  const AdamWArgs& a;

  template <class D>
  HWY_INLINE static hn::Vec<D> widen(D d, const uint16_t* p) {
    const hn::RebindToUnsigned<D> u;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(u, hn::LoadU(hn::Rebind<uint16_t, D>(), p))));
  }
  /// `moment_half`. @param random  16 bits a lane.
  template <class D, class V = hn::Vec<D>, class U = hn::Vec<hn::RebindToUnsigned<D>>>
  HWY_INLINE static void round([[maybe_unused]] D d, V x, U random, uint16_t* p) {
    const hn::RebindToUnsigned<D> u;
    const U bits = hn::BitCast(u, x);
    const U sum = hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(x)), hn::Or(bits, hn::Set(u, 0x400000u)),
                                 hn::Add(bits, random));
    hn::StoreU(hn::TruncateTo(hn::Rebind<uint16_t, D>(), hn::ShiftRight<16>(sum)),
               hn::Rebind<uint16_t, D>(), p);
  }

  template <class D>
  HWY_INLINE hn::Vec<D> mean(D d, int64_t i) const {
    return widen(d, a.exp_avg_bf16 + i);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> square(D d, int64_t i) const {
    return widen(d, a.exp_avg_sq_bf16 + i);
  }
  template <class D, class V = hn::Vec<D>>
  HWY_INLINE void store(D d, int64_t i, V m, V v) const {
    const hn::RebindToUnsigned<D> u;
    const auto random = MomentBits(u, a.rounding_key, a.first + i);
    round(d, m, hn::And(random, hn::Set(u, 0xffffu)), a.exp_avg_bf16 + i);
    round(d, v, hn::ShiftRight<16>(random), a.exp_avg_sq_bf16 + i);
  }
};

template <class Moments>
HWY_INLINE void Update(const AdamWArgs& a, const Moments& moments, int64_t begin, int64_t end) {
  const AdamWFactors f = adamw_factors(a);
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = [&](auto tag, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(tag, a.grad + i), hn::Set(tag, a.grad_scale));
    const auto m = hn::MulAdd(g, hn::Set(tag, f.one_minus_beta1),
                              hn::Mul(moments.mean(tag, i), hn::Set(tag, f.beta1)));
    const auto v = hn::MulAdd(hn::Mul(g, g), hn::Set(tag, f.one_minus_beta2),
                              hn::Mul(moments.square(tag, i), hn::Set(tag, f.beta2)));
    const auto root = hn::MulAdd(hn::Sqrt(v), hn::Set(tag, f.root_scale), hn::Set(tag, f.eps));
    const auto p = hn::Mul(hn::LoadU(tag, a.param + i), hn::Set(tag, f.decay));
    moments.store(tag, i, m, v);
    hn::StoreU(hn::Sub(p, hn::Mul(hn::Set(tag, f.step_size), hn::Div(m, root))), tag, a.param + i);
  };
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) one(d, i);
  for (; i < end; ++i) one(hn::CappedTag<float, 1>(), i);
}

void AdamWRange(const AdamWArgs& a, int64_t begin, int64_t end) {
  if (a.exp_avg_bf16 != nullptr) {
    Update(a, RoundedMoments{a}, begin, end);
  } else {
    Update(a, FloatMoments{a}, begin, end);
  }
}

double BlockSquares(const float* x, int64_t count) {
  F16 sum = set16(0.0f);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const F16 v = load16(x + i);
    sum = fma16(v, v, sum);
  }
  if (i < count) {
    const F16 v = load16_first(x + i, count - i);
    sum = fma16(v, v, sum);
  }
  return double{sum16(sum)};
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(AdamWRange);
HWY_EXPORT(BlockSquares);

void adamw(const AdamWArgs& args) {
  if (const auto op = replacement(&KernelTable::adamw)) return op(args);
  constexpr int64_t kGrain = 1 << 14;
  parallel_for(args.count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += kGrain) {
      const int64_t stop = std::min(end, at + kGrain);
      HWY_DYNAMIC_DISPATCH(AdamWRange)(args, at, stop);
      if (args.bf16 != nullptr) panels_to_bf16(args.param + at, stop - at, args.bf16 + at);
      if (args.f16 != nullptr) panels_to_f16(args.param + at, stop - at, args.f16 + at);
    }
  });
}

double sum_of_squares(const float* x, int64_t count) {
  if (const auto op = replacement(&KernelTable::sum_of_squares)) return op(x, count);
  constexpr int64_t kBlock = 4096;
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<double> parts(static_cast<size_t>(blocks));
  parallel_for(blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      parts[static_cast<size_t>(b)] =
          HWY_DYNAMIC_DISPATCH(BlockSquares)(x + b * kBlock, std::min(kBlock, count - b * kBlock));
    }
  });
  double total = 0;
  for (const double p : parts) total += p;
  return total;
}

double global_norm(std::span<const double> squares) {
  double total = 0;
  for (const double s : squares) total += s;
  return std::sqrt(total);
}

double clip_factor(double norm, double max_norm) { return clip_scale(norm, max_norm); }

uint32_t moment_draw(uint64_t key, int64_t element) {
  return moment_bits(key, static_cast<uint32_t>(element));
}

uint16_t round_moment(float value, uint32_t random) {
  return moment_half(std::bit_cast<uint32_t>(value), random);
}

}  // namespace temper::kernels
#endif
