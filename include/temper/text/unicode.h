#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace temper::unicode {

/// The byte length of the well-formed UTF-8 sequence at the start of `text` (1 to 4), or 0 if there
/// is none. Overlong forms, surrogates and code points above U+10FFFF are ill-formed.
[[nodiscard]] size_t sequence_length(std::string_view text);

/// Whether all of `text` is well-formed UTF-8.
[[nodiscard]] bool is_valid_utf8(std::string_view text);

/// How many bytes at the start of `text` form one maximal subpart of an ill-formed sequence: the
/// prefix that a valid sequence could begin with, at least one byte (Unicode 15, section 3.9,
/// "U+FFFD substitution of maximal subparts"). Only for text with `sequence_length(text) == 0`.
[[nodiscard]] size_t maximal_subpart(std::string_view text);

/// Whether `text` (1 to 3 bytes) is a proper prefix of some well-formed sequence.
[[nodiscard]] bool is_incomplete_prefix(std::string_view text);

/// `text` with every maximal ill-formed subpart replaced by U+FFFD, as Python's
/// `bytes.decode("utf-8", errors="replace")` does.
[[nodiscard]] std::string to_valid_utf8(std::string_view text);

/// Reads the code point at `*position` of well-formed UTF-8 and moves `*position` behind it.
[[nodiscard]] char32_t next_code_point(std::string_view text, size_t* position);

/// The start of the code point that ends at `position` (> 0) of well-formed UTF-8.
[[nodiscard]] size_t previous_start(std::string_view text, size_t position);

/// Appends the UTF-8 form of a scalar value.
void append_code_point(std::string* out, char32_t c);

/// Unicode property White_Space (so U+0085 and U+00A0 but not U+180E).
[[nodiscard]] bool is_white_space(char32_t c);

/// Unicode general categories Nd, Nl and No.
[[nodiscard]] bool is_numeric(char32_t c);

/// A word character of Unicode regular expressions (UTS 18): alphabetic, mark, decimal digit,
/// connector punctuation or join control.
[[nodiscard]] bool is_word(char32_t c);

/// A normalization form of Unicode Standard Annex 15.
enum class Form { kNfc, kNfd, kNfkc, kNfkd };

/// Normalizes well-formed UTF-8. O(n log n) also for long runs of combining marks. As in the
/// tokenizers package, marks that came after Unicode 9 keep their place and end compositions.
[[nodiscard]] std::string normalize(std::string_view text, Form form);

/// Full lower-casing without context or locale (U+03A3 becomes U+03C3 everywhere).
[[nodiscard]] std::string to_lower(std::string_view text);

}  // namespace temper::unicode
