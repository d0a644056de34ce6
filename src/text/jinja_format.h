#pragma once

#include <cstdint>
#include <string>

#include "jinja_value.h"

namespace temper::jinja {

/// How one value is written by `%` or `format`.
struct FormatSpec {
  std::string fill = " ";
  char align = 0;  ///< < > ^ = or 0: by type
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  char group = 0;  ///< , or _
  int64_t width = 0;
  int precision = -1;
  char type = 0;
};

[[nodiscard]] std::string format_number(const Value& value, const FormatSpec& spec);
[[nodiscard]] std::string format_string(const std::string& text, const FormatSpec& spec);

}  // namespace temper::jinja
