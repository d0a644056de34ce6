#include "temper/kernels/adamw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/adamw.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
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

void AdamWRange(const AdamWArgs& a, int64_t begin, int64_t end) {
  const AdamWFactors f = adamw_factors(a);
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = [&](auto tag, int64_t i) {
    const auto g = hn::Mul(hn::LoadU(tag, a.grad + i), hn::Set(tag, a.grad_scale));
    const auto m = hn::MulAdd(g, hn::Set(tag, f.one_minus_beta1),
                              hn::Mul(hn::LoadU(tag, a.exp_avg + i), hn::Set(tag, f.beta1)));
    const auto v = hn::MulAdd(hn::Mul(g, g), hn::Set(tag, f.one_minus_beta2),
                              hn::Mul(hn::LoadU(tag, a.exp_avg_sq + i), hn::Set(tag, f.beta2)));
    const auto root = hn::MulAdd(hn::Sqrt(v), hn::Set(tag, f.root_scale), hn::Set(tag, f.eps));
    const auto p = hn::Mul(hn::LoadU(tag, a.param + i), hn::Set(tag, f.decay));
    hn::StoreU(m, tag, a.exp_avg + i);
    hn::StoreU(v, tag, a.exp_avg_sq + i);
    hn::StoreU(hn::Sub(p, hn::Mul(hn::Set(tag, f.step_size), hn::Div(m, root))), tag, a.param + i);
  };
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) one(d, i);
  for (; i < end; ++i) one(hn::CappedTag<float, 1>(), i);
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

}  // namespace temper::kernels
#endif
