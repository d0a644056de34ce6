#include <cstdint>
#include <optional>

#include "regex.h"
#include "temper/core/error.h"
#include "unicode_additions.h"

// Where the two engines read the same characters differently (Unicode text, default syntax):
//   \s      White_Space in Oniguruma; PCRE2 with UCP adds U+180E
//   \w \b   alphabetic, marks, decimal digits, connectors; PCRE2 10.42: letters, numbers,
//   underscore \h \v   a hexadecimal digit and one character (U+000B); PCRE2: kinds of space
//   (?m)    the dot takes newlines; PCRE2: line anchors
//   \p{Han} the script; PCRE2: its extensions
//   a{,3}   at most 3; PCRE2 10.42: literal text
//   a{2}+   a repeated repeat; PCRE2: possessive.    [a[bc]] and [a&&b]: sets; PCRE2: literal text
// Equal in both: classes otherwise, lookaround, atomic groups, ?+ *+ ++, caseless matching by
// simple case folding (which puts U+017F with s and U+212A with k).

namespace temper {
namespace {

constexpr std::string_view kSpace =
    R"(\x09-\x0D\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x00-\x08\x0E-\x1F\x21-\x84\x86-\x9F\xA1-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027})"
    R"(\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Rewriter {
 public:
  Rewriter(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (!at_end()) {
      const char c = in_[i_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        brace();
      } else {
        out_.push_back(c);
        ++i_;
      }
    }
    return std::move(out_);
  }

 private:
  [[nodiscard]] bool at_end() const { return i_ >= in_.size(); }
  [[nodiscard]] bool next_is(std::string_view text) const {
    return in_.substr(i_, text.size()) == text;
  }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(where_, ": the pattern \"", in_, "\" uses ", what, " at byte ", i_,
         ", which is not supported");
  }

  // A set of characters, given as the items of a class.
  void emit_set(std::string_view items, bool negated) {
    if (!in_class_) {
      out_ += negated ? "[^" : "[";
      out_ += items;
      out_ += "]";
    } else if (negated) {
      refuse("a negated set inside a class");
    } else {
      out_ += items;
    }
  }

  [[nodiscard]] static std::string word_items() {
    // The superscripts and fractions of Latin-1 count as word characters in Oniguruma.
    return std::string(R"(\p{Alphabetic}\xB2\xB3\xB9\xBC-\xBE)") + class_items_of_category("L") +
           class_items_of_category("M") + class_items_of_category("Nd") +
           class_items_of_category("Pc");
  }

  void word_boundary(bool negated) {
    if (in_class_) refuse("\\b inside a class");
    const std::string word = "[" + word_items() + "]";
    const std::string_view first = negated ? "(?:(?<=" : "(?:(?<!";
    out_ +=
        concat(first, word, ")(?=", word, negated ? ")|(?<!" : ")|(?<=", word, ")(?!", word, "))");
  }

  void escape() {
    if (i_ + 1 >= in_.size()) refuse("a backslash at its end");
    const char c = in_[i_ + 1];
    switch (c) {
      case 's': emit_set(kSpace, false); break;
      case 'S': emit_set(kNotSpace, false); break;
      case 'd':
      case 'D': emit_set(class_items_of_category("Nd"), c == 'D'); break;
      case 'w':
      case 'W': emit_set(word_items(), c == 'W'); break;
      case 'h':
      case 'H': emit_set("0-9A-Fa-f", c == 'H'); break;
      case 'b':
      case 'B': word_boundary(c == 'B'); break;
      case 'v': out_ += "\\x0B"; break;
      case 'p':
      case 'P': property(); return;
      case 'u': hex4(); return;
      case 'A':
      case 'z':
      case 'Z':
        if (in_class_) refuse("an anchor inside a class");
        [[fallthrough]];
      case 'a':
      case 'e':
      case 'f':
      case 'n':
      case 'r':
      case 't': out_ += in_.substr(i_, 2); break;
      case 'x':
        // Without braces this is a byte, not a code point: the same only in ASCII.
        if (i_ + 2 >= in_.size() || in_.substr(i_ + 2, 1).find_first_of("01234567{") != 0) {
          refuse("\\x with a byte");
        }
        out_ += in_.substr(i_, 2);
        break;
      default:
        if (is_letter(c)) refuse(concat("\\", c));
        if (is_digit(c) && c != '0') refuse("a backreference");
        out_ += in_.substr(i_, 2);  // of a multi-byte character: its first byte, the rest follows
    }
    i_ += 2;
  }

  void property() {
    bool negated = in_[i_ + 1] == 'P';
    i_ += 2;
    if (!next_is("{")) refuse("\\p without braces");
    const size_t close = in_.find('}', i_);
    if (close == std::string_view::npos) refuse("\\p without a closing brace");
    std::string_view name = in_.substr(i_ + 1, close - i_ - 1);
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    std::string items = class_items_of_category(name);
    if (items.empty()) items = class_items_of_script(name);
    if (items.empty()) refuse(concat("the property \\p{", name, "}"));
    emit_set(items, negated);
    i_ = close + 1;
  }

  void hex4() {
    const std::string_view digits = in_.substr(i_ + 2, 4);
    const bool hex = digits.size() == 4 &&
                     digits.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
    if (!hex) refuse("\\u without four hexadecimal digits");
    out_ += concat("\\x{", digits, "}");
    i_ += 6;
  }

  void open_class() {
    in_class_ = true;
    out_.push_back('[');
    ++i_;
    if (next_is("^")) {
      out_.push_back('^');
      ++i_;
    }
    if (next_is("]")) {  // literal in the first place
      out_ += "\\]";
      ++i_;
    }
  }

  void class_character(char c) {
    if (c == '[') refuse("a class inside a class");
    if (next_is("&&")) refuse("an intersection of classes");
    if (c == ']') in_class_ = false;
    out_.push_back(c);
    ++i_;
  }

  void group() {
    if (next_is("(*")) refuse("(*");
    const size_t start = i_;
    out_.push_back('(');
    ++i_;
    if (!next_is("?")) return;
    for (const std::string_view head : {"?:", "?=", "?!", "?>", "?<=", "?<!"}) {
      if (next_is(head)) {
        out_ += head;
        i_ += head.size();
        return;
      }
    }
    flags(start);
  }

  // (?i-m:...) anywhere; (?i) only at the start, where both engines agree on its reach.
  void flags(size_t start) {
    out_.push_back('?');
    ++i_;
    while (!at_end() && (in_[i_] == 'i' || in_[i_] == 'm' || in_[i_] == '-')) {
      out_.push_back(in_[i_] == 'm' ? 's' : in_[i_]);
      ++i_;
    }
    if (!next_is(":") && !(next_is(")") && start == 0)) refuse("a group of an unknown kind");
    out_.push_back(in_[i_]);
    ++i_;
  }

  void brace() {
    size_t j = i_ + 1;
    const size_t low = j;
    while (j < in_.size() && is_digit(in_[j])) ++j;
    const bool has_low = j > low;
    bool has_comma = false;
    bool has_high = false;
    if (j < in_.size() && in_[j] == ',') {
      has_comma = true;
      const size_t high = ++j;
      while (j < in_.size() && is_digit(in_[j])) ++j;
      has_high = j > high;
    }
    if (j >= in_.size() || in_[j] != '}' || !(has_low || has_high)) {
      out_ += "\\{";
      ++i_;
      return;
    }
    out_ += has_low ? "{" : "{0";
    out_ += in_.substr(i_ + 1, j - i_);
    i_ = j + 1;
    if (next_is("+")) refuse("a repeat of a counted repeat");
    if (next_is("?") && !has_comma) refuse("{n}?");
  }

  std::string_view in_;
  const std::string& where_;
  size_t i_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& where) {
  return Rewriter(pattern, where).run();
}

}  // namespace temper
