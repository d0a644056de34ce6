#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace temper {

/// A match as byte offsets [begin, end).
struct MatchSpan {
  size_t begin = 0;
  size_t end = 0;
};

/// A regular expression in the syntax of tokenizer files (Oniguruma's default), run by PCRE2.
/// Immutable, safe to use from several threads.
class Regex {
 public:
  /// @throws Error, prefixed by `where`, if the pattern does not compile or means something else in
  ///   PCRE2 that cannot be rewritten.
  Regex(std::string_view pattern, const std::string& where);

  /// The first match in well-formed UTF-8 at or after byte `start`, which must be a boundary of
  /// characters; lookbehind sees what is before it.
  /// @throws Error when the matching limits are exceeded.
  [[nodiscard]] std::optional<MatchSpan> find(std::string_view text, size_t start) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

/// Walks over successive matches as the tokenizers package does: an empty match right behind the
/// previous match is passed over by one character.
class MatchIterator {
 public:
  MatchIterator(const Regex& regex, std::string_view text) : regex_(regex), text_(text) {}
  [[nodiscard]] std::optional<MatchSpan> next();

 private:
  const Regex& regex_;
  std::string_view text_;
  size_t position_ = 0;
  std::optional<size_t> last_end_;
};

/// Rewrites a pattern from Oniguruma's meaning to PCRE2's (options UTF, UCP and MULTILINE).
/// @throws Error, prefixed by `where`, for constructs whose meaning differs.
[[nodiscard]] std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& where);

}  // namespace temper
