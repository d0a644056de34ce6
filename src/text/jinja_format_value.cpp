#include <algorithm>
#include <charconv>
#include <cmath>

#include "jinja_format.h"
#include "jinja_text.h"

namespace temper::jinja {
namespace {

std::string printf_double(char type, bool alternate, int precision, double value) {
  std::string pattern = alternate ? "%#.*" : "%.*";
  pattern += type;
  const int size = std::snprintf(nullptr, 0, pattern.c_str(), precision, value);
  std::string out(size_t(size), '\0');
  std::snprintf(out.data(), out.size() + 1, pattern.c_str(), precision, value);
  return out;
}

std::string in_base(uint64_t value, int base, bool upper) {
  char buffer[70];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, base);
  std::string out(buffer, end.ptr);
  return upper ? upper_text(out) : out;
}

/// Digits of the absolute value, the sign apart.
std::string integer_digits(int64_t value, const FormatSpec& spec) {
  const uint64_t magnitude = value < 0 ? ~uint64_t(value) + 1 : uint64_t(value);
  switch (spec.type) {
    case 'x': return (spec.alternate ? "0x" : "") + in_base(magnitude, 16, false);
    case 'X': return (spec.alternate ? "0X" : "") + in_base(magnitude, 16, true);
    case 'o': return (spec.alternate ? "0o" : "") + in_base(magnitude, 8, false);
    case 'b': return (spec.alternate ? "0b" : "") + in_base(magnitude, 2, false);
    default: return in_base(magnitude, 10, false);
  }
}

std::string real_digits(double value, const FormatSpec& spec) {
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return "inf";
  if (spec.type == 0 && spec.precision < 0) return repr_float(magnitude);
  char type = spec.type == 0 ? 'g' : spec.type;
  int precision = spec.precision < 0 ? 6 : spec.precision;
  const bool percent = type == '%';
  std::string out = printf_double(percent ? 'f' : type, spec.alternate, precision,
                                  percent ? magnitude * 100 : magnitude);
  if (spec.type == 0 && out.find_first_of(".en") == std::string::npos) out += ".0";
  return percent ? out + "%" : out;
}

void group_thousands(std::string& digits, char separator) {
  const size_t end = std::min(digits.find_first_of(".eE%"), digits.size());
  for (size_t i = end; i > 3;) {
    i -= 3;
    digits.insert(i, 1, separator);
  }
}

std::string pad(const std::string& sign, const std::string& body, const FormatSpec& spec,
                char align) {
  const int64_t space = spec.width - int64_t(text_length(sign) + text_length(body));
  if (space <= 0) return sign + body;
  const auto fill = [&](int64_t n) {
    std::string out;
    for (int64_t i = 0; i < n; ++i) out += spec.fill;
    return out;
  };
  switch (align) {
    case '<': return sign + body + fill(space);
    case '^': return fill(space / 2) + sign + body + fill(space - space / 2);
    case '=': return sign + fill(space) + body;
    default: return fill(space) + sign + body;
  }
}

}  // namespace

std::string format_number(const Value& value, const FormatSpec& spec) {
  static constexpr std::string_view kReal = "eEfFgG%";
  const bool real =
      value.is(Kind::kFloat) || (spec.type != 0 && kReal.find(spec.type) != std::string_view::npos);
  const bool negative = real ? std::signbit(value.real()) : value.integer() < 0;
  std::string digits =
      real ? real_digits(value.real(), spec) : integer_digits(value.integer(), spec);
  if (spec.group != 0) group_thousands(digits, spec.group);
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  return pad(sign, digits, spec, spec.align != 0 ? spec.align : spec.zero ? '=' : '>');
}

std::string format_string(const std::string& text, const FormatSpec& spec) {
  std::string body = text;
  if (spec.precision >= 0) {
    const std::vector<uint32_t> offsets = code_point_offsets(text);
    if (size_t(spec.precision) + 1 < offsets.size())
      body = text.substr(0, offsets[size_t(spec.precision)]);
  }
  return pad("", body, spec, spec.align != 0 ? spec.align : '<');
}

}  // namespace temper::jinja
