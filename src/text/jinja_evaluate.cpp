#include <algorithm>

#include "jinja_interpreter.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

/// Levels of statements and expressions within each other, over all macro calls: keeps the native
/// stack below two megabytes.
constexpr int kMaxEvaluationDepth = 800;

Binary binary_operator(const std::string& name) {
  if (name == "+") return Binary::kAdd;
  if (name == "-") return Binary::kSub;
  if (name == "*") return Binary::kMul;
  if (name == "/") return Binary::kDiv;
  if (name == "//") return Binary::kFloorDiv;
  if (name == "%") return Binary::kMod;
  return Binary::kPow;
}

bool compare(const std::string& op, const Value& a, const Value& b, Budget& budget) {
  if (op == "==") return equals(a, b, budget);
  if (op == "!=") return !equals(a, b, budget);
  if (op == "in") return contains(b, a, budget);
  if (op == "not in") return !contains(b, a, budget);
  if (op == "<") return less(a, b, false, budget);
  if (op == "<=") return less(a, b, true, budget);
  if (op == ">") return less(b, a, false, budget);
  return less(b, a, true, budget);
}

}  // namespace

const Value& Interpreter::charge(const Value& value) {
  if (value.is_string()) {
    budget.charge_text(value.text().size());
  } else if (value.is_sequence()) {
    budget.charge(value.items().size() / 8);
  } else if (value.is_dict()) {
    budget.charge(value.dict().entries().size() / 4);
  }
  return value;
}

Value Interpreter::evaluate(const Expr& expr) {
  budget.charge();
  const int outer_line = line_;
  line_ = expr.line;
  TEMPER_CHECK(++depth_ <= kMaxEvaluationDepth, "evaluation nested deeper than ",
               kMaxEvaluationDepth, " levels");
  Value value = evaluate_node(expr);
  --depth_;
  line_ = outer_line;
  return value;
}

Values Interpreter::evaluate_all(const std::vector<ExprPtr>& items) {
  Values values;
  values.reserve(items.size());
  for (const ExprPtr& item : items) values.push_back(item ? evaluate(*item) : Value());
  return values;
}

Value Interpreter::evaluate_node(const Expr& expr) {
  switch (expr.type) {
    case ExprType::kConstant: return expr.constant;
    case ExprType::kName: return lookup(expr.name);
    case ExprType::kList: return Value::list(evaluate_all(expr.items));
    case ExprType::kTuple: return Value::sequence(Kind::kTuple, evaluate_all(expr.items));
    case ExprType::kSlice: return Value::sequence(Kind::kSlice, evaluate_all(expr.items));
    case ExprType::kDict: return evaluate_dict(expr);
    case ExprType::kUnary: return negate(evaluate(*expr.items[0]), expr.name == "-");
    case ExprType::kNot: return Value(!evaluate(*expr.items[0]).truthy());
    case ExprType::kAnd: {
      Value left = evaluate(*expr.items[0]);
      return left.truthy() ? evaluate(*expr.items[1]) : left;
    }
    case ExprType::kOr: {
      Value left = evaluate(*expr.items[0]);
      return left.truthy() ? left : evaluate(*expr.items[1]);
    }
    case ExprType::kBinary: {
      const Value left = evaluate(*expr.items[0]);
      const Value right = evaluate(*expr.items[1]);
      return charge(binary(binary_operator(expr.name), left, right, budget));
    }
    case ExprType::kConcat: return evaluate_concat(expr);
    case ExprType::kCompare: return evaluate_compare(expr);
    case ExprType::kCondition: return evaluate_condition(expr);
    case ExprType::kAttribute: return attribute(evaluate(*expr.items[0]), expr.name);
    case ExprType::kItem: return evaluate_item(expr);
    case ExprType::kCall: return evaluate_call(expr, nullptr);
    case ExprType::kFilter: return evaluate_filter(expr);
    case ExprType::kTest: {
      const Value input = evaluate(*expr.items[0]);
      return Value(call_test(expr.name, input, evaluate_arguments(*expr.arguments)));
    }
    case ExprType::kNamespaceTarget: break;
  }
  fail("this expression has no value");
}

Value Interpreter::evaluate_condition(const Expr& expr) {
  if (evaluate(*expr.items[0]).truthy()) return evaluate(*expr.items[1]);
  if (expr.items[2] != nullptr) return evaluate(*expr.items[2]);
  return Value::undefined(concat("the inline if-expression on line ", expr.line,
                                 " evaluated to false and no else section was defined."));
}

Value Interpreter::evaluate_dict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i < expr.items.size(); i += 2) {
    const Value key = evaluate(*expr.items[i]);
    dict.set(key, evaluate(*expr.items[i + 1]));
  }
  return Value(std::move(dict));
}

Value Interpreter::evaluate_concat(const Expr& expr) {
  std::string text;
  for (const ExprPtr& item : expr.items) {
    const std::string part = to_text(evaluate(*item));
    check_text_size(text.size() + part.size());
    text += part;
  }
  return charge(Value(std::move(text)));
}

Value Interpreter::evaluate_compare(const Expr& expr) {
  Value left = evaluate(*expr.items[0]);
  for (size_t i = 0; i < expr.names.size(); ++i) {
    Value right = evaluate(*expr.items[i + 1]);
    if (!compare(expr.names[i], left, right, budget)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_filter(const Expr& expr) {
  const Value input = expr.items[0] ? evaluate(*expr.items[0]) : *block_text_;
  return call_filter(expr.name, input, evaluate_arguments(*expr.arguments));
}

Value Interpreter::call_filter(std::string_view name, const Value& input, const CallArgs& args) {
  if (input.is(Kind::kLoop) && (name == "length" || name == "count")) {
    return Value(loop_length(input.loop()));
  }
  const Filter filter = find_filter(name);
  TEMPER_CHECK(filter != nullptr, "no filter named '", name, "'");
  // Filters that call filters (map) nest without syntax around them.
  TEMPER_CHECK(++depth_ <= kMaxEvaluationDepth, "filters nested too deep");
  budget.charge();
  charge(input);
  Value value = filter(*this, input, args);
  --depth_;
  return charge(value);
}

bool Interpreter::call_test(std::string_view name, const Value& input, const CallArgs& args) {
  const Test test = find_test(name);
  TEMPER_CHECK(test != nullptr, "no test named '", name, "'");
  budget.charge();
  return test(*this, input, args);
}

Value Interpreter::evaluate_item(const Expr& expr) {
  const Value object = evaluate(*expr.items[0]);
  const Value key = evaluate(*expr.items[1]);
  if (object.is_string()) charge(object);  // code points are counted from the start
  if (object.is(Kind::kLoop) && key.is_string()) return attribute(object, key.text());
  Value value = get_item(object, key);
  return key.is(Kind::kSlice) ? charge(value) : value;
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  return object.is(Kind::kLoop) ? loop_attribute(object.loop(), name) : get_attribute(object, name);
}

CallArgs Interpreter::evaluate_arguments(const Arguments& arguments) {
  CallArgs args;
  args.positional = evaluate_all(arguments.positional);
  for (const auto& [name, expr] : arguments.keyword) {
    args.keyword.emplace_back(name, evaluate(*expr));
  }
  if (arguments.star != nullptr) {
    for (Value& item : iterate(charge(evaluate(*arguments.star)))) {
      args.positional.push_back(std::move(item));
    }
  }
  if (arguments.double_star != nullptr) {
    const Value more = charge(evaluate(*arguments.double_star));
    TEMPER_CHECK(more.is_dict(), "argument after ** must be a mapping, not ", type_name(more));
    for (const auto& [key, value] : more.dict().entries()) {
      TEMPER_CHECK(key.is_string(), "keywords must be strings");
      for (const auto& other : args.keyword) {
        budget.charge();
        TEMPER_CHECK(other.first != key.text(), "argument '", key.text(), "' is given twice");
      }
      args.keyword.emplace_back(key.text(), value);
    }
  }
  return args;
}

Value Interpreter::evaluate_call(const Expr& expr, const Value* caller) {
  const Value callee = evaluate(*expr.items[0]);
  CallArgs args = evaluate_arguments(*expr.arguments);
  if (caller != nullptr) args.keyword.emplace_back("caller", *caller);
  line_ = expr.line;
  return charge(call(callee, args));
}

Value Interpreter::lookup(std::string_view name) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    const auto it = scope->variables.find(name);
    if (it != scope->variables.end()) return it->second;
  }
  if (const Value* value = setup_.variables.find(name)) return *value;
  if (is_function(name)) return Value(Callable{.name = std::string(name)});
  return Value::undefined(concat("'", name, "' is undefined"));
}

}  // namespace temper::jinja
