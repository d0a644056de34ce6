#include <algorithm>
#include <chrono>
#include <ctime>

#include "jinja_interpreter.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

constexpr std::string_view kFunctions[] = {"range",        "dict",   "namespace", "raise_exception",
                                           "strftime_now", "cycler", "joiner",    "lipsum"};

std::string format_local_time(std::string format, int64_t seconds) {
  const auto replace = [&](std::string_view directive, std::string_view with) {
    for (size_t at = 0; (at = format.find('%', at)) != std::string::npos;) {
      if (format.compare(at, 2, directive) == 0) {
        format.replace(at, 2, with);
        at += with.size();
      } else {
        at += 2;
      }
    }
  };
  replace("%f", "000000");  // unknown to the C library
  replace("%z", "");        // a local time without a zone has none in Python
  replace("%Z", "");
  if (format.empty()) return {};
  const std::time_t time = std::time_t(seconds);
  std::tm parts{};
  TEMPER_CHECK(localtime_r(&time, &parts) != nullptr, "strftime_now: time out of range");
  format += '.';  // so that an empty result differs from a failure
  std::string buffer(size_t{1} << 16, '\0');
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &parts);
  TEMPER_CHECK(size > 0, "strftime_now: result longer than ", buffer.size(), " bytes");
  return buffer.substr(0, size - 1);
}

}  // namespace

bool is_function(std::string_view name) {
  return std::find(std::begin(kFunctions), std::end(kFunctions), name) != std::end(kFunctions);
}

Value Interpreter::closure(const std::string& name, const Stmt& body) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) scope->captured = true;
  return Value(
      Callable{.type = Callable::Type::kMacro, .name = name, .body = &body, .scope = scope_});
}

Value Interpreter::call(const Value& callee, const CallArgs& args) {
  require_defined(callee);
  if (callee.is(Kind::kLoop)) return call_loop(callee.loop(), args);
  TEMPER_CHECK(callee.is(Kind::kCallable), "'", type_name(callee), "' object is not callable");
  const Callable& callable = callee.callable();
  switch (callable.type) {
    case Callable::Type::kMacro: return call_macro(callable, args);
    case Callable::Type::kFunction: return call_function(callable.name, args);
    case Callable::Type::kLoopMethod: return loop_method(callable.self.loop(), callable.name, args);
    case Callable::Type::kMethod: break;
  }
  charge(callable.self);
  return call_method(*this, callable, args);
}

Value Interpreter::call_macro(const Callable& macro, const CallArgs& args) {
  TEMPER_CHECK(++calls_ <= kMaxDepth, "calls nested deeper than ", kMaxDepth, " levels");
  Scope* const scope = new_scope(macro.scope);
  bind_parameters(*macro.body, args, *scope);
  std::string text = capture(macro.body->body, scope);
  --calls_;
  return Value(std::move(text));
}

void Interpreter::bind_parameters(const Stmt& macro, const CallArgs& args, Scope& scope) {
  const std::vector<std::string>& names = macro.parameters;
  const size_t given = std::min(args.positional.size(), names.size());
  for (size_t i = 0; i < given; ++i) scope.variables[names[i]] = args.positional[i];
  Keywords rest = args.keyword;
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    budget.charge(1 + rest.size() / 8);
    const auto it =
        std::find_if(rest.begin(), rest.end(), [&](auto& k) { return k.first == name; });
    if (it == rest.end()) return std::nullopt;
    Value value = std::move(it->second);
    rest.erase(it);
    return value;
  };
  const bool own_caller = std::find(names.begin(), names.end(), "caller") != names.end();
  if (macro.uses_caller && !own_caller) {
    scope.variables["caller"] = take("caller").value_or(Value::undefined("No caller defined"));
  }
  std::vector<std::optional<Value>> values(names.size());
  for (size_t i = given; i < names.size(); ++i) values[i] = take(names[i]);
  Scope* const outer = std::exchange(scope_, &scope);
  const size_t first_default = names.size() - macro.defaults.size();
  for (size_t i = given; i < names.size(); ++i) {
    if (values[i].has_value()) {
      scope.variables[names[i]] = *values[i];
    } else if (i >= first_default) {
      scope.variables[names[i]] = evaluate(*macro.defaults[i - first_default]);
    } else {
      scope.variables[names[i]] =
          Value::undefined(concat("parameter '", names[i], "' was not provided"));
    }
  }
  scope_ = outer;
  if (macro.uses_kwargs) {
    Dict kwargs;
    for (auto& [name, value] : rest) kwargs.set(name, std::move(value));
    scope.variables["kwargs"] = Value(std::move(kwargs));
  } else {
    TEMPER_CHECK(rest.empty(), "macro '", macro.text, "' takes no keyword argument '",
                 rest.front().first, "'");
  }
  if (macro.uses_varargs) {
    scope.variables["varargs"] = Value::sequence(
        Kind::kTuple,
        Values(args.positional.begin() + std::ptrdiff_t(given), args.positional.end()));
  } else {
    TEMPER_CHECK(args.positional.size() == given, "macro '", macro.text, "' takes not more than ",
                 names.size(), " argument(s)");
  }
}

Value Interpreter::call_function(const std::string& name, const CallArgs& args) {
  if (name == "range") return make_range(args);
  if (name == "dict") return Value(make_dict(args));
  if (name == "namespace") return make_namespace(args);
  if (name == "strftime_now") return format_time(args);
  TEMPER_CHECK(name == "raise_exception", "function '", name, "' is not supported");
  const Bound bound(name, args, {"message"}, 1);
  fail("the template says: ", to_text(*bound[0]));
}

Value Interpreter::make_range(const CallArgs& args) {
  TEMPER_CHECK(args.keyword.empty(), "range takes no keyword arguments");
  const Bound bound("range", args, {"start", "stop", "step"}, 1);
  const bool only_stop = args.positional.size() == 1;
  const int64_t start = only_stop ? 0 : bound.integer(0, 0);
  const int64_t stop = bound.integer(only_stop ? 0 : 1, 0);
  const int64_t step = bound.integer(2, 1);
  TEMPER_CHECK(step != 0, "range: the step must not be 0");
  // In unsigned arithmetic, since the distance may need 64 bits.
  uint64_t count = 0;
  if (step > 0 ? start < stop : stop < start) {
    const uint64_t distance =
        step > 0 ? uint64_t(stop) - uint64_t(start) : uint64_t(start) - uint64_t(stop);
    const uint64_t stride = step > 0 ? uint64_t(step) : ~uint64_t(step) + 1;
    count = (distance - 1) / stride + 1;
  }
  TEMPER_CHECK(count <= kMaxRange, "range of ", count, " items, more than the limit of ",
               kMaxRange);
  budget.charge(size_t(count / 8));
  Values items;
  for (uint64_t i = 0; i < count; ++i) {
    items.emplace_back(int64_t(uint64_t(start) + i * uint64_t(step)));
  }
  std::string label = concat("range(", start, ", ", stop);
  if (step != 1) label += concat(", ", step);
  return Value::sequence(Kind::kRange, std::move(items), label + ")");
}

Dict Interpreter::make_dict(const CallArgs& args) {
  TEMPER_CHECK(args.positional.size() <= 1, "dict takes at most 1 positional argument");
  Dict dict;
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    require_defined(source);
    charge(source);
    if (source.is_dict()) {
      dict = source.dict();
    } else {
      for (const Value& pair : iterate(source)) {
        const Values items = iterate(pair);
        TEMPER_CHECK(items.size() == 2, "dict: expected pairs, got ", items.size(), " items");
        dict.set(items[0], items[1]);
      }
    }
  }
  for (const auto& [name, value] : args.keyword) dict.set(name, value);
  return dict;
}

Value Interpreter::make_namespace(const CallArgs& args) {
  Dict attributes = make_dict(args);
  for (const auto& entry : attributes.entries()) {
    const Value& key = entry.first;
    TEMPER_CHECK(!key.is_string() || !key.text().starts_with('_'), "attribute '", key.text(),
                 "' of a namespace must not start with an underscore");
  }
  namespaces_.push_back({std::move(attributes)});
  return Value(&namespaces_.back());
}

Value Interpreter::format_time(const CallArgs& args) {
  const Bound bound("strftime_now", args, {"format"}, 1);
  const std::string format(bound.text(0, ""));
  TEMPER_CHECK(format.size() <= 1024, "strftime_now: format of ", format.size(), " bytes");
  const int64_t now = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  return Value(format_local_time(format, setup_.unix_time.value_or(now)));
}

}  // namespace temper::jinja
