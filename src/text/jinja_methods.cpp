#include <algorithm>

#include "jinja_runtime.h"
#include "temper/core/error.h"

/// Methods of dicts, lists and tuples.
namespace temper::jinja {
namespace {

Value dict_view(const Dict& dict, const std::string& name) {
  Values items;
  for (const auto& [key, value] : dict.entries()) {
    if (name == "keys") {
      items.push_back(key);
    } else if (name == "values") {
      items.push_back(value);
    } else {
      items.push_back(Value::sequence(Kind::kTuple, {key, value}));
    }
  }
  return Value::sequence(Kind::kView, std::move(items), "dict_" + name);
}

Value call_dict_method(Runtime& runtime, const Callable& method, const CallArgs& args) {
  const Dict& dict = method.self.dict();
  if (method.name == "get") {
    const Bound bound("get", args, {"key", "default"}, 1);
    TEMPER_CHECK(args.keyword.empty(), "get takes no keyword arguments");
    if (const Value* value = dict.find(*bound[0])) return *value;
    return bound[1] != nullptr ? *bound[1] : Value();
  }
  const Bound bound(method.name, args, {});
  if (method.name == "copy") return method.self;
  runtime.budget.charge(dict.entries().size() / 8);
  return dict_view(dict, method.name);
}

Value count_items(Runtime& runtime, const Callable& method, const Value& wanted) {
  int64_t count = 0;
  for (const Value& item : method.self.items()) count += equals(item, wanted, runtime.budget);
  return Value(count);
}

Value index_of(Runtime& runtime, const Callable& method, const CallArgs& args) {
  const Bound bound("index", args, {"value", "start", "stop"}, 1);
  const Values& items = method.self.items();
  const int64_t n = int64_t(items.size());
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t p = bound.integer(i, otherwise);
    return std::clamp(p < 0 ? p + n : p, int64_t{0}, n);
  };
  const int64_t stop = place(2, n);
  for (int64_t i = place(1, 0); i < stop; ++i) {
    if (equals(items[size_t(i)], *bound[0], runtime.budget)) return Value(i);
  }
  fail(repr(*bound[0]), " is not in ", type_name(method.self));
}

Value call_list_method(Runtime& runtime, const Callable& method, const CallArgs& args) {
  if (method.name == "index") return index_of(runtime, method, args);
  if (method.name == "count") {
    const Bound bound("count", args, {"value"}, 1);
    return count_items(runtime, method, *bound[0]);
  }
  const Bound bound(method.name, args, {});
  return method.self;  // copy
}

}  // namespace

bool has_method(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::kDict:
      return name == "get" || name == "items" || name == "keys" || name == "values" ||
             name == "copy";
    case Kind::kList: return name == "index" || name == "count" || name == "copy";
    case Kind::kTuple:
    case Kind::kRange: return name == "index" || name == "count";
    case Kind::kString: return has_string_method(name);
    default: return false;
  }
}

Value call_method(Runtime& runtime, const Callable& method, const CallArgs& args) {
  if (method.self.is_string()) return call_string_method(runtime, method, args);
  if (method.self.is_dict()) return call_dict_method(runtime, method, args);
  return call_list_method(runtime, method, args);
}

}  // namespace temper::jinja
