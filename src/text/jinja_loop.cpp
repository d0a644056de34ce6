#include "jinja_interpreter.h"
#include "temper/core/error.h"

namespace temper::jinja {

bool Interpreter::passes(const Loop& loop, const Value& item) {
  budget.charge();
  if (loop.test == nullptr) return true;
  Scope* const outer = scope_;
  scope_ = new_scope(loop.scope);
  assign(*loop.statement->target, item);
  const bool passed = evaluate(*loop.test).truthy();
  scope_ = outer;
  return passed;
}

/// The next item that passes the condition.
std::optional<Value> Interpreter::pull(Loop& loop) {
  while (loop.next < loop.items.size()) {
    const Value& item = loop.items[loop.next++];
    if (passes(loop, item)) return item;
  }
  return std::nullopt;
}

const std::optional<Value>& Interpreter::peek(Loop& loop) {
  if (!loop.ahead.has_value()) loop.ahead = pull(loop);
  return loop.ahead;
}

bool Interpreter::advance(Loop& loop) {
  if (!peek(loop).has_value()) return false;
  loop.before = std::move(loop.current);
  loop.current = std::move(loop.ahead);
  loop.ahead.reset();
  ++loop.index0;
  return true;
}

int64_t Interpreter::loop_length(Loop& loop) {
  if (loop.length.has_value()) return *loop.length;
  if (loop.test != nullptr) {
    Values rest;
    while (std::optional<Value> item = pull(loop)) rest.push_back(std::move(*item));
    loop.length = loop.index0 + 1 + loop.ahead.has_value() + int64_t(rest.size());
    loop.items = std::move(rest);
    loop.next = 0;
    loop.test = nullptr;
  } else {
    loop.length = int64_t(loop.items.size());
  }
  return *loop.length;
}

Value Interpreter::loop_attribute(Loop& loop, const std::string& name) {
  const int64_t index = loop.index0 + 1;
  if (name == "index") return Value(index);
  if (name == "index0") return Value(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(!peek(loop).has_value());
  if (name == "length") return Value(loop_length(loop));
  if (name == "revindex") return Value(loop_length(loop) - loop.index0);
  if (name == "revindex0") return Value(loop_length(loop) - index);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") {
    if (loop.index0 > 0) return *loop.before;
    return Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    const std::optional<Value>& item = peek(loop);
    return item.has_value() ? *item : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    return Value(Callable{.type = Callable::Type::kLoopMethod, .name = name, .self = Value(&loop)});
  }
  return Value::undefined(concat("'LoopContext' object has no attribute '", name, "'"));
}

Value Interpreter::loop_method(Loop& loop, const std::string& name, const CallArgs& args) {
  TEMPER_CHECK(args.keyword.empty(), "loop.", name, " takes no keyword arguments");
  const Values& values = args.positional;
  if (name == "cycle") {
    TEMPER_CHECK(!values.empty(), "loop.cycle: no items given");
    return values[size_t(loop.index0) % values.size()];
  }
  const Value now = Value::sequence(Kind::kTuple, values);
  const bool same =
      loop.changed.has_value() && equals(now, Value::sequence(Kind::kTuple, *loop.changed), budget);
  if (!same) loop.changed = values;
  return Value(!same);
}

/// `loop(children)` in a recursive loop: the text of its body over `children`.
Value Interpreter::call_loop(Loop& loop, const CallArgs& args) {
  TEMPER_CHECK(loop.statement->recursive, "only a loop marked 'recursive' can be called");
  const Bound bound("loop", args, {"iterable"}, 1);
  TEMPER_CHECK(++calls_ <= kMaxDepth, "calls nested deeper than ", kMaxDepth, " levels");
  std::string text;
  std::string* const outer_out = std::exchange(out_, &text);
  Scope* const outer_scope = std::exchange(scope_, loop.scope);
  ++buffers_;
  run_loop(*loop.statement, *bound[0], loop.depth0 + 1);
  --buffers_;
  scope_ = outer_scope;
  out_ = outer_out;
  --calls_;
  return Value(std::move(text));
}

}  // namespace temper::jinja
