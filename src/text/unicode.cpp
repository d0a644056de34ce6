#include "temper/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "temper/core/error.h"
#include "unicode_additions.h"

namespace temper::unicode {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Lead {
  size_t length;        // of the whole sequence; 0 for a byte that starts none
  uint8_t second_low;   // range of the second byte, which is narrower than 80..BF
  uint8_t second_high;  // for E0, ED, F0 and F4
};

// Unicode 15, table 3-7.
Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// The number of leading bytes that agree with a sequence of `lead.length` bytes.
size_t agreeing_bytes(std::string_view text, const Lead& lead) {
  size_t n = 1;
  while (n < lead.length && n < text.size()) {
    const uint8_t byte = static_cast<uint8_t>(text[n]);
    const uint8_t low = n == 1 ? lead.second_low : 0x80;
    const uint8_t high = n == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) break;
    ++n;
  }
  return n;
}

struct CodePoints {
  uint32_t first;
  uint32_t last;
};

// Marks of Unicode 10 to 14 with a combining class. The tokenizers package normalizes by older
// tables, where they are starters: not moved, and nothing composes across them.
constexpr CodePoints kYoungMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x16FF0, 0x16FF1}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}};

bool is_young_mark(utf8proc_int32_t c) {
  if (utf8proc_get_property(c)->combining_class == 0) return false;
  const auto point = static_cast<uint32_t>(c);
  const auto* end = std::end(kYoungMarks);
  const auto* found =
      std::lower_bound(std::begin(kYoungMarks), end, point,
                       [](const CodePoints& range, uint32_t value) { return range.last < value; });
  return (found != end && found->first <= point) || is_later_addition(point, "M");
}

int combining_class(utf8proc_int32_t c) {
  return is_young_mark(c) ? 0 : utf8proc_get_property(c)->combining_class;
}

// Canonical composition of ordered code points, in place.
void compose_all(std::vector<utf8proc_int32_t>* points) {
  size_t written = 0;
  for (size_t begin = 0; begin < points->size();) {
    size_t end = begin + 1;
    while (end < points->size() && !is_young_mark((*points)[end])) ++end;
    const auto n = utf8proc_normalize_utf32(
        points->data() + begin, static_cast<utf8proc_ssize_t>(end - begin),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    TEMPER_CHECK(n >= 0, "[normalize] utf8proc failed: ", utf8proc_errmsg(n));
    std::copy_n(points->data() + begin, n, points->data() + written);
    written += static_cast<size_t>(n);
    begin = end;
  }
  points->resize(written);
}

}  // namespace

size_t sequence_length(std::string_view text) {
  if (text.empty()) return 0;
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  return lead.length != 0 && agreeing_bytes(text, lead) == lead.length ? lead.length : 0;
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = sequence_length(text.substr(i));
    if (n == 0) return false;
    i += n;
  }
  return true;
}

size_t maximal_subpart(std::string_view text) {
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  return lead.length == 0 ? 1 : agreeing_bytes(text, lead);
}

bool is_incomplete_prefix(std::string_view text) {
  if (text.empty()) return false;
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  return text.size() < lead.length && agreeing_bytes(text, lead) == text.size();
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const std::string_view rest = text.substr(i);
    const size_t n = sequence_length(rest);
    if (n != 0) {
      out.append(rest.substr(0, n));
      i += n;
    } else {
      out.append(kReplacement);
      i += maximal_subpart(rest);
    }
  }
  return out;
}

char32_t next_code_point(std::string_view text, size_t* position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[*position + i]); };
  const uint8_t first = byte(0);
  char32_t c = first;
  size_t n = 1;
  if (first >= 0xF0) {
    c = (first & 7U) << 18 | (byte(1) & 63U) << 12 | (byte(2) & 63U) << 6 | (byte(3) & 63U);
    n = 4;
  } else if (first >= 0xE0) {
    c = (first & 15U) << 12 | (byte(1) & 63U) << 6 | (byte(2) & 63U);
    n = 3;
  } else if (first >= 0xC0) {
    c = (first & 31U) << 6 | (byte(1) & 63U);
    n = 2;
  }
  *position += n;
  return c;
}

size_t previous_start(std::string_view text, size_t position) {
  --position;
  while (position > 0 && (static_cast<uint8_t>(text[position]) & 0xC0) == 0x80) --position;
  return position;
}

void append_code_point(std::string* out, char32_t c) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 63)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 63)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 63)));
  }
  out->push_back(static_cast<char>(0x80 | (c & 63)));
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return true;
    case UTF8PROC_CATEGORY_CN:  // perhaps assigned after the library was made
      return is_later_addition(c, "N") || (c >= 0x11DE0 && c <= 0x11DE9) ||
             (c >= 0x16FF4 && c <= 0x16FF6);
    default: return false;
  }
}

bool is_word(char32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  // Other_Alphabetic beyond the marks: circled, squared and negative Latin letters.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189)) {
    return true;
  }
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category == UTF8PROC_CATEGORY_CN) {
    return is_later_addition(c, "L") || is_later_addition(c, "M") || is_later_addition(c, "Nd");
  }
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC;
}

std::string normalize(std::string_view text, Form form) {
  const bool ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
  if (ascii) return std::string(text);
  const bool compat = form == Form::kNfkc || form == Form::kNfkd;
  const bool compose = form == Form::kNfc || form == Form::kNfkc;
  const auto decompose_option = static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, &i);
    utf8proc_int32_t parts[32];  // the longest decomposition (U+FDFA) has 18 code points
    const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 32,
                                                       decompose_option, nullptr);
    TEMPER_CHECK(n >= 0 && n <= 32, "[normalize] cannot decompose U+", std::hex,
                 static_cast<uint32_t>(c));
    points.insert(points.end(), parts, parts + n);
  }
  // Canonical ordering. utf8proc's own is quadratic in the length of a run of marks.
  for (auto run = points.begin(); run != points.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, points.end(),
                                  [&](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    run = end;
  }
  if (compose) compose_all(&points);
  std::string out;
  out.reserve(text.size());
  for (const utf8proc_int32_t c : points) append_code_point(&out, static_cast<char32_t>(c));
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, &i);
    if (c == 0x130) {  // the one code point whose unconditional lower case is two
      out.append("i\xCC\x87");
    } else {
      append_code_point(&out,
                        static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

}  // namespace temper::unicode
