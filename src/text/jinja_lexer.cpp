#include "jinja_lexer.h"

#include <array>
#include <charconv>
#include <optional>

#include "jinja_text.h"
#include "jinja_value.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }
bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit_char(c);
}

/// All line ends become \n, and one at the very end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) root();
    push(TokenType::kEnd);
    return std::move(tokens_);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail_here(const Args&... args) {
    fail("line ", line(), ": ", args...);
  }

  int line() {
    for (; counted_ < at_; ++counted_) line_ += source_[counted_] == '\n';
    return line_;
  }

  Token& push(TokenType type, std::string text = {}) {
    Token& token = tokens_.emplace_back();
    token.type = type;
    token.line = line();
    token.text = std::move(text);
    return token;
  }

  bool starts(size_t at, std::string_view what) const {
    return std::string_view(source_).substr(at).starts_with(what);
  }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }

  void root() {
    size_t tag = at_;
    while ((tag = source_.find('{', tag)) != kNone && !starts(tag, "{{") && !starts(tag, "{%") &&
           !starts(tag, "{#")) {
      ++tag;
    }
    if (tag == kNone) {
      push(TokenType::kData, source_.substr(at_));
      at_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign != '-' && sign != '+') sign = '\0';
    data(tag, sign, kind != '{');
    const size_t raw = kind == '%' ? raw_begin(tag) : kNone;
    at_ = tag + 2 + (sign != '\0');
    if (raw != kNone) {
      at_ = raw;
      line_starting_ = source_[at_ - 1] == '\n';
      raw_text();
    } else if (kind == '#') {
      comment();
    } else {
      push(kind == '%' ? TokenType::kBlockBegin : TokenType::kVariableBegin);
      tag_body(kind == '%');
    }
    line_starting_ = source_[at_ - 1] == '\n';
  }

  /// Emits the text before `tag`, stripped as the tag asks.
  void data(size_t tag, char sign, bool is_block) {
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    if (sign == '-') {
      text = strip_text(text, nullptr, false, true);
    } else if (sign == '\0' && is_block) {
      const size_t newline = text.rfind('\n');
      const size_t start = newline == kNone ? 0 : newline + 1;
      const bool at_line_start = start > 0 || line_starting_;
      if (at_line_start && skip_space(text, start) == text.size()) text = text.substr(0, start);
    }
    if (!text.empty()) push(TokenType::kData, std::string(text));
    at_ = tag;
  }

  /// Behind `{% raw %}` at `tag`, or npos if it is none.
  size_t raw_begin(size_t tag) const {
    size_t p = tag + 2;
    if (p < source_.size() && (source_[p] == '-' || source_[p] == '+')) ++p;
    p = skip_space(source_, p);
    if (!starts(p, "raw")) return kNone;
    p = skip_space(source_, p + 3);
    if (starts(p, "-%}")) return skip_space(source_, p + 3);
    return starts(p, "%}") ? p + 2 : kNone;
  }

  void raw_text() {
    for (size_t tag = at_; (tag = source_.find("{%", tag)) != kNone; tag += 2) {
      size_t p = tag + 2;
      const char sign =
          p < source_.size() && (source_[p] == '-' || source_[p] == '+') ? source_[p] : '\0';
      p = skip_space(source_, p + (sign != '\0'));
      if (!starts(p, "endraw")) continue;
      p = skip_space(source_, p + 6);
      const size_t end = tag_end(p, "%}", true);
      if (end == kNone) continue;
      data(tag, sign, true);
      at_ = end;
      return;
    }
    fail_here("missing {% endraw %}");
  }

  void comment() {
    for (size_t p = at_; (p = source_.find("#}", p)) != kNone; p += 1) {
      // The marker belongs to the end only if there is room for it behind the start.
      const size_t from = p > at_ && (source_[p - 1] == '-' || source_[p - 1] == '+') ? p - 1 : p;
      at_ = tag_end(from, "#}", true);
      return;
    }
    fail_here("missing end of comment, expected #}");
  }

  /// Behind the end of a tag at `p` with its marker and the white space that it eats, or npos.
  size_t tag_end(size_t p, std::string_view end, bool trims) const {
    if (starts(p, "-") && starts(p + 1, end)) return skip_space(source_, p + 3);
    if (trims && starts(p, "+") && starts(p + 1, end)) return p + 3;
    if (!starts(p, end)) return kNone;
    return p + 2 + (trims && starts(p + 2, "\n"));
  }

  void tag_body(bool is_block) {
    const std::string_view end = is_block ? "%}" : "}}";
    std::string brackets;
    while (true) {
      if (brackets.empty()) {
        const size_t behind = tag_end(at_, end, is_block);
        if (behind != kNone) {
          push(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd);
          at_ = behind;
          return;
        }
      }
      if (at_ >= source_.size()) {
        fail_here("unexpected end of template, expected '", end, "'");
      }
      const size_t behind = skip_space(source_, at_);
      if (behind > at_) {
        at_ = behind;
        continue;
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const char c = peek();
    if (is_digit_char(c)) {
      number();
    } else if (is_name_char(c)) {
      const size_t start = at_;
      size_t end = at_;
      while (end < source_.size() && is_name_char(source_[end])) ++end;
      push(TokenType::kName, source_.substr(start, end - start));
      at_ = end;
    } else if (c == '"' || c == '\'') {
      string(c);
    } else {
      operation(brackets);
    }
  }

  void operation(std::string& brackets) {
    static constexpr std::array<std::string_view, 26> kOperators = {
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!starts(at_, op)) continue;
      const char c = op[0];
      if (c == '(' || c == '[' || c == '{') {
        brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
      } else if (c == ')' || c == ']' || c == '}') {
        if (brackets.empty()) fail_here("unexpected '", c, "'");
        if (brackets.back() != c)
          fail_here("unexpected '", c, "', expected '", brackets.back(), "'");
        brackets.pop_back();
      }
      push(TokenType::kOperator, std::string(op));
      at_ += op.size();
      return;
    }
    const CodePoint c = decode(source_, at_);
    fail_here("unexpected character ", repr_text(std::string_view(source_).substr(at_, c.size)));
  }

  /// Appends digits with single underscores between them; false if there is none.
  template <class IsDigit>
  bool digits(size_t& p, std::string& out, IsDigit is_digit_of) {
    const size_t start = p;
    while (p < source_.size()) {
      if (is_digit_of(source_[p])) {
        out += source_[p++];
      } else if (source_[p] == '_' && p > start && p + 1 < source_.size() &&
                 is_digit_of(source_[p + 1])) {
        ++p;
      } else {
        break;
      }
    }
    return p > start;
  }

  void number() {
    std::string text;
    size_t p = at_;
    if (const int base = peek() == '0' ? radix(peek(1)) : 10; base != 10) {
      p += 2;
      if (source_.size() > p && source_[p] == '_') ++p;
      const auto in_base = [&](char c) { return digit_value(c) < base; };
      if (digits(p, text, in_base)) {
        integer(text, base, p);
        return;
      }
      p = at_;
    }
    digits(p, text, is_digit_char);
    bool real = false;
    std::string tail = ".";
    size_t q = p + 1;
    const bool behind_dot = at_ > 0 && source_[at_ - 1] == '.';  // x.0.1 is an index, not a float
    const auto at = [&](char c) { return !behind_dot && p < source_.size() && source_[p] == c; };
    if (at('.') && digits(q, tail, is_digit_char)) {
      text += tail;
      p = q;
      real = true;
    }
    if (at('e') || at('E')) {
      tail = "e";
      q = p + 1;
      if (q < source_.size() && (source_[q] == '+' || source_[q] == '-')) tail += source_[q++];
      if (digits(q, tail, is_digit_char)) {
        text += tail;
        p = q;
        real = true;
      }
    }
    if (!real) {
      const bool zeros = text.find_first_not_of('0') == kNone;
      if (text[0] == '0' && !zeros) fail_here("integer ", text, " starts with 0");
      integer(text, 10, p);
      return;
    }
    Token& token = push(TokenType::kFloat, text);
    // Out of range leaves inf or 0, as Python reads such literals.
    token.real = std::strtod(text.c_str(), nullptr);
    at_ = p;
  }

  static int radix(char c) {
    switch (c | 0x20) {
      case 'x': return 16;
      case 'o': return 8;
      case 'b': return 2;
      default: return 10;
    }
  }

  static int digit_value(char c) {
    if (is_digit_char(c)) return c - '0';
    const char l = char(c | 0x20);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : 99;
  }

  void integer(const std::string& text, int base, size_t end) {
    Token& token = push(TokenType::kInteger, text);
    const auto result =
        std::from_chars(text.data(), text.data() + text.size(), token.integer, base);
    if (result.ec != std::errc{}) fail_here("integer ", text, " needs more than 64 bits");
    at_ = end;
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_here("string without end, expected ", quote);
    const std::string_view body = std::string_view(source_).substr(at_ + 1, end - at_ - 1);
    std::string value;
    for (size_t i = 0; i < body.size();) {
      if (body[i] != '\\') {
        value += body[i++];
      } else {
        i = escape(body, i + 1, value);
      }
    }
    push(TokenType::kString, std::move(value));
    at_ = end + 1;
  }

  /// Decodes the escape whose letter is at `i`; returns the place behind it.
  size_t escape(std::string_view body, size_t i, std::string& value) {
    static constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char c = body[i];
    if (c == '\n') return i + 1;
    if (const size_t at = kLetters.find(c); at != kNone) {
      value += kMeanings[at];
      return i + 1;
    }
    const size_t hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    unsigned code = 0;
    if (hex > 0) {
      const std::string_view text = body.substr(i + 1, hex);
      const auto result = std::from_chars(text.data(), text.data() + text.size(), code, 16);
      const bool surrogate = code >= 0xD800 && code < 0xE000;
      if (text.size() < hex || result.ptr != text.data() + hex || code > 0x10FFFF || surrogate) {
        fail_here("bad escape \\", c, text, " in a string");
      }
      append_utf8(value, code);
      return i + 1 + hex;
    }
    if (c == 'N') fail_here("escapes by name (\\N{...}) are not supported");
    size_t n = 0;
    while (n < 3 && i + n < body.size() && body[i + n] >= '0' && body[i + n] <= '7') {
      code = code * 8 + unsigned(body[i + n++] - '0');
    }
    if (n > 0) {
      append_utf8(value, code);
    } else {
      value += {'\\', c};  // Python keeps unknown escapes as they are
      n = 1;
    }
    return i + n;
  }

  const std::string source_;
  size_t at_ = 0;
  size_t counted_ = 0;  // bytes that line_ has seen
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string Token::describe() const {
  switch (type) {
    case TokenType::kData: return "text";
    case TokenType::kVariableBegin: return "'{{'";
    case TokenType::kVariableEnd: return "'}}'";
    case TokenType::kBlockBegin: return "'{%'";
    case TokenType::kBlockEnd: return "'%}'";
    case TokenType::kString: return "string " + repr_text(text);
    case TokenType::kEnd: return "end of template";
    default: return "'" + text + "'";
  }
}

std::vector<Token> tokenize(std::string_view source) {
  check_text_size(source.size());
  return Lexer(source).run();
}

}  // namespace temper::jinja
