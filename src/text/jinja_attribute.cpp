#include <algorithm>
#include <charconv>
#include <optional>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

std::string object_name(const Value& object) {
  if (object.is(Kind::kNone)) return "None";
  return type_name(object) + " object";
}

Value no_attribute(const Value& object, std::string_view name) {
  return Value::undefined(concat("'", object_name(object), "' has no attribute '", name, "'"));
}

Value no_element(const Value& object, const Value& key) {
  if (key.is_string()) return no_attribute(object, key.text());
  return Value::undefined(concat(object_name(object), " has no element ", repr(key)));
}

/// Names that exist in Python but that the sandbox keeps from templates.
bool is_unsafe(const Value& object, std::string_view name) {
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  const auto among = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (name.size() > 4 && name.starts_with("__") && name.ends_with("__")) return true;
  return (object.is_dict() && among(kDict)) || (object.is(Kind::kList) && among(kList));
}

/// What `getattr` finds: methods, namespace entries, the few data attributes.
std::optional<Value> python_attribute(const Value& object, std::string_view name) {
  if (is_unsafe(object, name)) {
    return Value::undefined(
        concat("access to attribute '", name, "' of '", type_name(object), "' object is unsafe."));
  }
  if (object.is(Kind::kNamespace)) {
    const Value* value = object.space().attributes.find(name);
    return value != nullptr ? std::optional(*value) : std::nullopt;
  }
  if (object.is(Kind::kCallable) && object.callable().type == Callable::Type::kMacro &&
      name == "name") {
    return Value(object.callable().name);
  }
  if (object.is(Kind::kTuple) && object.label() == kGroupLabel) {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  }
  if (has_method(object, name)) {
    return Value(
        Callable{.type = Callable::Type::kMethod, .name = std::string(name), .self = object});
  }
  return std::nullopt;
}

std::optional<Value> element(const Value& object, int64_t index) {
  if (object.is_string()) {
    const std::vector<uint32_t> offsets = code_point_offsets(object.text());
    const int64_t n = int64_t(offsets.size()) - 1;
    if (index < 0) index += n;
    if (index < 0 || index >= n) return std::nullopt;
    return Value(object.text().substr(offsets[size_t(index)],
                                      offsets[size_t(index) + 1] - offsets[size_t(index)]));
  }
  if (!object.is(Kind::kList) && !object.is(Kind::kTuple) && !object.is(Kind::kRange)) {
    return std::nullopt;
  }
  const int64_t n = int64_t(object.items().size());
  if (index < 0) index += n;
  if (index < 0 || index >= n) return std::nullopt;
  return object.items()[size_t(index)];
}

/// The indices that `start:stop:step` picks out of n, by Python's rules.
std::vector<size_t> slice_indices(const Value& slice, int64_t n) {
  const auto part = [&](size_t i, int64_t otherwise) {
    const Value& v = slice.items()[i];
    if (v.is(Kind::kNone)) return otherwise;
    require_defined(v);
    TEMPER_CHECK(v.is_integral(), "slice indices must be integers or None, not ", type_name(v));
    return v.integer();
  };
  const int64_t step = part(2, 1);
  TEMPER_CHECK(step != 0, "slice step cannot be zero");
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  const auto clamp = [&](int64_t i) {
    if (i < 0) i += n;
    return std::clamp(i, low, high);
  };
  const Value& start_value = slice.items()[0];
  const Value& stop_value = slice.items()[1];
  const int64_t start = start_value.is(Kind::kNone) ? (step < 0 ? high : low) : clamp(part(0, 0));
  const int64_t stop = stop_value.is(Kind::kNone) ? (step < 0 ? low : high) : clamp(part(1, 0));
  std::vector<size_t> indices;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    indices.push_back(size_t(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return indices;
}

Value take_slice(const Value& object, const Value& slice) {
  if (object.is_string()) {
    const std::vector<uint32_t> offsets = code_point_offsets(object.text());
    std::string out;
    for (const size_t i : slice_indices(slice, int64_t(offsets.size()) - 1)) {
      out.append(object.text(), offsets[i], offsets[i + 1] - offsets[i]);
    }
    return Value(std::move(out), object.is_markup());
  }
  TEMPER_CHECK(object.is(Kind::kList) || object.is(Kind::kTuple) || object.is(Kind::kRange), "'",
               type_name(object), "' object cannot be sliced");
  Values items;
  for (const size_t i : slice_indices(slice, int64_t(object.items().size()))) {
    items.push_back(object.items()[i]);
  }
  return Value::sequence(object.kind(), std::move(items), object.label());
}

}  // namespace

Value get_attribute(const Value& object, std::string_view name) {
  require_defined(object);
  if (std::optional<Value> value = python_attribute(object, name)) return *value;
  if (object.is_dict()) {
    if (const Value* value = object.dict().find(name)) return *value;
  }
  return no_attribute(object, name);
}

Value get_item(const Value& object, const Value& key) {
  require_defined(object);
  if (key.is(Kind::kSlice)) return take_slice(object, key);
  if (object.is_dict()) {
    const bool hashable = !key.is(Kind::kList) && !key.is_dict();
    const Value* value = hashable ? object.dict().find(key) : nullptr;
    if (value != nullptr) return *value;
  } else if (key.is_integral()) {
    if (std::optional<Value> value = element(object, key.integer())) return *value;
  }
  if (key.is_string()) {
    if (std::optional<Value> value = python_attribute(object, key.text())) return *value;
  }
  return no_element(object, key);
}

Value get_path(const Value& object, const Value& path) {
  if (!path.is_string()) return get_item(object, path);
  Value value = object;
  const std::string_view text = path.text();
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find('.', start), text.size());
    const std::string_view part = text.substr(start, end - start);
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number =
        parsed.ec == std::errc{} && parsed.ptr == part.data() + part.size() && part.front() != '-';
    value = number ? get_item(value, Value(index)) : get_item(value, Value(part));
    start = end + 1;
  }
  return value;
}

Bound::Bound(std::string_view function, const CallArgs& args,
             std::initializer_list<std::string_view> names, size_t required)
    : function_(function), values_(names.size(), nullptr) {
  TEMPER_CHECK(args.positional.size() <= names.size(), function, " takes at most ", names.size(),
               " arguments, got ", args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keyword) {
    const auto it = std::find(names.begin(), names.end(), name);
    TEMPER_CHECK(it != names.end(), function, " has no argument named '", name, "'");
    const Value*& slot = values_[size_t(it - names.begin())];
    TEMPER_CHECK(slot == nullptr, function, " got argument '", name, "' twice");
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    TEMPER_CHECK(values_[i] != nullptr, function, " needs argument '", names.begin()[i], "'");
  }
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  if (values_[i] == nullptr) return otherwise;
  require_defined(*values_[i]);
  TEMPER_CHECK(values_[i]->is_integral(), function_, ": argument ", i + 1,
               " must be an integer, not ", type_name(*values_[i]));
  return values_[i]->integer();
}

std::string_view Bound::text(size_t i, std::string_view otherwise) const {
  if (values_[i] == nullptr) return otherwise;
  require_defined(*values_[i]);
  TEMPER_CHECK(values_[i]->is_string(), function_, ": argument ", i + 1, " must be a string, not ",
               type_name(*values_[i]));
  return values_[i]->text();
}

}  // namespace temper::jinja
