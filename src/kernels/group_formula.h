// Formulas of group_advantages.h for one group.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "temper/kernels/group_advantages.h"

namespace temper::kernels {

TEMPER_HOST_DEVICE inline bool is_scored(double reward) { return reward == reward; }

/// Of rewards[0 .. rows).
TEMPER_HOST_DEVICE inline GroupStat group_stat(const double* rewards, int64_t rows) {
  GroupStat s;
  double sum = 0, low = 0, high = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const double r = rewards[i];
    if (!is_scored(r)) continue;
    sum += r;
    low = s.count == 0 || r < low ? r : low;
    high = s.count == 0 || r > high ? r : high;
    ++s.count;
  }
  s.mean = s.std = static_cast<double>(NAN);
  s.equal = s.count > 0 && low == high;
  if (s.count > 0) s.mean = s.equal ? low : sum / static_cast<double>(s.count);
  if (s.count > 1) {
    double squares = 0;
    for (int64_t i = 0; i < rows; ++i) {
      const double off = rewards[i] - s.mean;
      if (is_scored(off)) squares += off * off;
    }
    s.std = sqrt(squares / static_cast<double>(s.count - 1));
  }
  if (rows == 1) s.std = 0;
  return s;
}

TEMPER_HOST_DEVICE inline double group_advantage(double reward, const GroupStat& s, GroupRule rule,
                                                 double eps) {
  double a = reward - s.mean;
  if (rule == GroupRule::kStandardized) a /= s.std + eps;
  if (rule == GroupRule::kLeaveOneOut) {
    const auto n = static_cast<double>(s.count);
    a = s.count < 2 ? 0.0 : a * (n / (n - 1));
  }
  return is_scored(a) ? a : 0.0;
}

}  // namespace temper::kernels
