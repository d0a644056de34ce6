#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "regex.h"

namespace temper {

/// A stretch of a text: part of a match, or what lies between matches.
struct Stretch {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

/// `{"String": "..."}` or `{"Regex": "..."}`, as Split and Replace use it. Immutable.
class Pattern {
 public:
  /// @throws Error, prefixed by `where`, for another shape or an empty string.
  Pattern(const nlohmann::json& json, const std::string& where);
  explicit Pattern(Regex regex) : regex_(std::move(regex)) {}

  /// Covers non-empty `text` with stretches, in order. Matches may be empty.
  void stretches(std::string_view text, std::vector<Stretch>* out) const;

  [[nodiscard]] std::string replace(std::string_view text, std::string_view content) const;

  /// Whether matching sees one code point at a time, so that it may be done on parts of a text.
  [[nodiscard]] bool is_single_character() const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace temper
