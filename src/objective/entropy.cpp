#include "temper/objective/entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

/// Interpolates from the nearer end, so that the result never leaves [a, b].
double interpolate(double a, double b, double weight) {
  return weight < 0.5 ? a + weight * (b - a) : b - (b - a) * (1 - weight);
}

template <class T>
EntropyCut threshold_of(std::span<const T> entropies, std::span<const T> mask, double quantile) {
  TEMPER_CHECK(entropies.size() == mask.size(), "[entropy_threshold] ", entropies.size(),
               " entropies and a mask of ", mask.size());
  TEMPER_CHECK(quantile >= 0 && quantile <= 1,
               "[entropy_threshold] quantile must be in [0, 1], got ", quantile);
  std::vector<double> active;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    TEMPER_CHECK(!std::isnan(entropies[i]), "[entropy_threshold] entropy of token ", i, " is NaN");
    active.push_back(static_cast<double>(entropies[i]));
  }
  if (active.empty()) return {-std::numeric_limits<double>::infinity(), 0};
  const double rank = quantile * static_cast<double>(active.size() - 1);
  const auto below = active.begin() + static_cast<std::ptrdiff_t>(std::floor(rank));
  std::nth_element(active.begin(), below, active.end());
  const auto next = std::min_element(below + 1, active.end());
  const double above = next == active.end() ? *below : *next;

  EntropyCut cut;
  cut.threshold = interpolate(*below, above, rank - std::floor(rank));
  cut.tokens = std::count_if(active.begin(), active.end(),
                             [&](double h) { return h >= cut.threshold; });
  return cut;
}

}  // namespace

EntropyCut entropy_threshold(std::span<const float> entropies, std::span<const float> mask,
                             double quantile) {
  return threshold_of(entropies, mask, quantile);
}

EntropyCut entropy_threshold(std::span<const double> entropies, std::span<const double> mask,
                             double quantile) {
  return threshold_of(entropies, mask, quantile);
}

}  // namespace temper
