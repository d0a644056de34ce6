#include "temper/kernels/rms_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rms_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "cpu/lanes16-inl.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

void NormRows(const RmsNormArgs& a, int64_t begin, int64_t end) {
  const int64_t whole = a.width / 16 * 16;
  const int64_t rest = a.width - whole;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x + row * a.width;
    float* y = a.y + row * a.width;
    F16 squares = set16(0.0f);
    for (int64_t i = 0; i < whole; i += 16) {
      const F16 v = load16(x + i);
      squares = fma16(v, v, squares);
    }
    if (rest > 0) {
      const F16 v = load16_first(x + whole, rest);
      squares = fma16(v, v, squares);
    }
    const float mean = sum16(squares) / static_cast<float>(a.width);
    const float rstd = 1.0f / std::sqrt(mean + a.eps);
    if (a.rstd != nullptr) a.rstd[row] = rstd;
    const F16 scale = set16(rstd);
    for (int64_t i = 0; i < whole; i += 16) {
      store16(mul16(mul16(load16(x + i), scale), load16(a.weight + i)), y + i);
    }
    if (rest > 0) {
      const F16 w = load16_first(a.weight + whole, rest);
      store16_first(mul16(mul16(load16_first(x + whole, rest), scale), w), y + whole, rest);
    }
  }
}

/// g h for one run of sixteen columns, to be summed over the row.
struct NormGradient {
  F16 h;  // x rstd
  F16 g;  // dy weight
};

HWY_INLINE NormGradient norm_gradient(const RmsNormBackwardArgs& a, int64_t row, int64_t i,
                                      int64_t count) {
  const float* x = a.x + row * a.width + i;
  const float* dy = a.dy + row * a.width + i;
  const F16 scale = set16(a.rstd[row]);
  return {mul16(load_some(x, count), scale),
          mul16(load_some(dy, count), load_some(a.weight + i, count))};
}

void NormBackwardRows(const RmsNormBackwardArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    float* dx = a.dx + row * a.width;
    F16 dot = set16(0.0f);
    for (int64_t i = 0; i < a.width; i += 16) {
      const NormGradient n = norm_gradient(a, row, i, std::min<int64_t>(16, a.width - i));
      dot = fma16(n.g, n.h, dot);
    }
    const F16 minus_mean = set16(-(sum16(dot) / static_cast<float>(a.width)));
    const F16 scale = set16(a.rstd[row]);
    for (int64_t i = 0; i < a.width; i += 16) {
      const int64_t count = std::min<int64_t>(16, a.width - i);
      const NormGradient n = norm_gradient(a, row, i, count);
      F16 d = mul16(fma16(n.h, minus_mean, n.g), scale);
      if (a.accumulate_dx) d = add16(load_some(dx + i, count), d);
      store_some(d, dx + i, count);
    }
  }
}

/// Columns [begin, begin + count): one chain a column over the rows in ascending order.
template <int kRuns>
HWY_INLINE void norm_weight_columns(const RmsNormBackwardArgs& a, int64_t begin, int64_t count) {
  F16 sum[kRuns];
  TEMPER_UNROLL
  for (int j = 0; j < kRuns; ++j) sum[j] = load_some(a.dweight + begin + 16 * j, count);
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* x = a.x + row * a.width + begin;
    const float* dy = a.dy + row * a.width + begin;
    const F16 scale = set16(a.rstd[row]);
    TEMPER_UNROLL
    for (int j = 0; j < kRuns; ++j) {
      const F16 h = mul16(load_some(x + 16 * j, count), scale);
      sum[j] = fma16(load_some(dy + 16 * j, count), h, sum[j]);
    }
  }
  TEMPER_UNROLL
  for (int j = 0; j < kRuns; ++j) store_some(sum[j], a.dweight + begin + 16 * j, count);
}

void NormBackwardWeight(const RmsNormBackwardArgs& a, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + 64 <= end; i += 64) norm_weight_columns<4>(a, i, 16);
  for (; i < end; i += 16) norm_weight_columns<1>(a, i, std::min<int64_t>(16, end - i));
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(NormRows);
HWY_EXPORT(NormBackwardRows);
HWY_EXPORT(NormBackwardWeight);

namespace {

/// Floats a thread should have before another one is worth waking.
constexpr int64_t kFloatsPerThread = 8192;

int64_t row_grain(int64_t width) { return std::max<int64_t>(1, kFloatsPerThread / width); }

}  // namespace

void rms_norm(const RmsNormArgs& args) {
  TEMPER_CHECK(args.rows >= 0 && args.width >= 1,
               "[rms_norm] expected rows >= 0 and width >= 1, got ", args.rows, " and ",
               args.width);
  if (const auto op = replacement(&KernelTable::rms_norm)) return op(args);
  parallel_for(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormRows)(args, begin, end);
  });
}

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  TEMPER_CHECK(args.rows >= 0 && args.width >= 1,
               "[rms_norm_backward] expected rows >= 0 and width >= 1, got ", args.rows, " and ",
               args.width);
  if (const auto op = replacement(&KernelTable::rms_norm_backward)) return op(args);
  // The weight comes first: dx may overwrite dy.
  if (args.dweight != nullptr) {
    const int64_t grain = std::max<int64_t>(1, kFloatsPerThread / std::max<int64_t>(1, args.rows));
    parallel_for(args.width, (grain + 15) / 16 * 16, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(NormBackwardWeight)(args, begin, end);
    });
  }
  if (args.dx != nullptr) {
    parallel_for(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(NormBackwardRows)(args, begin, end);
    });
  }
}

}  // namespace temper::kernels
#endif  // HWY_ONCE
