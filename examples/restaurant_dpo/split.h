#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "survey.h"

namespace restaurant {

/// A restaurant that a guest liked and that no training sees the guest's opinion of, and those that
/// it has to beat.
struct Trial {
  size_t guest = 0;
  std::vector<size_t> places;  ///< The liked one first, then some that the guest did not rate.
};

/// Leave one out: of every guest who liked a place and rated another one, a liked place is held
/// out, with all that the guest said of it. Guests are for choosing settings, or for the result.
struct Split {
  std::vector<Rating> train;
  std::vector<Trial> validation, test;
};

struct SplitConfig {
  double validation = 0.25;  ///< Share of guests, in [0, 1).
  size_t rivals = 99;        ///< Unrated places of a trial, drawn; 0: all.
  uint64_t seed = 1;
};
[[nodiscard]] Split leave_one_out(const Survey& survey, const SplitConfig& config);

/// One guest prefers one place to another.
struct Preference {
  size_t guest = 0, better = 0, worse = 0;
  bool operator==(const Preference&) const = default;
};

/// Every two ratings of one guest of which one is higher.
[[nodiscard]] std::vector<Preference> rated_pairs(std::span<const Rating> train);

/// Each liked place against `count` places drawn from those without a rating by that guest: what
/// recommenders from choices assume. It sees training ratings alone, so a held-out place is drawn
/// like any other unrated one.
[[nodiscard]] std::vector<Preference> unrated_pairs(std::span<const Rating> train, size_t places,
                                                    size_t count, uint64_t seed);

}  // namespace restaurant
