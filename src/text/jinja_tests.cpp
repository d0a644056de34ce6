#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

/// What stands behind `is`.
namespace temper::jinja {
namespace {

struct Entry {
  std::string_view name;
  Test test;
};

void no_arguments(const CallArgs& args) { const Bound bound("this test", args, {}); }

const Value& only_argument(const CallArgs& args) {
  return *Bound("this test", args, {"other"}, 1)[0];
}

template <Kind... kKinds>
bool is_kind(Runtime&, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return (input.is(kKinds) || ...);
}

template <bool kValue>
bool is_bool(Runtime&, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return input.is(Kind::kBool) && (input.integer() != 0) == kValue;
}

bool is_defined(Runtime&, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return !input.is_undefined();
}

bool is_filter(Runtime&, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return input.is_string() && find_filter(input.text()) != nullptr;
}

bool is_test(Runtime&, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return input.is_string() && find_test(input.text()) != nullptr;
}

bool is_escaped(Runtime&, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return input.is_markup();
}

bool is_same(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Value& other = only_argument(args);
  if (input.kind() != other.kind()) return false;
  if (input.is_sequence()) return &input.items() == &other.items();
  if (input.is_dict()) return &input.dict() == &other.dict();
  return equals(input, other, runtime.budget);
}

bool is_in(Runtime& runtime, const Value& input, const CallArgs& args) {
  return contains(only_argument(args), input, runtime.budget);
}

template <bool kNegated>
bool is_equal(Runtime& runtime, const Value& input, const CallArgs& args) {
  return equals(input, only_argument(args), runtime.budget) != kNegated;
}

template <bool kSwap, bool kOrEqual>
bool is_less(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Value& other = only_argument(args);
  return kSwap ? less(other, input, kOrEqual, runtime.budget)
               : less(input, other, kOrEqual, runtime.budget);
}

bool remainder_is(Runtime& runtime, const Value& input, const Value& by, int64_t wanted) {
  return equals(binary(Binary::kMod, input, by, runtime.budget), Value(wanted), runtime.budget);
}

template <int64_t kRest>
bool has_parity(Runtime& runtime, const Value& input, const CallArgs& args) {
  no_arguments(args);
  return remainder_is(runtime, input, Value(int64_t{2}), kRest);
}

bool is_divisible(Runtime& runtime, const Value& input, const CallArgs& args) {
  return remainder_is(runtime, input, only_argument(args), 0);
}

template <bool kUpper>
bool has_case(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Callable method{.type = Callable::Type::kMethod,
                        .name = kUpper ? "isupper" : "islower",
                        .self = Value(to_text(input))};
  return call_string_method(runtime, method, args).truthy();
}

constexpr Entry kTests[] = {
    {"defined", is_defined},
    {"undefined", is_kind<Kind::kUndefined>},
    {"none", is_kind<Kind::kNone>},
    {"boolean", is_kind<Kind::kBool>},
    {"true", is_bool<true>},
    {"false", is_bool<false>},
    {"integer", is_kind<Kind::kInt>},
    {"float", is_kind<Kind::kFloat>},
    {"number", is_kind<Kind::kInt, Kind::kFloat, Kind::kBool>},
    {"string", is_kind<Kind::kString>},
    {"mapping", is_kind<Kind::kDict>},
    // An undefined value has a length, but Python finds no item access on its class by that name.
    {"sequence", is_kind<Kind::kString, Kind::kList, Kind::kTuple, Kind::kDict, Kind::kRange,
                         Kind::kUndefined>},
    {"iterable", is_kind<Kind::kString, Kind::kList, Kind::kTuple, Kind::kDict, Kind::kRange,
                         Kind::kView, Kind::kIterator, Kind::kUndefined, Kind::kLoop>},
    {"callable", is_kind<Kind::kCallable, Kind::kLoop, Kind::kUndefined>},
    {"filter", is_filter},
    {"test", is_test},
    {"escaped", is_escaped},
    {"sameas", is_same},
    {"in", is_in},
    {"==", is_equal<false>},
    {"eq", is_equal<false>},
    {"equalto", is_equal<false>},
    {"!=", is_equal<true>},
    {"ne", is_equal<true>},
    {"<", is_less<false, false>},
    {"lt", is_less<false, false>},
    {"lessthan", is_less<false, false>},
    {"<=", is_less<false, true>},
    {"le", is_less<false, true>},
    {">", is_less<true, false>},
    {"gt", is_less<true, false>},
    {"greaterthan", is_less<true, false>},
    {">=", is_less<true, true>},
    {"ge", is_less<true, true>},
    {"odd", has_parity<1>},
    {"even", has_parity<0>},
    {"divisibleby", is_divisible},
    {"lower", has_case<false>},
    {"upper", has_case<true>},
};

}  // namespace

Test find_test(std::string_view name) {
  for (const Entry& entry : kTests) {
    if (entry.name == name) return entry.test;
  }
  return nullptr;
}

}  // namespace temper::jinja
