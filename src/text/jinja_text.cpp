#include "jinja_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

namespace temper::jinja {
namespace {

constexpr char32_t kInvalid = 0xDC00;

bool has_case(char32_t c) {
  return is_upper(c) || is_lower(c) || utf8proc_totitle(int(c)) != int(c);
}

utf8proc_category_t category(char32_t c) {
  return c >= kInvalid && c < kInvalid + 256 ? UTF8PROC_CATEGORY_CS : utf8proc_category(int(c));
}

/// The few letters whose upper case is several letters; utf8proc knows simple mappings only.
const char* special_upper(char32_t c) {
  switch (c) {
    case 0xDF: return "SS";
    case 0x149: return "\xCA\xBCN";
    case 0x1F0: return "J\xCC\x8C";
    case 0x587: return "\xD4\xB5\xD5\x92";
    case 0xFB00: return "FF";
    case 0xFB01: return "FI";
    case 0xFB02: return "FL";
    case 0xFB03: return "FFI";
    case 0xFB04: return "FFL";
    case 0xFB05:
    case 0xFB06: return "ST";
    default: return nullptr;
  }
}

void append_upper(std::string& out, char32_t c) {
  if (const char* special = special_upper(c)) {
    out += special;
  } else {
    append_utf8(out, category(c) == UTF8PROC_CATEGORY_CS ? c : char32_t(utf8proc_toupper(int(c))));
  }
}

void append_title(std::string& out, char32_t c) {
  if (const char* special = special_upper(c)) {
    const std::string_view upper = special;
    const CodePoint head = decode(upper, 0);
    out += upper.substr(0, head.size);
    out += lower_text(upper.substr(head.size));
  } else {
    append_utf8(out, category(c) == UTF8PROC_CATEGORY_CS ? c : char32_t(utf8proc_totitle(int(c))));
  }
}

/// A capital sigma at the end of a word becomes the final form.
bool final_sigma(std::string_view text, size_t at) {
  const bool before = [&] {
    size_t i = at;
    while (i > 0) {
      do --i;
      while (i > 0 && (uint8_t(text[i]) & 0xC0) == 0x80);
      const char32_t c = decode(text, i).value;
      if (category(c) != UTF8PROC_CATEGORY_MN && c != '\'' && c != '.' && c != ':') {
        return has_case(c);
      }
    }
    return false;
  }();
  for (size_t i = at + 2; before && i < text.size();) {
    const CodePoint c = decode(text, i);
    if (category(c.value) != UTF8PROC_CATEGORY_MN && c.value != '\'' && c.value != '.' &&
        c.value != ':') {
      return !has_case(c.value);
    }
    i += c.size;
  }
  return before;
}

void append_lower(std::string& out, std::string_view text, size_t at, char32_t c) {
  if (c == 0x130) {
    out += "i\xCC\x87";
  } else if (c == 0x3A3) {
    append_utf8(out, final_sigma(text, at) ? 0x3C2 : 0x3C3);
  } else {
    append_utf8(out, category(c) == UTF8PROC_CATEGORY_CS ? c : char32_t(utf8proc_tolower(int(c))));
  }
}

bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return c == ' ';
    default: return true;
  }
}

void append_escape(std::string& out, char32_t c) {
  char buffer[16];
  const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
  std::snprintf(buffer, sizeof buffer, format, unsigned(c));
  out += buffer;
}

}  // namespace

CodePoint decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return uint8_t(text[at + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const CodePoint invalid{kInvalid + lead, 1};
  const uint32_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - at < size) return invalid;
  char32_t value = lead & (0xFF >> (size + 1));
  for (uint32_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return invalid;
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = value < (size == 4 ? 0x10000u : size == 3 ? 0x800u : 0x80u);
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  return overlong || surrogate || value > 0x10FFFF ? invalid : CodePoint{value, size};
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c >= kInvalid + 0x80 && c < kInvalid + 0x100) {
    out += char(c - kInvalid);
  } else if (c < 0x800) {
    out += {char(0xC0 | c >> 6), char(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    out += {char(0xE0 | c >> 12), char(0x80 | (c >> 6 & 0x3F)), char(0x80 | (c & 0x3F))};
  } else {
    out += {char(0xF0 | c >> 18), char(0x80 | (c >> 12 & 0x3F)), char(0x80 | (c >> 6 & 0x3F)),
            char(0x80 | (c & 0x3F))};
  }
}

size_t text_length(std::string_view text) {
  size_t n = 0;
  for (size_t i = 0; i < text.size(); i += decode(text, i).size) ++n;
  return n;
}

std::vector<uint32_t> code_point_offsets(std::string_view text) {
  std::vector<uint32_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t i = 0; i < text.size(); i += decode(text, i).size) offsets.push_back(uint32_t(i));
  offsets.push_back(uint32_t(text.size()));
  return offsets;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

size_t skip_space(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint c = decode(text, at);
    if (!is_space(c.value)) break;
    at += c.size;
  }
  return at;
}

std::string_view strip_text(std::string_view text, const std::string_view* chars, bool left,
                            bool right) {
  std::vector<char32_t> set;
  for (size_t i = 0; chars != nullptr && i < chars->size();) {
    const CodePoint c = decode(*chars, i);
    set.push_back(c.value);
    i += c.size;
  }
  std::sort(set.begin(), set.end());
  const auto drop = [&](char32_t c) {
    return chars == nullptr ? is_space(c) : std::binary_search(set.begin(), set.end(), c);
  };
  while (left && !text.empty()) {
    const CodePoint c = decode(text, 0);
    if (!drop(c.value)) break;
    text.remove_prefix(c.size);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    for (size_t back = 1; back < 4 && start > 0 && (uint8_t(text[start]) & 0xC0) == 0x80; ++back) {
      --start;
    }
    CodePoint c = decode(text, start);
    if (start + c.size != text.size()) c = decode(text, start = text.size() - 1);
    if (!drop(c.value)) break;
    text.remove_suffix(c.size);
  }
  return text;
}

size_t find_text(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (what.empty()) return from;
  const void* hit = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  return hit == nullptr ? std::string_view::npos
                        : size_t(static_cast<const char*>(hit) - text.data());
}

size_t rfind_text(std::string_view text, std::string_view what) {
  const std::string backwards(text.rbegin(), text.rend());
  const size_t at = find_text(backwards, std::string(what.rbegin(), what.rend()));
  return at == std::string_view::npos ? at : text.size() - at - what.size();
}

std::string upper_text(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    append_upper(out, c.value);
    i += c.size;
  }
  return out;
}

std::string lower_text(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    append_lower(out, text, i, c.value);
    i += c.size;
  }
  return out;
}

std::string capitalize_text(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    i == 0 ? append_title(out, c.value) : append_lower(out, text, i, c.value);
    i += c.size;
  }
  return out;
}

std::string title_text(std::string_view text) {
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    inside ? append_lower(out, text, i, c.value) : append_title(out, c.value);
    inside = has_case(c.value);
    i += c.size;
  }
  return out;
}

bool is_alpha(char32_t c) {
  const utf8proc_category_t k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
bool is_digit(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    const size_t end = i;
    i += c.size;
    const bool ends = (c.value >= 10 && c.value <= 13) || (c.value >= 0x1C && c.value <= 0x1E) ||
                      c.value == 0x85 || c.value == 0x2028 || c.value == 0x2029;
    if (!ends) continue;
    if (c.value == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(start, (keep_ends ? i : end) - start));
    start = i;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string repr_text(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    if (c.value == char32_t(quote) || c.value == '\\') {
      out += {'\\', char(c.value)};
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (is_printable(c.value)) {
      out += text.substr(i, c.size);
    } else {
      append_escape(out, c.value);
    }
    i += c.size;
  }
  return out + quote;
}

std::string repr_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string digits(buffer, end.ptr);
  const size_t e = digits.find('e');
  const int exponent = std::stoi(digits.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return digits;  // both write at least two exponent digits
  const std::string sign = digits[0] == '-' ? "-" : "";
  digits = digits.substr(sign.size(), e - sign.size());
  std::erase(digits, '.');
  if (exponent < 0) return sign + "0." + std::string(size_t(-exponent - 1), '0') + digits;
  const size_t whole = size_t(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace temper::jinja
