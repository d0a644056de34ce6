#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Python's view of text on UTF-8 bytes: code points, white space, letter case, repr. Bytes that
/// are not UTF-8 count as one code point each and pass through unchanged.
namespace temper::jinja {

struct CodePoint {
  char32_t value = 0;  ///< An invalid byte b is 0xDC00 + b, which no valid text contains.
  uint32_t size = 1;   ///< Bytes, 1 to 4.
};

/// The code point at byte `at` < text.size().
[[nodiscard]] CodePoint decode(std::string_view text, size_t at);
void append_utf8(std::string& out, char32_t value);

/// Number of code points.
[[nodiscard]] size_t text_length(std::string_view text);
/// Byte offset of each code point, and the size in bytes at the end.
[[nodiscard]] std::vector<uint32_t> code_point_offsets(std::string_view text);

/// Python's str.isspace for one code point.
[[nodiscard]] bool is_space(char32_t c);
/// The first byte at or after `at` that starts no white space.
[[nodiscard]] size_t skip_space(std::string_view text, size_t at);

/// str.strip, lstrip, rstrip; `chars` null strips white space.
[[nodiscard]] std::string_view strip_text(std::string_view text, const std::string_view* chars,
                                          bool left, bool right);

/// First occurrence at or after byte `from`, or npos. Linear in the worst case, which
/// std::string_view::find is not.
[[nodiscard]] size_t find_text(std::string_view text, std::string_view what, size_t from = 0);
/// Last occurrence, or npos. Linear.
[[nodiscard]] size_t rfind_text(std::string_view text, std::string_view what);

[[nodiscard]] std::string upper_text(std::string_view text);
[[nodiscard]] std::string lower_text(std::string_view text);
[[nodiscard]] std::string capitalize_text(std::string_view text);
/// str.title: upper case behind everything that has no case.
[[nodiscard]] std::string title_text(std::string_view text);

[[nodiscard]] bool is_alpha(char32_t c);
[[nodiscard]] bool is_digit(char32_t c);
[[nodiscard]] bool is_upper(char32_t c);
[[nodiscard]] bool is_lower(char32_t c);

/// Lines without their ends (or with them), as str.splitlines.
[[nodiscard]] std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

/// repr() of a string: quotes, escapes.
[[nodiscard]] std::string repr_text(std::string_view text);
/// repr() of a float: the shortest digits that read back the same.
[[nodiscard]] std::string repr_float(double value);

}  // namespace temper::jinja
