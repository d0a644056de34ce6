#include <algorithm>
#include <cmath>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "jinja_value.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

void append(std::string& out, std::string_view text) {
  check_text_size(out.size() + text.size());
  out += text;
}

void append_repr(std::string& out, const Value& value, int depth);

void append_items(std::string& out, const Value& value, int depth) {
  for (size_t i = 0; i < value.items().size(); ++i) {
    if (i > 0) append(out, ", ");
    append_repr(out, value.items()[i], depth + 1);
  }
}

void append_dict(std::string& out, const Dict& dict, int depth) {
  append(out, "{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) append(out, ", ");
    first = false;
    append_repr(out, key, depth + 1);
    append(out, ": ");
    append_repr(out, value, depth + 1);
  }
  append(out, "}");
}

void append_callable(std::string& out, const Callable& callable) {
  if (callable.type == Callable::Type::kMacro) {
    append(out, "<Macro " + repr_text(callable.name) + ">");
  } else {
    append(out, "<function " + callable.name + ">");
  }
}

void append_repr(std::string& out, const Value& value, int depth) {
  // Namespaces can hold themselves, so that the nesting of values alone is no bound.
  TEMPER_CHECK(depth <= 2 * kMaxDepth, "printing values nested deeper than ", 2 * kMaxDepth);
  switch (value.kind()) {
    case Kind::kUndefined: return append(out, "Undefined");
    case Kind::kNone: return append(out, "None");
    case Kind::kBool: return append(out, value.integer() != 0 ? "True" : "False");
    case Kind::kInt: return append(out, std::to_string(value.integer()));
    case Kind::kFloat: return append(out, repr_float(value.real()));
    case Kind::kString:
      return append(out, value.is_markup() ? "Markup(" + repr_text(value.text()) + ")"
                                           : repr_text(value.text()));
    case Kind::kRange: return append(out, value.label());
    case Kind::kList:
      append(out, "[");
      append_items(out, value, depth);
      return append(out, "]");
    case Kind::kTuple:
      append(out, "(");
      append_items(out, value, depth);
      return append(out, value.items().size() == 1 ? ",)" : ")");
    case Kind::kView:
      append(out, value.label() + "([");
      append_items(out, value, depth);
      return append(out, "])");
    case Kind::kDict: return append_dict(out, value.dict(), depth);
    case Kind::kNamespace:
      append(out, "<TemplateNamespace ");
      append_dict(out, value.space().attributes, depth);
      return append(out, ">");
    case Kind::kIterator: return append(out, "<generator object>");
    case Kind::kSlice: return append(out, "slice");
    case Kind::kLoop: return append(out, "<LoopContext>");
    case Kind::kCallable: return append_callable(out, value.callable());
  }
}

bool equal_items(const Values& a, const Values& b, Budget& budget) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](auto& x, auto& y) { return equals(x, y, budget); });
}

bool equal_dicts(const Dict& a, const Dict& b, Budget& budget) {
  if (a.entries().size() != b.entries().size()) return false;
  for (const auto& [key, value] : a.entries()) {
    budget.charge();
    const Value* other = b.find(key);
    if (other == nullptr || !equals(value, *other, budget)) return false;
  }
  return true;
}

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (!a.is_integral() && !b.is_integral()) return a.real() == b.real();
  // An integer and a float: exactly, as Python does, not after rounding the integer.
  const double real = a.is_integral() ? b.real() : a.real();
  const int64_t integer = a.is_integral() ? a.integer() : b.integer();
  return real == std::floor(real) && std::abs(real) < 9.2e18 && int64_t(real) == integer;
}

}  // namespace

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kString: return value.is_markup() ? "Markup" : "str";
    case Kind::kList: return "list";
    case Kind::kTuple: return "tuple";
    case Kind::kDict: return "dict";
    case Kind::kRange: return "range";
    case Kind::kView: return value.label();
    case Kind::kIterator: return "generator";
    case Kind::kSlice: return "slice";
    case Kind::kNamespace: return "Namespace";
    case Kind::kLoop: return "LoopContext";
    case Kind::kCallable:
      return value.callable().type == Callable::Type::kMacro ? "Macro" : "function";
  }
  return "object";
}

std::string to_text(const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return {};
  return repr(value);
}

std::string repr(const Value& value) {
  std::string out;
  append_repr(out, value, 0);
  return out;
}

bool equals(const Value& a, const Value& b, Budget& budget) {
  budget.charge();
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kString:
      budget.charge_text(std::min(a.text().size(), b.text().size()));
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange: return equal_items(a.items(), b.items(), budget);
    case Kind::kDict: return equal_dicts(a.dict(), b.dict(), budget);
    case Kind::kNamespace: return &a.space() == &b.space();
    case Kind::kLoop: return &a.loop() == &b.loop();
    case Kind::kCallable: return &a.callable() == &b.callable();
    default: return &a.items() == &b.items();
  }
}

bool less(const Value& a, const Value& b, bool or_equal, Budget& budget) {
  require_defined(a);
  require_defined(b);
  budget.charge();
  if (a.is_integral() && b.is_integral()) {
    return or_equal ? a.integer() <= b.integer() : a.integer() < b.integer();
  }
  if (a.is_number() && b.is_number()) {
    return or_equal ? a.real() <= b.real() : a.real() < b.real();
  }
  if (a.is_string() && b.is_string()) {
    // UTF-8 sorts as its code points do.
    budget.charge_text(std::min(a.text().size(), b.text().size()));
    return or_equal ? a.text() <= b.text() : a.text() < b.text();
  }
  const bool both_lists = a.is(Kind::kList) && b.is(Kind::kList);
  TEMPER_CHECK(both_lists || (a.is(Kind::kTuple) && b.is(Kind::kTuple)), "'", or_equal ? "<=" : "<",
               "' not supported between '", type_name(a), "' and '", type_name(b), "'");
  const size_t n = std::min(a.items().size(), b.items().size());
  for (size_t i = 0; i < n; ++i) {
    if (equals(a.items()[i], b.items()[i], budget)) continue;
    return less(a.items()[i], b.items()[i], or_equal, budget);
  }
  return or_equal ? a.items().size() <= b.items().size() : a.items().size() < b.items().size();
}

}  // namespace temper::jinja
