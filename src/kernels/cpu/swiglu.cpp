#include "temper/kernels/swiglu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/swiglu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/lanes16-inl.h"
#include "cpu/swiglu-inl.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

void Swiglu(const float* gate_up, float* y, int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = gate_up + row * 2 * width;
    swiglu_columns(gate, gate + width, y + row * width, width);
  }
}

void SwigluBackward(const float* dy, const float* gate_up, float* dgate_up, int64_t width,
                    int64_t begin, int64_t end) {
  const F16 one = set16(1.0f);
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = gate_up + row * 2 * width;
    float* dgate = dgate_up + row * 2 * width;
    for (int64_t i = 0; i < width; i += 16) {
      const int64_t count = std::min<int64_t>(16, width - i);
      const F16 g = load_some(gate + i, count);
      const F16 u = load_some(gate + width + i, count);
      const F16 d = load_some(dy + row * width + i, count);
      const F16 s = sigmoid16(g);
      // silu'(g) = s (1 + g (1 - s)).
      const F16 slope = mul16(s, fma16(g, sub16(one, s), one));
      store_some(mul16(mul16(d, u), slope), dgate + i, count);
      store_some(mul16(d, mul16(g, s)), dgate + width + i, count);
    }
  }
}

void AddInplace(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t count = std::min<int64_t>(16, n - i);
    store_some(add16(load_some(x + i, count), load_some(y + i, count)), x + i, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(Swiglu);
HWY_EXPORT(SwigluBackward);
HWY_EXPORT(AddInplace);

namespace {
constexpr int64_t kFloatsPerThread = 8192;
}

void swiglu(const float* gate_up, float* y, int64_t rows, int64_t width) {
  if (const auto op = replacement(&KernelTable::swiglu)) return op(gate_up, y, rows, width);
  const int64_t grain = std::max<int64_t>(1, kFloatsPerThread / std::max<int64_t>(1, width));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(Swiglu)(gate_up, y, width, begin, end);
  });
}

void swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                     int64_t width) {
  if (const auto op = replacement(&KernelTable::swiglu_backward)) {
    return op(dy, gate_up, dgate_up, rows, width);
  }
  const int64_t grain = std::max<int64_t>(1, kFloatsPerThread / std::max<int64_t>(1, width));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SwigluBackward)(dy, gate_up, dgate_up, width, begin, end);
  });
}

void add_inplace(float* x, const float* y, int64_t n) {
  if (const auto op = replacement(&KernelTable::add_inplace)) return op(x, y, n);
  parallel_for(n, 4 * kFloatsPerThread, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddInplace)(x + begin, y + begin, end - begin);
  });
}

}  // namespace temper::kernels
#endif  // HWY_ONCE
