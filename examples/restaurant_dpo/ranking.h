#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace restaurant {

/// How one wanted item stands among others. Where scores are equal the numbers are means over every
/// order of the equal ones, so that scoring all alike is exactly chance.
struct Standing {
  int64_t above = 0;  ///< Items scored higher than the wanted one.
  int64_t equal = 0;  ///< Others scored the same.
  int64_t below = 0;

  /// Probability that it is among the first k. With one wanted item also the recall.
  [[nodiscard]] double hit_rate(int64_t k) const;
  /// Mean of 1 / log2(rank + 1) for ranks up to k, 0 beyond; the ideal is 1.
  [[nodiscard]] double ndcg(int64_t k) const;
  /// Probability that it beats another item; equal scores count half.
  [[nodiscard]] double auc() const;
};

/// @param scores  [items], item 0 is the wanted one; at least two. @throws temper::Error for NaN.
[[nodiscard]] Standing standing_of(std::span<const double> scores);

/// The scores of one trial's items.
using Scorer = std::function<std::vector<double>(size_t trial)>;
[[nodiscard]] std::vector<Standing> standings(size_t trials, const Scorer& scorer);

/// Of NDCG@10; 0 of nothing.
[[nodiscard]] double mean_ndcg(std::span<const Standing> all);

/// A mean with its 95 % bootstrap interval (percentiles of 2000 means of values drawn anew).
struct Estimate {
  double mean = 0, low = 0, high = 0;
};
/// Draws are keyed by `seed`. @param values  at least one.
[[nodiscard]] Estimate bootstrap(std::span<const double> values, uint64_t seed);

}  // namespace restaurant
