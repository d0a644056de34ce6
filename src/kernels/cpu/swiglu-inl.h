// silu(gate) * up of one run of columns, for the op of its own and for the product that feeds it.
#if defined(TEMPER_KERNELS_SWIGLU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_SWIGLU_INL_H_
#undef TEMPER_KERNELS_SWIGLU_INL_H_
#else
#define TEMPER_KERNELS_SWIGLU_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "cpu/lanes16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE void swiglu_columns(const float* gate, const float* up, float* y, int64_t columns) {
  for (int64_t i = 0; i < columns; i += 16) {
    const int64_t count = std::min<int64_t>(16, columns - i);
    const F16 g = load_some(gate + i, count);
    const F16 u = load_some(up + i, count);
    store_some(mul16(mul16(g, sigmoid16(g)), u), y + i, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
