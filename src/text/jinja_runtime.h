#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "jinja_value.h"

/// Objects that live as long as one rendering, and the interface that filters see of it.
namespace temper::jinja {

struct Stmt;
struct Expr;

/// Variables of one block. A macro keeps the scope that it was defined in, as a Python closure
/// does.
struct Scope {
  Scope* parent = nullptr;
  std::map<std::string_view, Value> variables;  // names live in the syntax tree
  bool captured = false;                        // some closure may still look into it
};

struct Namespace {
  Dict attributes;
};

/// The `loop` variable. Items are tested one ahead only if the template asks, since the condition
/// of a loop may depend on what its body does.
struct Loop {
  Values items;
  size_t next = 0;  // first item not yet taken
  std::optional<Value> ahead, current, before;
  std::optional<Values> changed;  // last arguments of loop.changed
  std::optional<int64_t> length;  // once known
  int64_t index0 = -1;
  int64_t depth0 = 0;  // nesting of a recursive loop
  const Stmt* statement = nullptr;
  const Expr* test = nullptr;  // condition that items have still to pass
  Scope* scope = nullptr;      // where the loop stands
};

/// Something that can be called.
struct Callable {
  enum class Type : uint8_t { kMethod, kMacro, kFunction, kLoopMethod };
  Type type = Type::kFunction;
  std::string name = {};
  Value self = {};             // kMethod, kLoopMethod
  const Stmt* body = nullptr;  // kMacro: the macro, call or generation statement
  Scope* scope = nullptr;      // kMacro: where it was defined
};

/// What filters, tests and methods need of the interpreter.
class Runtime {
 public:
  virtual ~Runtime() = default;
  [[nodiscard]] virtual Value call_filter(std::string_view name, const Value& input,
                                          const CallArgs& args) = 0;
  [[nodiscard]] virtual bool call_test(std::string_view name, const Value& input,
                                       const CallArgs& args) = 0;
  Budget budget;
};

/// Arguments of a built-in by parameter name; absent ones are null.
class Bound {
 public:
  /// @throws Error on too many, unknown, doubled or (the first `required`) missing arguments.
  Bound(std::string_view function, const CallArgs& args,
        std::initializer_list<std::string_view> names, size_t required = 0);
  [[nodiscard]] const Value* operator[](size_t i) const { return values_[i]; }
  [[nodiscard]] bool flag(size_t i, bool otherwise) const {
    return values_[i] == nullptr ? otherwise : values_[i]->truthy();
  }
  /// @throws Error if given and no integer.
  [[nodiscard]] int64_t integer(size_t i, int64_t otherwise) const;
  /// @throws Error if given and no string.
  [[nodiscard]] std::string_view text(size_t i, std::string_view otherwise) const;
  [[nodiscard]] bool given(size_t i) const {
    return values_[i] != nullptr && !values_[i]->is(Kind::kNone);
  }

 private:
  std::string function_;
  std::vector<const Value*> values_;
};

/// Fails with the reason if `value` is undefined.
void require_defined(const Value& value);

enum class Binary : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
[[nodiscard]] Value binary(Binary op, const Value& a, const Value& b, Budget& budget);
[[nodiscard]] Value negate(const Value& a, bool minus);
[[nodiscard]] bool contains(const Value& container, const Value& item, Budget& budget);

/// `obj.name` and `obj[key]` with the sandbox's rules; undefined where there is none.
[[nodiscard]] Value get_attribute(const Value& object, std::string_view name);
[[nodiscard]] Value get_item(const Value& object, const Value& key);
/// Label of the pairs that `groupby` returns, which have the attributes `grouper` and `list`.
inline constexpr std::string_view kGroupLabel = "group";
/// `a.b.0` from a filter's `attribute` argument.
[[nodiscard]] Value get_path(const Value& object, const Value& path);

/// Text, then sequence filters; null if the name is none of theirs.
using Filter = Value (*)(Runtime&, const Value& input, const CallArgs& args);
[[nodiscard]] Filter find_filter(std::string_view name);
[[nodiscard]] Filter find_text_filter(std::string_view name);
[[nodiscard]] Filter find_number_filter(std::string_view name);
[[nodiscard]] Filter find_sequence_filter(std::string_view name);
using Test = bool (*)(Runtime&, const Value& input, const CallArgs& args);
[[nodiscard]] Test find_test(std::string_view name);

/// Whether `value.name` is a method, and its call.
[[nodiscard]] bool has_method(const Value& value, std::string_view name);
[[nodiscard]] Value call_method(Runtime& runtime, const Callable& method, const CallArgs& args);
[[nodiscard]] bool has_string_method(std::string_view name);
[[nodiscard]] Value call_string_method(Runtime& runtime, const Callable& method,
                                       const CallArgs& args);

/// `text % values` and `text.format(...)`.
[[nodiscard]] std::string format_percent(const std::string& text, const Value& values,
                                         Budget& budget);
[[nodiscard]] std::string format_braces(const std::string& text, const CallArgs& args,
                                        Budget& budget);

/// HTML escaping as markupsafe does it.
[[nodiscard]] std::string escape_html(std::string_view text);

}  // namespace temper::jinja
