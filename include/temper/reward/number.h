#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace temper {

/// An exact number as it was written: a fraction of two decimals, "7" being 7 / 1.
class Number {
 public:
  /// Digits times a power of ten; without leading or trailing zeros, so that equal values have
  /// equal parts. Zero has no digits and no sign.
  struct Decimal {
    bool negative = false;
    std::string digits;
    int64_t exponent = 0;
    bool operator==(const Decimal&) const = default;
  };

  explicit Number(Decimal numerator, Decimal denominator = {false, "1", 0})
      : numerator_(std::move(numerator)), denominator_(std::move(denominator)) {}

  /// The whole of `text`, blanks around it aside: optional sign and currency sign ($, euro, pound,
  /// yen) in either order, digits with or without thousands commas, optional decimals, exponent and
  /// percent sign (dropped: "50%" is 50); or two of those with a slash. Nothing for anything else,
  /// a zero denominator, more than 400 digits or an exponent beyond +-400.
  [[nodiscard]] static std::optional<Number> parse(std::string_view text);

  /// Exact equality of values: 1,000.50 = 1000.5 and 2/4 = 0.5.
  [[nodiscard]] bool equals(const Number& other) const;
  /// Equal, or |a - b| <= tolerance * max(1, |b|), b being `reference`, in double precision.
  [[nodiscard]] bool near(const Number& reference, double tolerance) const;
  [[nodiscard]] double value() const;

 private:
  Decimal numerator_;
  Decimal denominator_;
};

/// The number that a text gives as its answer, looked for in this order:
///   1. right behind the last "####" (GSM8K),
///   2. in the last \boxed{...} with balanced braces: \frac{a}{b}, \$, \%, \text{...}, thin spaces,
///   a
///      left side ("x = 5") and a unit behind the number are understood; a box without such a
///      number ends the search with nothing,
///   3. the last number of the text. A minus is a sign unless a letter, a digit, a closing bracket
///      or another minus stands before it ("9-4" holds 9 and 4); digits glued to a word ("x2") are
///      no number; "3/4" is one number.
[[nodiscard]] std::optional<Number> answer_number(std::string_view text);

}  // namespace temper
