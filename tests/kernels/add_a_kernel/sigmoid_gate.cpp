// [shown: the CPU kernel]
#include "kernels/add_a_kernel/sigmoid_gate.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/add_a_kernel/sigmoid_gate.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/lanes16-inl.h"
#include "temper/core/threads.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

void SigmoidGate(const float* gate, const float* x, float* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += 16) {
    const int64_t count = std::min<int64_t>(16, end - i);
    const F16 s = sigmoid16(load_some(gate + i, count));
    store_some(mul16(s, load_some(x + i, count)), y + i, count);
  }
}

void SigmoidGateBackward(const SigmoidGateBackwardArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += 16) {
    const int64_t count = std::min<int64_t>(16, end - i);
    const F16 s = sigmoid16(load_some(a.gate + i, count));
    const F16 dx = mul16(load_some(a.dy + i, count), s);
    store_some(dx, a.dx + i, count);
    const F16 slope = mul16(load_some(a.x + i, count), sub16(set16(1.0f), s));
    store_some(mul16(dx, slope), a.dgate + i, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(SigmoidGate);
HWY_EXPORT(SigmoidGateBackward);

namespace {
constexpr int64_t kGrain = 32768;  // Floats that are worth another thread; a multiple of 16.
}

void sigmoid_gate(const float* gate, const float* x, float* y, int64_t n) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SigmoidGate)(gate, x, y, begin, end);
  });
}

void sigmoid_gate_backward(const SigmoidGateBackwardArgs& args) {
  parallel_for(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SigmoidGateBackward)(args, begin, end);
  });
}

}  // namespace temper::kernels
#endif  // HWY_ONCE
// [end]
