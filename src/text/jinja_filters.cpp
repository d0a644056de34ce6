#include <algorithm>
#include <charconv>
#include <cmath>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

/// Filters on text and numbers, `default`, `tojson`, `attr`.
namespace temper::jinja {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

struct Entry {
  std::string_view name;
  Filter filter;
};

template <std::string (*kConvert)(std::string_view)>
Value convert(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("case conversion", args, {});
  return Value(kConvert(to_text(input)));
}

/// Unlike str.title: words begin behind white space and opening brackets only.
std::string title_words(std::string_view text) {
  std::string out;
  size_t start = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    const bool breaks =
        is_space(c.value) ||
        (c.value < 128 && std::string_view("-({[<").find(char(c.value)) != kNowhere);
    if (!breaks && !inside) {
      out += upper_text(text.substr(i, c.size));
      start = i + c.size;
    }
    if (breaks) {
      if (inside) out += lower_text(text.substr(start, i - start));
      out += text.substr(i, c.size);
    }
    inside = !breaks;
    i += c.size;
  }
  return inside ? out + lower_text(text.substr(start)) : out;
}

Value trim(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("trim", args, {"chars"});
  const std::string text = to_text(input);
  const std::string_view chars = bound.given(0) ? bound.text(0, "") : "";
  return Value(strip_text(text, bound.given(0) ? &chars : nullptr, true, true));
}

/// All occurrences, or `count` of them; an empty `old` matches between all code points.
std::string replace_text(const std::string& text, const std::string& old, const std::string& with,
                         int64_t count) {
  std::string out;
  size_t at = 0;
  while (count != 0) {
    const size_t hit = find_text(text, old, at);
    if (hit == kNowhere) break;
    check_text_size(out.size() + (hit - at) + with.size());
    out.append(text, at, hit - at).append(with);
    at = hit + old.size();
    --count;
    if (!old.empty()) continue;
    if (at >= text.size()) return out;
    const size_t size = decode(text, at).size;
    out.append(text, at, size);
    at += size;
  }
  check_text_size(out.size() + text.size() - at);
  return out.append(text, at);
}

Value replace(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("replace", args, {"old", "new", "count"}, 2);
  const int64_t count = bound.given(2) ? bound.integer(2, -1) : -1;
  return Value(replace_text(to_text(input), to_text(*bound[0]), to_text(*bound[1]), count));
}

Value to_default(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("default", args, {"default_value", "boolean"});
  const bool absent = input.is_undefined() || (bound.flag(1, false) && !input.truthy());
  if (!absent) return input;
  return bound[0] != nullptr ? *bound[0] : Value("");
}

Value string(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("string", args, {});
  return input.is_string() ? input : Value(to_text(input));
}

Value safe(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("safe", args, {});
  return Value(to_text(input), true);
}

template <bool kForce>
Value escape(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("escape", args, {});
  if (input.is_markup() && !kForce) return input;
  return Value(escape_html(to_text(input)), true);
}

Value indent(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("indent", args, {"width", "first", "blank"});
  require_defined(input);
  TEMPER_CHECK(input.is_string(), "indent: expected a string, got ", type_name(input));
  std::string indention;
  if (bound[0] != nullptr && bound[0]->is_string()) {
    indention = bound[0]->text();
  } else {
    const int64_t width = std::max<int64_t>(bound.integer(0, 4), 0);
    check_text_size(size_t(width));
    indention = std::string(size_t(width), ' ');
  }
  const std::string text = input.text() + "\n";
  std::string out;
  bool first = true;
  for (const std::string_view line : split_lines(text, false)) {
    check_text_size(out.size() + line.size() + indention.size() + 1);
    if (!first) out += '\n';
    const bool wanted = first ? bound.flag(1, false) : bound.flag(2, false) || !line.empty();
    if (wanted) out += indention;
    out += line;
    first = false;
  }
  return Value(std::move(out));
}

Value truncate(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("truncate", args, {"length", "killwords", "end", "leeway"});
  require_defined(input);
  TEMPER_CHECK(input.is_string(), "truncate: expected a string, got ", type_name(input));
  const std::string end(bound.text(2, "..."));
  const int64_t length = bound.integer(0, 255), leeway = bound.given(3) ? bound.integer(3, 5) : 5;
  const int64_t keep = length - int64_t(text_length(end));
  TEMPER_CHECK(keep >= 0 && leeway >= 0, "truncate: the length is shorter than the end marker");
  const std::vector<uint32_t> offsets = code_point_offsets(input.text());
  const int64_t n = int64_t(offsets.size()) - 1;
  if (n <= leeway || n - leeway <= length) return input;
  std::string out = input.text().substr(0, offsets[size_t(keep)]);
  if (!bound.flag(1, false)) out = out.substr(0, out.rfind(' '));
  return Value(out + end);
}

Value word_count(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("wordcount", args, {});
  const std::string text = to_text(input);
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    const bool word = is_alpha(c.value) || is_digit(c.value) || c.value == '_';
    words += word && !inside;
    inside = word;
    i += c.size;
  }
  return Value(words);
}

Value center(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("center", args, {"width"});
  const Callable method{
      .type = Callable::Type::kMethod, .name = "center", .self = Value(to_text(input))};
  return call_string_method(runtime, method, {.positional = {Value(bound.integer(0, 80))}});
}

Value format(Runtime& runtime, const Value& input, const CallArgs& args) {
  TEMPER_CHECK(args.positional.empty() || args.keyword.empty(),
               "format: positional and keyword arguments cannot be mixed");
  Value values = Value::sequence(Kind::kTuple, args.positional);
  if (!args.keyword.empty()) {
    Dict dict;
    for (const auto& [name, value] : args.keyword) dict.set(name, value);
    values = Value(std::move(dict));
  }
  return Value(format_percent(to_text(input), values, runtime.budget));
}

Value to_json_text(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style{.ensure_ascii = bound.flag(0, false), .sort_keys = bound.flag(3, false)};
  if (bound.given(1)) {
    style.lines = true;
    style.item_separator = ",";
    if (bound[1]->is_string()) {
      style.indent = bound[1]->text();
    } else {
      const int64_t width = std::max<int64_t>(bound.integer(1, 0), 0);
      check_text_size(size_t(width));
      style.indent = std::string(size_t(width), ' ');
    }
  }
  if (bound.given(2)) {
    const Values pair = iterate(*bound[2]);
    TEMPER_CHECK(pair.size() == 2 && pair[0].is_string() && pair[1].is_string(),
                 "tojson: separators must be two strings");
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return Value(to_json(input, style));
}

Value attr(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("attr", args, {"name"}, 1);
  const std::string_view name = bound.text(0, "");
  require_defined(input);
  if (input.is(Kind::kNamespace) || has_method(input, name)) return get_attribute(input, name);
  return Value::undefined(concat("'", type_name(input), "' object has no attribute '", name, "'"));
}

constexpr Entry kFilters[] = {
    {"upper", convert<upper_text>},
    {"lower", convert<lower_text>},
    {"capitalize", convert<capitalize_text>},
    {"title", convert<title_words>},
    {"trim", trim},
    {"replace", replace},
    {"default", to_default},
    {"d", to_default},
    {"string", string},
    {"safe", safe},
    {"escape", escape<false>},
    {"e", escape<false>},
    {"forceescape", escape<true>},
    {"indent", indent},
    {"truncate", truncate},
    {"wordcount", word_count},
    {"center", center},
    {"format", format},
    {"tojson", to_json_text},
    {"attr", attr},
};

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

Filter find_text_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

Filter find_filter(std::string_view name) {
  if (const Filter filter = find_text_filter(name)) return filter;
  if (const Filter filter = find_number_filter(name)) return filter;
  return find_sequence_filter(name);
}

}  // namespace temper::jinja
