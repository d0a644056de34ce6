#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace temper {

/// Every failure that Temper reports. The text says what was being done (`[op]`), what was
/// expected, what came instead and, where it helps, what to do. A user's mistake never aborts the
/// process.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Joins its arguments with `operator<<`.
template <class... Args>
[[nodiscard]] std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// Throws `Error` with the joined arguments.
template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw Error(concat(args...));
}

/// The candidate nearest to `word` by edit distance, or an empty string when none is close
/// (distance above a third of the word's length, at least 2).
template <class Range>
[[nodiscard]] std::string nearest_name(std::string_view word, const Range& candidates);

namespace detail {
[[nodiscard]] size_t edit_distance(std::string_view a, std::string_view b);
}

template <class Range>
std::string nearest_name(std::string_view word, const Range& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const size_t d = detail::edit_distance(word, candidate);
    if (d < best_distance) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

}  // namespace temper

/// Throws `temper::Error` with the joined arguments unless `cond` holds.
#define TEMPER_CHECK(cond, ...)    \
  do {                             \
    if (!(cond)) [[unlikely]] {    \
      ::temper::fail(__VA_ARGS__); \
    }                              \
  } while (false)
