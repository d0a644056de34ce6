#pragma once

#include <cstdint>
#include <span>

namespace temper {

/// Mean and spread of all scores seen so far (Welford 1962), so that scores keep one scale however
/// the reward model's outputs are spread: `TokenTable::reward_scale = scale.factor()`. A plain
/// value: its three numbers are its whole state.
struct RunningScale {
  int64_t count = 0;
  double mean = 0;
  double m2 = 0;  ///< Sum of squared deviations from the mean.

  /// Takes in values in order; NaN ones are left out.
  void update(std::span<const double> values);
  /// Unbiased (n - 1); 0 with fewer than two values.
  [[nodiscard]] double std() const;
  /// 1 / std, and 1 while there is no spread to divide by.
  [[nodiscard]] double factor() const;
};

}  // namespace temper
