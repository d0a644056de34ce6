#include "jinja_format.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

/// `'%s' % x` and `'{}'.format(x)`.
namespace temper::jinja {
namespace {

constexpr int64_t kMaxWidth = 100'000;
constexpr int kMaxPrecision = 300;

/// A run of digits at `at`, or -1.
int64_t read_number(std::string_view text, size_t& at, int64_t limit) {
  const size_t start = at;
  int64_t n = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    n = n * 10 + (text[at++] - '0');
    TEMPER_CHECK(n <= limit, "format: number above the limit of ", limit);
  }
  return at == start ? -1 : n;
}

FormatSpec parse_spec(std::string_view text) {
  FormatSpec spec;
  size_t at = 0;
  const auto is_align = [&](size_t i) {
    return i < text.size() && std::string_view("<>^=").find(text[i]) != std::string_view::npos;
  };
  const size_t first = text.empty() ? 0 : decode(text, 0).size;
  if (is_align(first) && first > 0) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    at = first + 1;
  } else if (is_align(0)) {
    spec.align = text[at++];
  }
  const auto skip = [&](char c) { return at < text.size() && text[at] == c && ++at > 0; };
  if (at < text.size() && (text[at] == '+' || text[at] == '-' || text[at] == ' '))
    spec.sign = text[at++];
  spec.alternate = skip('#');
  if (skip('0')) {
    spec.zero = true;
    if (spec.align == 0) spec.fill = "0";
  }
  spec.width = std::max<int64_t>(read_number(text, at, kMaxWidth), 0);
  if (at < text.size() && (text[at] == ',' || text[at] == '_')) spec.group = text[at++];
  if (skip('.')) {
    spec.precision = int(read_number(text, at, kMaxPrecision));
    TEMPER_CHECK(spec.precision >= 0, "format: precision missing in '", text, "'");
  }
  if (at < text.size()) spec.type = text[at++];
  TEMPER_CHECK(at == text.size(), "format: bad format '", text, "'");
  return spec;
}

std::string format_value(const Value& value, std::string_view text, Budget& budget) {
  if (value.is_string()) budget.charge_text(value.text().size());
  if (text.empty()) return to_text(value);
  require_defined(value);
  FormatSpec spec = parse_spec(text);
  static constexpr std::string_view kInteger = "dbcoxXn", kReal = "eEfFgG%";
  const auto among = [&](std::string_view types) {
    return spec.type == 0 || types.find(spec.type) != std::string_view::npos;
  };
  if (value.is_string()) {
    TEMPER_CHECK(among("s") && spec.align != '=', "format: bad format '", text, "' for a string");
    if (spec.align == 0 && spec.zero) spec.align = '<';
    return format_string(value.text(), spec);
  }
  if (value.is_number()) {
    const bool ok = among(kReal) || (value.is_integral() && among(kInteger));
    TEMPER_CHECK(ok && spec.type != 'c' && spec.type != 'n', "format: bad format '", text, "' for ",
                 type_name(value));
    const bool as_name = value.is(Kind::kBool) && spec.type == 0 && spec.width == 0;
    TEMPER_CHECK(!value.is_integral() || spec.precision < 0 ||
                     (spec.type != 0 && kReal.find(spec.type) != std::string_view::npos),
                 "format: precision not allowed for an integer");
    return as_name ? to_text(value) : format_number(value, spec);
  }
  fail("format: unsupported format '", text, "' for ", type_name(value));
}

struct Progress {
  Budget& budget;
  int64_t next = 0;  ///< Next automatic argument; negative once fields are numbered.
  int depth = 0;
};

/// One replacement field of str.format, without its braces.
class Field {
 public:
  Field(std::string_view text, const CallArgs& args, Progress& progress)
      : args_(args), progress_(progress) {
    progress_.budget.charge();
    const size_t colon = text.find(':');
    std::string_view name = text.substr(0, colon);
    if (colon != std::string_view::npos) spec_ = text.substr(colon + 1);
    if (const size_t bang = name.find('!'); bang != std::string_view::npos) {
      TEMPER_CHECK(name.size() == bang + 2, "format: expected one letter behind '!'");
      conversion_ = name[bang + 1];
      name = name.substr(0, bang);
    }
    value_ = resolve(name);
  }

  [[nodiscard]] std::string text() const;

 private:
  Value resolve(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = root(name.substr(0, end));
    for (size_t at = end; at < name.size();) {
      if (value.is_string()) progress_.budget.charge_text(value.text().size());
      if (name[at] == '.') {
        const size_t stop = std::min(name.find_first_of(".[", at + 1), name.size());
        value = get_attribute(value, name.substr(at + 1, stop - at - 1));
        at = stop;
      } else {
        const size_t stop = name.find(']', at);
        TEMPER_CHECK(name[at] == '[' && stop != std::string_view::npos, "format: bad field '", name,
                     "'");
        const std::string_view key = name.substr(at + 1, stop - at - 1);
        size_t digits = 0;
        const int64_t index = read_number(key, digits, INT32_MAX);
        value = get_item(value, index >= 0 && digits == key.size() ? Value(index) : Value(key));
        at = stop + 1;
      }
    }
    return value;
  }

  Value root(std::string_view name) {
    size_t digits = 0;
    const int64_t index = read_number(name, digits, INT32_MAX);
    if (name.empty() || (index >= 0 && digits == name.size())) {
      TEMPER_CHECK(name.empty() ? progress_.next >= 0 : progress_.next <= 0,
                   "format: numbered and automatic fields cannot be mixed");
      const int64_t at = name.empty() ? progress_.next++ : index;
      if (!name.empty()) progress_.next = INT64_MIN;
      TEMPER_CHECK(size_t(at) < args_.positional.size(), "format: no argument ", at);
      return args_.positional[size_t(at)];
    }
    for (const auto& [key, value] : args_.keyword) {
      if (key == name) return value;
    }
    fail("format: no argument '", name, "'");
  }

  const CallArgs& args_;
  Progress& progress_;
  char conversion_ = 0;
  std::string_view spec_;
  Value value_;
};

std::string expand(std::string_view text, const CallArgs& args, Progress& progress) {
  TEMPER_CHECK(progress.depth < 3, "format: fields nested too deep");
  std::string out;
  for (size_t at = 0; at < text.size();) {
    check_text_size(out.size());
    const char c = text[at];
    if ((c == '{' || c == '}') && at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      at += 2;
    } else if (c == '{') {
      size_t end = at + 1;
      for (int open = 1; end < text.size(); ++end) {
        open += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
        if (open == 0) break;
      }
      TEMPER_CHECK(end < text.size(), "format: expected '}' before the end of the string");
      out += Field(text.substr(at + 1, end - at - 1), args, progress).text();
      at = end + 1;
    } else {
      TEMPER_CHECK(c != '}', "format: single '}' in the format string");
      out += c;
      ++at;
    }
  }
  check_text_size(out.size());
  return out;
}

std::string Field::text() const {
  ++progress_.depth;
  const std::string spec = expand(spec_, args_, progress_);
  --progress_.depth;
  Budget& budget = progress_.budget;
  switch (conversion_) {
    case 0: return format_value(value_, spec, budget);
    case 'r': return format_value(Value(repr(value_)), spec, budget);
    case 's': return format_value(Value(to_text(value_)), spec, budget);
    default: fail("format: unknown conversion '!", conversion_, "'");
  }
}

/// Reads one % directive at a time.
class Percent {
 public:
  Percent(std::string_view text, const Value& values, Budget& budget)
      : text_(text), values_(values), budget_(budget) {}

  std::string run() {
    while (at_ < text_.size()) {
      check_text_size(out_.size());
      if (text_[at_] != '%') {
        out_ += text_[at_++];
      } else {
        ++at_;
        directive();
      }
    }
    const bool all_used = values_.is(Kind::kTuple)
                              ? used_ >= values_.items().size()
                              : used_ > 0 || values_.is_dict() || values_.is(Kind::kList);
    TEMPER_CHECK(all_used || by_name_, "not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  const Value& argument() {
    if (values_.is(Kind::kTuple)) {
      TEMPER_CHECK(used_ < values_.items().size(), "not enough arguments for format string");
      return values_.items()[used_++];
    }
    TEMPER_CHECK(used_ == 0, "not enough arguments for format string");
    ++used_;
    return values_;
  }

  void directive() {
    const Value* named = nullptr;
    if (peek() == '(') {
      const size_t end = text_.find(')', at_);
      TEMPER_CHECK(end != std::string_view::npos, "incomplete format key");
      TEMPER_CHECK(values_.is_dict(), "format requires a mapping");
      named = values_.dict().find(text_.substr(at_ + 1, end - at_ - 1));
      TEMPER_CHECK(named != nullptr, "no key '", text_.substr(at_ + 1, end - at_ - 1), "'");
      by_name_ = true;
      at_ = end + 1;
    }
    FormatSpec spec;
    bool left = false;
    for (;
         at_ < text_.size() && std::string_view("-+ #0").find(text_[at_]) != std::string_view::npos;
         ++at_) {
      left |= text_[at_] == '-';
      spec.zero |= text_[at_] == '0';
      spec.alternate |= text_[at_] == '#';
      if (text_[at_] == '+' || (text_[at_] == ' ' && spec.sign == '-')) spec.sign = text_[at_];
    }
    spec.width = std::max<int64_t>(read_number(text_, at_, kMaxWidth), 0);
    if (peek() == '.') {
      ++at_;
      spec.precision = int(std::max<int64_t>(read_number(text_, at_, kMaxPrecision), 0));
    }
    TEMPER_CHECK(at_ < text_.size(), "incomplete format");
    spec.type = text_[at_++];
    if (spec.type == '%') {
      out_ += '%';
      return;
    }
    const Value& value = named != nullptr ? *named : argument();
    spec.align = left ? '<' : 0;
    out_ += convert(value, spec);
  }

  std::string convert(const Value& value, FormatSpec spec) {
    static constexpr std::string_view kInteger = "diu", kBases = "xXo", kReal = "eEfFgG";
    const char type = spec.type;
    if (type == 's' || type == 'r' || type == 'a') {
      if (spec.align == 0) spec.align = '>';
      const std::string text = type == 's' ? to_text(value) : repr(value);
      budget_.charge_text(text.size());
      return format_string(text, spec);
    }
    require_defined(value);
    if (type == 'c') {
      const bool letter = value.is_string() && text_length(value.text()) == 1;
      TEMPER_CHECK(letter, "%c requires a string of one character here");
      return format_string(value.text(), spec);
    }
    const auto among = [&](std::string_view types) {
      return types.find(type) != std::string_view::npos;
    };
    TEMPER_CHECK(among(kInteger) || among(kBases) || among(kReal), "unsupported format character '",
                 type, "'");
    TEMPER_CHECK(value.is_number(), "%", type, " format: a number is required, not ",
                 type_name(value));
    if (spec.zero && spec.align == 0) spec.fill = "0";
    if (among(kReal)) return format_number(value, spec);
    TEMPER_CHECK(!among(kBases) || value.is_integral(), "%", type,
                 " format: an integer is required");
    const double real = value.real();
    TEMPER_CHECK(std::fabs(real) < 9.2e18 || value.is_integral(), "%", type,
                 " format: number too large");
    spec.type = among(kInteger) ? 'd' : type;
    spec.precision = -1;
    return format_number(Value(value.is_integral() ? value.integer() : int64_t(real)), spec);
  }

  std::string_view text_;
  const Value& values_;
  Budget& budget_;
  size_t at_ = 0;
  size_t used_ = 0;
  bool by_name_ = false;
  std::string out_;
};

}  // namespace

std::string format_percent(const std::string& text, const Value& values, Budget& budget) {
  return Percent(text, values, budget).run();
}

std::string format_braces(const std::string& text, const CallArgs& args, Budget& budget) {
  Progress progress{budget};
  return expand(text, args, progress);
}

}  // namespace temper::jinja
