#include "temper/kernels/gae.h"

#include "cpu/ragged.h"
#include "gae_formula.h"
#include "temper/core/error.h"
#include "temper/kernels/backend.h"

namespace temper::kernels {

void gae(const GaeArgs& a) {
  TEMPER_CHECK(a.gamma >= 0 && a.gamma <= 1 && a.lambda >= 0 && a.lambda <= 1,
               "[gae] gamma and lambda must be in [0, 1], got ", a.gamma, " and ", a.lambda);
  TEMPER_CHECK(a.truncated == nullptr || a.bootstrap_values != nullptr || a.sequences == 0,
               "[gae] truncated sequences need bootstrap values");
  if (const auto op = replacement(&KernelTable::gae)) return op(a);
  for_sequences("gae", a.offsets, a.sequences, [&](int64_t i, int64_t first, int64_t end) {
    double next_value = gae_end_value(a, i);
    double advantage = 0;
    for (int64_t t = end - 1; t >= first; --t) {
      const bool active = a.mask == nullptr || a.mask[t] != 0;
      double value = 0;
      if (active) {
        value = double{a.values[t]};
        const double delta = gae_delta(double{a.rewards[t]}, value, next_value, a.gamma);
        advantage = delta + a.gamma * a.lambda * advantage;
        next_value = value;
      }
      a.advantages[t] = active ? static_cast<float>(advantage) : 0.0f;
      if (a.returns != nullptr)
        a.returns[t] = active ? static_cast<float>(advantage + value) : 0.0f;
    }
  });
}

}  // namespace temper::kernels
