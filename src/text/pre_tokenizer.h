#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "regex.h"

namespace temper {

/// Pieces of a text in order; the model never merges across their borders. None is empty.
struct Pieces {
  std::string text;
  std::vector<MatchSpan> spans;
  bool at_start = false;  ///< The text begins where the whole input begins.

  [[nodiscard]] std::string_view piece(const MatchSpan& span) const {
    return std::string_view(text).substr(span.begin, span.end - span.begin);
  }
};

/// The `pre_tokenizer` of a tokenizer file: a chain of steps that cut and rewrite pieces.
/// Immutable.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// @throws Error naming `where` and the type of a part that is not known.
  PreTokenizer(const nlohmann::json& json, const std::string& where);

  /// Cuts one section of text between added tokens.
  [[nodiscard]] Pieces operator()(std::string text, bool at_start) const;

 private:
  using Step = std::function<void(Pieces*)>;
  void add(const nlohmann::json& json, int depth, const std::string& where);
  std::vector<Step> steps_;
};

/// The 256 characters, as UTF-8, that stand for bytes in byte-level vocabularies: 33-126, 161-172
/// and 174-255 stand for themselves, the other 68 bytes are U+0100 + n in order.
[[nodiscard]] const std::vector<std::string>& byte_level_characters();

/// The byte that a character stands for, or -1.
[[nodiscard]] int byte_of_character(char32_t c);

}  // namespace temper
