#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "jinja_text.h"
#include "jinja_value.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

Value convert(const nlohmann::ordered_json& json, int depth) {
  using Type = nlohmann::ordered_json::value_t;
  TEMPER_CHECK(depth <= kMaxDepth, "input nested deeper than ", kMaxDepth, " levels");
  switch (json.type()) {
    case Type::null: return {};
    case Type::boolean: return Value(json.get<bool>());
    case Type::number_integer: return Value(json.get<int64_t>());
    case Type::number_unsigned: {
      const uint64_t n = json.get<uint64_t>();
      TEMPER_CHECK(n <= uint64_t(INT64_MAX), "input holds the integer ", n,
                   ", which needs more than 63 bits");
      return Value(int64_t(n));
    }
    case Type::number_float: return Value(json.get<double>());
    case Type::string: return Value(json.get_ref<const std::string&>());
    case Type::array: {
      Values items;
      for (const auto& item : json) items.push_back(convert(item, depth + 1));
      return Value::list(std::move(items));
    }
    case Type::object: {
      Dict dict;
      for (const auto& item : json.items()) dict.set(item.key(), convert(item.value(), depth + 1));
      return Value(std::move(dict));
    }
    default: fail("input holds binary data, expected plain JSON");
  }
}

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Value& value, size_t level) {
    check_text_size(out_.size());
    switch (value.kind()) {
      case Kind::kNone: out_ += "null"; return;
      case Kind::kBool: out_ += value.integer() != 0 ? "true" : "false"; return;
      case Kind::kInt: out_ += std::to_string(value.integer()); return;
      case Kind::kFloat: out_ += number(value.real()); return;
      case Kind::kString: string(value.text()); return;
      case Kind::kList:
      case Kind::kTuple: list(value.items(), level); return;
      case Kind::kDict: dict(value.dict(), level); return;
      default: fail("tojson: ", type_name(value), " is not JSON serializable");
    }
  }

  std::string take() { return std::move(out_); }

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return repr_float(d);
  }

  static std::string key_text(const Value& key) {
    if (key.is_string()) return key.text();
    if (key.is(Kind::kNone)) return "null";
    if (key.is(Kind::kBool)) return key.integer() != 0 ? "true" : "false";
    if (key.is(Kind::kFloat)) return number(key.real());
    TEMPER_CHECK(key.is(Kind::kInt), "tojson: keys must be str, int, float, bool or None, not ",
                 type_name(key));
    return std::to_string(key.integer());
  }

  void list(const Values& items, size_t level) {
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i == 0, level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) new_line(level);
    out_ += ']';
  }

  void dict(const Dict& dict, size_t level) {
    auto entries = dict.entries();
    if (style_.sort_keys) {
      Budget budget;
      std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
        return less(a.first, b.first, false, budget);
      });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i == 0, level + 1);
      string(key_text(entries[i].first));
      out_ += style_.key_separator;
      write(entries[i].second, level + 1);
    }
    if (!entries.empty()) new_line(level);
    out_ += '}';
  }

  void separate(bool first, size_t level) {
    if (!first) out_ += style_.item_separator;
    check_text_size(out_.size());
    new_line(level);
  }

  void new_line(size_t level) {
    if (!style_.lines) return;
    out_ += '\n';
    check_text_size(out_.size() + level * style_.indent.size());
    for (size_t i = 0; i < level; ++i) out_ += style_.indent;
  }

  void unicode_escape(unsigned unit) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "\\u%04x", unit);
    out_ += buffer;
  }

  void string(const std::string& text) {
    check_text_size(out_.size() + text.size());
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const CodePoint c = decode(text, i);
      static constexpr std::string_view kPlain = "\"\\\b\f\n\r\t", kLetter = "\"\\bfnrt";
      const size_t at = c.value < 128 ? kPlain.find(char(c.value)) : std::string_view::npos;
      if (at != std::string_view::npos) {
        out_ += {'\\', kLetter[at]};
      } else if (c.value < 32 || (style_.ensure_ascii && c.value > 126 && c.value < 0x10000)) {
        unicode_escape(unsigned(c.value));
      } else if (style_.ensure_ascii && c.value >= 0x10000) {
        unicode_escape(0xD800 + (unsigned(c.value - 0x10000) >> 10));
        unicode_escape(0xDC00 + (unsigned(c.value - 0x10000) & 0x3FF));
      } else {
        out_.append(text, i, c.size);
      }
      i += c.size;
    }
    out_ += '"';
  }

  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

Value from_json(const nlohmann::ordered_json& json) { return convert(json, 0); }

std::string to_json(const Value& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace temper::jinja
