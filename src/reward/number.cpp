#include "temper/reward/number.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <vector>

#include "number_scan.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Decimal = Number::Decimal;

constexpr size_t kMostDigits = 400;
constexpr int64_t kMostExponent = 400;

Decimal normalised(Decimal d) {
  const size_t lead = std::min(d.digits.find_first_not_of('0'), d.digits.size());
  d.digits.erase(0, lead);
  while (!d.digits.empty() && d.digits.back() == '0') {
    d.digits.pop_back();
    ++d.exponent;
  }
  if (d.digits.empty()) return {};
  return d;
}

/// Schoolbook product; both factors have 400 digits at most.
Decimal multiply(const Decimal& a, const Decimal& b) {
  std::vector<uint32_t> columns(a.digits.size() + b.digits.size(), 0);
  for (size_t i = a.digits.size(); i-- > 0;) {
    uint32_t carry = 0;
    for (size_t j = b.digits.size(); j-- > 0;) {
      const uint32_t sum =
          columns[i + j + 1] + carry +
          static_cast<uint32_t>(a.digits[i] - '0') * static_cast<uint32_t>(b.digits[j] - '0');
      columns[i + j + 1] = sum % 10;
      carry = sum / 10;
    }
    columns[i] += carry;
  }
  Decimal product{a.negative != b.negative, "", a.exponent + b.exponent};
  for (const uint32_t c : columns) product.digits.push_back(static_cast<char>('0' + c));
  return normalised(std::move(product));
}

double to_double(const Decimal& d) {
  if (d.digits.empty()) return 0;
  const std::string text = concat(d.digits, "e", d.exponent);
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec == std::errc::result_out_of_range) {
    value = d.exponent > 0 ? std::numeric_limits<double>::infinity() : 0;
  }
  return d.negative ? -value : value;
}

struct Digits {
  std::optional<Decimal> value;  ///< Empty when over the limits.
  size_t end = 0;
};

size_t digits_end(std::string_view text, size_t at) {
  while (at < text.size() && detail::is_digit(text[at])) ++at;
  return at;
}

/// Whether ",ddd" and no fourth digit stands at `at`.
bool thousands_group(std::string_view text, size_t at) {
  return at < text.size() && text[at] == ',' && digits_end(text, at + 1) == at + 4;
}

/// The power of ten of "e-5" at `at`, and where it ends; (0, at) if there is none.
std::pair<int64_t, size_t> exponent_at(std::string_view text, size_t at) {
  if (at >= text.size() || (text[at] != 'e' && text[at] != 'E')) return {0, at};
  size_t first = at + 1;
  const bool negative = first < text.size() && text[first] == '-';
  if (first < text.size() && (text[first] == '-' || text[first] == '+')) ++first;
  const size_t end = digits_end(text, first);
  if (end == first || (end < text.size() && detail::is_letter(text[end]))) return {0, at};
  int64_t power = kMostExponent + 1;
  if (end - first <= 6) std::from_chars(text.data() + first, text.data() + end, power);
  return {negative ? -power : power, end};
}

/// Unsigned decimal that starts with a digit, or with a point and a digit.
std::optional<Digits> scan_digits(std::string_view text, size_t at) {
  size_t end = digits_end(text, at);
  std::string digits(text.substr(at, end - at));
  if (!digits.empty() && digits.size() <= 3) {
    while (thousands_group(text, end)) {
      digits += text.substr(end + 1, 3);
      end += 4;
    }
  }
  int64_t exponent = 0;
  if (end + 1 < text.size() && text[end] == '.' && detail::is_digit(text[end + 1])) {
    const size_t stop = digits_end(text, end + 1);
    digits += text.substr(end + 1, stop - end - 1);
    exponent = -static_cast<int64_t>(stop - end - 1);
    end = stop;
  }
  if (digits.empty()) return std::nullopt;
  const auto [power, stop] = exponent_at(text, end);
  Digits found{std::nullopt, stop};
  if (digits.size() <= kMostDigits && std::abs(power) <= kMostExponent) {
    found.value = normalised({false, std::move(digits), exponent + power});
  }
  return found;
}

/// Length of a currency sign at `at`, 0 if none.
size_t currency_at(std::string_view text, size_t at) {
  for (const std::string_view sign :
       {"$", "\\$", "\xe2\x82\xac" /* euro */, "\xc2\xa3" /* pound */, "\xc2\xa5" /* yen */}) {
    if (text.substr(at).starts_with(sign)) return sign.size();
  }
  return 0;
}

/// Length of a plus or minus (also U+2212) at `at`, 0 if none.
size_t sign_at(std::string_view text, size_t at) {
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) return 1;
  return text.substr(std::min(at, text.size())).starts_with("\xe2\x88\x92") ? 3 : 0;
}

size_t percent_end(std::string_view text, size_t at) {
  if (text.substr(at).starts_with("\\%")) return at + 2;
  return at < text.size() && text[at] == '%' ? at + 1 : at;
}

/// Whether a sign at `at` belongs to the number behind it rather than to a subtraction.
bool sign_counts(std::string_view text, size_t at) {
  if (at == 0) return true;
  const char before = text[at - 1];
  return !detail::is_letter(before) && !detail::is_digit(before) &&
         std::string_view(")]}-+").find(before) == std::string_view::npos;
}

/// Where a number whose digits start at `at` starts with its sign; a currency sign may stand
/// between the two (one before the sign changes nothing).
size_t with_prefix(std::string_view text, size_t at) {
  const auto back = [&text](size_t end, auto length_at) {
    for (size_t n = std::min<size_t>(3, end); n >= 1; --n) {  // Longest first: \\$ before $.
      if (length_at(text, end - n) == n) return end - n;
    }
    return end;
  };
  const size_t inner = back(at, currency_at);
  const size_t sign = back(inner, sign_at);
  return sign != inner && sign_counts(text, sign) ? sign : inner;
}

/// "x2" is a name, "\times2" a product.
bool glued_to_word(std::string_view text, size_t at) {
  size_t start = at;
  while (start > 0 && detail::is_letter(text[start - 1])) --start;
  if (start == at) return at > 0 && text[at - 1] == '_';
  return start == 0 || text[start - 1] != '\\';
}

}  // namespace

namespace detail {

std::optional<FoundNumber> number_at(std::string_view text, size_t at) {
  bool negative = false;
  bool signed_already = false;
  bool priced = false;
  for (bool more = true; more;) {
    const size_t sign = signed_already ? 0 : sign_at(text, at);
    if (sign > 0) {
      signed_already = true;
      negative = text[at] != '+';
    }
    const size_t currency = priced || sign > 0 ? 0 : currency_at(text, std::min(at, text.size()));
    priced = priced || currency > 0;
    at += sign + currency;
    more = sign + currency > 0;
  }
  const auto top = scan_digits(text, at);
  if (!top) return std::nullopt;
  FoundNumber found{std::nullopt, percent_end(text, top->end)};
  if (top->value) {
    Decimal numerator = *top->value;
    numerator.negative = negative && !numerator.digits.empty();
    found.value = Number(std::move(numerator));
  }
  // A fraction has one slash: 5/7/2020 is a date.
  if (found.end >= text.size() || text[found.end] != '/') return found;
  const auto bottom = scan_digits(text, found.end + 1);
  const bool fraction = bottom && bottom->value && !bottom->value->digits.empty() && top->value &&
                        (bottom->end >= text.size() || text[bottom->end] != '/');
  if (!fraction) return found;
  Decimal numerator = *top->value;
  numerator.negative = negative && !numerator.digits.empty();
  return FoundNumber{Number(std::move(numerator), *bottom->value), percent_end(text, bottom->end)};
}

std::optional<Number> last_number(std::string_view text) {
  std::optional<Number> last;
  for (size_t i = 0; i < text.size();) {
    const bool point = text[i] == '.' && i + 1 < text.size() && is_digit(text[i + 1]);
    if (!is_digit(text[i]) && !point) {
      ++i;
      continue;
    }
    if (glued_to_word(text, i)) {
      i = std::max(digits_end(text, i), i + 1);
      continue;
    }
    if (i > 0 && text[i - 1] == '/') {  // The middle of a date must not start a fraction.
      const auto plain = scan_digits(text, i);
      last = plain->value ? std::optional(Number(*plain->value)) : std::nullopt;
      i = plain->end;
      continue;
    }
    const auto found = number_at(text, with_prefix(text, i));
    last = found ? found->value : std::nullopt;
    i = found ? found->end : i + 1;
  }
  return last;
}

}  // namespace detail

std::optional<Number> Number::parse(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return std::nullopt;
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  const auto found = detail::number_at(text, 0);
  if (!found || found->end != text.size()) return std::nullopt;
  return found->value;
}

bool Number::equals(const Number& other) const {
  if (denominator_ == other.denominator_) return numerator_ == other.numerator_;
  return multiply(numerator_, other.denominator_) == multiply(other.numerator_, denominator_);
}

bool Number::near(const Number& reference, double tolerance) const {
  if (equals(reference)) return true;
  const double b = reference.value();
  return std::abs(value() - b) <= tolerance * std::max(1.0, std::abs(b));
}

double Number::value() const { return to_double(numerator_) / to_double(denominator_); }

}  // namespace temper
