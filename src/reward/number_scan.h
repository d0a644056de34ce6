#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "temper/reward/number.h"

namespace temper::detail {

/// A number found in a text. `value` is empty for digits that are no number (too many).
struct FoundNumber {
  std::optional<Number> value;
  size_t end = 0;  ///< Offset behind it.
};

/// The number that starts exactly at `at` (sign and currency included), if there is one.
[[nodiscard]] std::optional<FoundNumber> number_at(std::string_view text, size_t at);

/// The last number of a text.
[[nodiscard]] std::optional<Number> last_number(std::string_view text);

[[nodiscard]] inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
[[nodiscard]] inline bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace temper::detail
