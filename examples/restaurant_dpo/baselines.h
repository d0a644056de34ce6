#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "split.h"

namespace restaurant {

/// How many guests liked each place.
[[nodiscard]] std::vector<double> popularity(std::span<const Rating> train, size_t places);

/// Matrix factorisation by Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618):
/// score(g, p) = b_p + u_g . v_p, and for each preference a step on
///     -log sigmoid(score(g, better) - score(g, worse)) + decay / 2 (|u|^2 + |v|^2 + b^2).
class BprModel {
 public:
  struct Config {
    size_t factors = 8;
    double rate = 0.05;
    double decay = 0.02;
    uint64_t seed = 1;
  };
  /// Factors begin as draws from [-0.05, 0.05), biases as 0.
  BprModel(size_t guests, size_t places, const Config& config);

  /// One pass over the preferences in an order drawn anew. @return their mean loss on the way,
  /// without decay.
  double epoch(std::span<const Preference> preferences);
  [[nodiscard]] double score(size_t guest, size_t place) const;

 private:
  double step(const Preference& preference);

  Config config_;
  uint64_t epochs_ = 0;
  std::vector<double> u_, v_, bias_;  ///< [guests, factors], [places, factors], [places]
};

}  // namespace restaurant
