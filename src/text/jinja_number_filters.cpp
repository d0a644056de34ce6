#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "jinja_format.h"
#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

struct Entry {
  std::string_view name;
  Filter filter;
};

/// The digits of a Python number literal without white space and single underscores between them.
std::optional<std::string> plain_number(std::string_view text) {
  text = strip_text(text, nullptr, true, true);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto alnum = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !alnum(i - 1) || !alnum(i + 1)) return std::nullopt;
  }
  return out;
}

std::optional<int64_t> read_integer(std::string_view text, int base) {
  std::optional<std::string> plain = plain_number(text);
  if (!plain.has_value() || plain->empty()) return std::nullopt;
  std::string digits = *plain;
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') digits.erase(0, 1);
  const std::string_view prefix = std::string_view(digits).substr(0, 2);
  const bool hex = prefix == "0x" || prefix == "0X", octal = prefix == "0o" || prefix == "0O";
  const bool binary = prefix == "0b" || prefix == "0B";
  if ((hex && base == 16) || (octal && base == 8) || (binary && base == 2)) digits.erase(0, 2);
  if (digits.empty() || digits[0] == '-') return std::nullopt;
  if (negative) digits.insert(0, 1, '-');
  int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (result.ptr != digits.data() + digits.size()) return std::nullopt;
  TEMPER_CHECK(result.ec != std::errc::result_out_of_range, "int: more than 64 bits");
  return value;
}

std::optional<double> read_real(std::string_view text) {
  std::optional<std::string> plain = plain_number(text);
  if (!plain.has_value()) return std::nullopt;
  std::string_view digits = *plain;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.empty() || digits.starts_with('+')) return std::nullopt;
  double value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ptr != digits.data() + digits.size()) return std::nullopt;
  // from_chars reports both ends of the range alike; strtod tells them apart.
  return result.ec == std::errc{} ? value : std::strtod(std::string(digits).c_str(), nullptr);
}

std::optional<int64_t> truncated(std::optional<double> real) {
  if (!real.has_value() || !std::isfinite(*real)) return std::nullopt;
  TEMPER_CHECK(std::fabs(*real) < 9.2e18, "int: more than 64 bits");
  return int64_t(*real);
}

Value to_int(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("int", args, {"default", "base"});
  const int64_t base = bound.integer(1, 10);
  TEMPER_CHECK(base >= 2 && base <= 36, "int: base must be in [2, 36], got ", base);
  require_defined(input);
  std::optional<int64_t> value;
  if (input.is_integral()) value = input.integer();
  if (input.is(Kind::kFloat)) value = truncated(input.real());
  if (input.is_string()) {
    value = read_integer(input.text(), int(base));
    if (!value.has_value()) value = truncated(read_real(input.text()));
  }
  if (value.has_value()) return Value(*value);
  return bound[0] != nullptr ? *bound[0] : Value(int64_t{0});
}

Value to_float(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("float", args, {"default"});
  require_defined(input);
  if (input.is_number()) return Value(input.real());
  std::optional<double> value;
  if (input.is_string()) value = read_real(input.text());
  if (value.has_value()) return Value(*value);
  return bound[0] != nullptr ? *bound[0] : Value(0.0);
}

Value absolute(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("abs", args, {});
  require_defined(input);
  TEMPER_CHECK(input.is_number(), "abs: expected a number, got ", type_name(input));
  if (input.is(Kind::kFloat)) return Value(std::fabs(input.real()));
  return negate(input, input.integer() < 0);
}

/// Rounds half to even on the exact value, as Python does.
double round_to(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits >= 0) {
    const FormatSpec spec{.precision = int(digits), .type = 'f'};
    return std::strtod(format_number(Value(value), spec).c_str(), nullptr);
  }
  if (digits < -310) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, double(-digits));
  return std::nearbyint(value / scale) * scale;
}

Value round(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("round", args, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string_view method = bound.text(1, "common");
  TEMPER_CHECK(method == "common" || method == "ceil" || method == "floor",
               "round: method must be common, ceil or floor, got '", method, "'");
  require_defined(input);
  TEMPER_CHECK(input.is_number(), "round: expected a number, got ", type_name(input));
  if (method == "common") {
    if (input.is(Kind::kFloat)) return Value(round_to(input.real(), precision));
    TEMPER_CHECK(precision >= 0, "round: a negative precision of integers is not supported");
    return Value(input.integer());
  }
  const double scale = std::pow(10.0, double(precision));
  const double scaled = input.real() * scale;
  TEMPER_CHECK(std::isfinite(scaled), "round: result out of range");
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value size_text(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("filesizeformat", args, {"binary"});
  require_defined(input);
  TEMPER_CHECK(input.is_number(), "filesizeformat: expected a number, got ", type_name(input));
  const bool binary = bound.flag(0, false);
  const double base = binary ? 1024 : 1000, bytes = input.real();
  if (bytes == 1) return Value("1 Byte");
  TEMPER_CHECK(bytes > -9.2e18, "filesizeformat: number too small");
  if (bytes < base) return Value(concat(int64_t(bytes), " Bytes"));
  static constexpr std::string_view kLetters = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  while (i + 1 < kLetters.size() && bytes >= unit * base) {
    unit *= base;
    ++i;
  }
  const std::string number = format_number(Value(bytes / unit), {.precision = 1, .type = 'f'});
  const std::string letter(1, binary && i == 0 ? 'K' : kLetters[i]);
  return Value(number + " " + letter + (binary ? "iB" : "B"));
}

constexpr Entry kFilters[] = {
    {"int", to_int},  {"float", to_float},           {"abs", absolute},
    {"round", round}, {"filesizeformat", size_text},
};

}  // namespace

Filter find_number_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace temper::jinja
