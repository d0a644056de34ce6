#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace temper::jinja {

enum class TokenType : uint8_t {
  kData,
  kVariableBegin,  ///< `{{`
  kVariableEnd,
  kBlockBegin,  ///< `{%`
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 1;
  std::string text;  ///< Data, name, operator, or the string's value.
  int64_t integer = 0;
  double real = 0;

  [[nodiscard]] bool is_operator(std::string_view op) const {
    return type == TokenType::kOperator && text == op;
  }
  [[nodiscard]] bool is_name(std::string_view name) const {
    return type == TokenType::kName && text == name;
  }
  /// For messages: what stands here.
  [[nodiscard]] std::string describe() const;
};

/// Splits a template into tokens. White space around tags is already dealt with as
/// `trim_blocks = lstrip_blocks = True` and the `-` and `+` markers say.
/// @throws Error with the line for unbalanced brackets, unknown characters, open tags.
[[nodiscard]] std::vector<Token> tokenize(std::string_view source);

}  // namespace temper::jinja
