#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// What the scored rewards of one group (the completions of one prompt) have in common. Sums are
/// in double, in row order.
struct GroupStat {
  double mean = 0;    ///< NaN if no row is scored.
  double std = 0;     ///< Unbiased (n - 1), as in TRL. NaN if fewer than two rows are scored, but 0
                      ///< for a group of one row.
  int64_t count = 0;  ///< Scored rows.
  bool equal = false;  ///< All scored rewards are the same: then `mean` is that number and `std` is
                       ///< 0, without rounding. False if no row is scored.
};

/// How a group's rewards become advantages. n is the group's number of scored rows.
enum class GroupRule : uint8_t {
  kCentered,      ///< R - mean: Dr. GRPO (Liu et al. 2025).
  kStandardized,  ///< (R - mean) / (std + eps): GRPO (Shao et al. 2024, eq. 21).
  /// R minus the mean of the other rows: RLOO (Ahmadian et al. 2024, eq. 8). Computed as
  /// n / (n - 1) (R - mean), which is the same and exactly 0 for equal rewards.
  kLeaveOneOut,
};

/// Rows of group g are [offsets[g], offsets[g + 1]); groups may differ in size and be empty.
struct GroupAdvantagesArgs {
  const double* rewards = nullptr;   ///< [rows]; NaN: not scored, left out of every sum.
  const int64_t* offsets = nullptr;  ///< [groups + 1] ascending.
  int64_t groups = 0;
  GroupRule rule = GroupRule::kStandardized;
  double eps = 1e-4;             ///< TRL's.
  double* advantages = nullptr;  ///< [rows] out; may be `rewards`. 0 for a row that is not scored
                                 ///< or whose group has no spread to measure. Null: only the stats.
  GroupStat* stats = nullptr;    ///< [groups] out, or null.
};

/// Rows are few (one a completion), so that everything is float64.
/// @throws Error if groups is negative or the offsets descend.
/// @note A group's numbers depend on that group alone.
void group_advantages(const GroupAdvantagesArgs& args);

namespace cuda {

/// The same bits as the CPU's. The offsets, which lie on the device, are not checked.
Status group_advantages(const GroupAdvantagesArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
