#include "temper/kernels/group_advantages.h"

#include "cpu/ragged.h"
#include "group_formula.h"
#include "temper/kernels/backend.h"

namespace temper::kernels {

void group_advantages(const GroupAdvantagesArgs& a) {
  if (const auto op = replacement(&KernelTable::group_advantages)) return op(a);
  for_sequences("group_advantages", a.offsets, a.groups,
                [&](int64_t g, int64_t first, int64_t end) {
                  const GroupStat s = group_stat(a.rewards + first, end - first);
                  if (a.stats != nullptr) a.stats[g] = s;
                  if (a.advantages == nullptr) return;
                  for (int64_t i = first; i < end; ++i) {
                    a.advantages[i] = group_advantage(a.rewards[i], s, a.rule, a.eps);
                  }
                });
}

}  // namespace temper::kernels
