#include <algorithm>

#include "jinja_parser.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

/// Chains such as a + b + c nest to the left without recursion of the parser; evaluating and
/// destroying them recurses.
constexpr int kMaxHeight = 200;

template <class... Items>
std::vector<ExprPtr> list_of(Items... items) {
  std::vector<ExprPtr> list;
  (list.push_back(std::move(items)), ...);
  return list;
}

}  // namespace

ExprPtr Parser::make(ExprType type, int line, std::vector<ExprPtr> items) const {
  auto node = std::make_unique<Expr>();
  node->type = type;
  node->line = line;
  node->items = std::move(items);
  return finish(std::move(node));
}

ExprPtr Parser::finish(ExprPtr node) const {
  int height = 0;
  const auto visit = [&](const ExprPtr& child) {
    if (child != nullptr) height = std::max(height, child->height);
  };
  for (const ExprPtr& item : node->items) visit(item);
  if (node->arguments != nullptr) {
    for (const ExprPtr& argument : node->arguments->positional) visit(argument);
    for (const auto& argument : node->arguments->keyword) visit(argument.second);
    visit(node->arguments->star);
    visit(node->arguments->double_star);
  }
  node->height = height + 1;
  if (node->height > kMaxHeight) {
    fail_at(node->line, concat("expression chained over more than ", kMaxHeight, " operators"));
  }
  return node;
}

ExprPtr Parser::parse_expression(bool with_condition) {
  enter();
  ExprPtr node = with_condition ? parse_condition() : parse_or();
  --depth_;
  return node;
}

ExprPtr Parser::parse_condition() {
  ExprPtr node = parse_or();
  while (current().is_name("if")) {
    const int line = next().line;
    ExprPtr test = parse_or();
    ExprPtr otherwise;
    if (skip_name("else")) otherwise = parse_expression();
    node = make(ExprType::kCondition, line,
                list_of(std::move(test), std::move(node), std::move(otherwise)));
  }
  return node;
}

ExprPtr Parser::parse_or() {
  ExprPtr node = parse_and();
  while (current().is_name("or")) {
    const int line = next().line;
    ExprPtr right = parse_and();
    node = make(ExprType::kOr, line, list_of(std::move(node), std::move(right)));
  }
  return node;
}

ExprPtr Parser::parse_and() {
  ExprPtr node = parse_not();
  while (current().is_name("and")) {
    const int line = next().line;
    ExprPtr right = parse_not();
    node = make(ExprType::kAnd, line, list_of(std::move(node), std::move(right)));
  }
  return node;
}

ExprPtr Parser::parse_not() {
  std::vector<int> lines;
  while (current().is_name("not")) lines.push_back(next().line);
  ExprPtr node = parse_compare();
  for (; !lines.empty(); lines.pop_back()) {
    node = make(ExprType::kNot, lines.back(), list_of(std::move(node)));
  }
  return node;
}

ExprPtr Parser::parse_compare() {
  ExprPtr first = parse_sum();
  const int line = current().line;
  std::vector<std::string> names;
  std::vector<ExprPtr> items = list_of(std::move(first));
  while (true) {
    static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
    const Token& token = current();
    if (token.type == TokenType::kOperator &&
        std::find(std::begin(kOperators), std::end(kOperators), token.text) !=
            std::end(kOperators)) {
      names.push_back(next().text);
    } else if (skip_name("in")) {
      names.emplace_back("in");
    } else if (token.is_name("not") && look().is_name("in")) {
      next();
      next();
      names.emplace_back("not in");
    } else {
      break;
    }
    items.push_back(parse_sum());
  }
  if (names.empty()) return std::move(items[0]);
  ExprPtr node = make(ExprType::kCompare, line, std::move(items));
  node->names = std::move(names);
  return node;
}

ExprPtr Parser::parse_sum() {
  ExprPtr node = parse_concat();
  while (current().is_operator("+") || current().is_operator("-")) {
    const Token& op = next();
    ExprPtr right = parse_concat();
    node = make(ExprType::kBinary, op.line, list_of(std::move(node), std::move(right)));
    node->name = op.text;
  }
  return node;
}

ExprPtr Parser::parse_concat() {
  ExprPtr first = parse_product();
  if (!current().is_operator("~")) return first;
  const int line = current().line;
  std::vector<ExprPtr> items = list_of(std::move(first));
  while (skip_operator("~")) items.push_back(parse_product());
  return make(ExprType::kConcat, line, std::move(items));
}

ExprPtr Parser::parse_product() {
  ExprPtr node = parse_power();
  while (current().is_operator("*") || current().is_operator("/") || current().is_operator("//") ||
         current().is_operator("%")) {
    const Token& op = next();
    ExprPtr right = parse_power();
    node = make(ExprType::kBinary, op.line, list_of(std::move(node), std::move(right)));
    node->name = op.text;
  }
  return node;
}

ExprPtr Parser::parse_power() {
  ExprPtr node = parse_unary(true);
  while (current().is_operator("**")) {
    const Token& op = next();
    ExprPtr right = parse_unary(true);
    node = make(ExprType::kBinary, op.line, list_of(std::move(node), std::move(right)));
    node->name = op.text;
  }
  return node;
}

ExprPtr Parser::parse_unary(bool with_filters) {
  ExprPtr node;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Token& op = next();
    enter();
    node = make(ExprType::kUnary, op.line, list_of(parse_unary(false)));
    --depth_;
    node->name = op.text;
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters(std::move(node)) : std::move(node);
}

ExprPtr Parser::parse_name(bool namespace_targets) {
  const Token& token = next();
  ExprPtr node = make(ExprType::kConstant, token.line);
  if (token.text == "true" || token.text == "True") {
    node->constant = Value(true);
  } else if (token.text == "false" || token.text == "False") {
    node->constant = Value(false);
  } else if (token.text != "none" && token.text != "None") {
    node->type = ExprType::kName;
    node->name = token.text;
    if (namespace_targets && skip_operator(".")) {
      node->type = ExprType::kNamespaceTarget;
      node->names.push_back(expect_name("an attribute name"));
    }
    for (Function& function : functions_) {
      function.caller |= token.text == "caller";
      function.varargs |= token.text == "varargs";
      function.kwargs |= token.text == "kwargs";
    }
  }
  return node;
}

ExprPtr Parser::parse_primary(bool namespace_targets) {
  const Token& token = current();
  if (token.type == TokenType::kName) return parse_name(namespace_targets);
  if (token.type == TokenType::kString) {
    ExprPtr node = make(ExprType::kConstant, token.line);
    std::string text;
    while (current().type == TokenType::kString) text += next().text;
    node->constant = Value(std::move(text));
    return node;
  }
  if (token.type == TokenType::kInteger || token.type == TokenType::kFloat) {
    next();
    ExprPtr node = make(ExprType::kConstant, token.line);
    node->constant = token.type == TokenType::kInteger ? Value(token.integer) : Value(token.real);
    return node;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  if (skip_operator("(")) {
    ExprPtr node = parse_tuple({.parentheses = true});
    expect_operator(")");
    return node;
  }
  fail_at(token.line, concat("expected an expression, got ", token.describe()));
}

/// One expression, or several with commas between them.
ExprPtr Parser::parse_tuple(const TupleRules& rules) {
  const int line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    const Token& token = current();
    const bool ends = token.type == TokenType::kVariableEnd || token.type == TokenType::kBlockEnd ||
                      token.is_operator(")");
    if (ends) break;
    items.push_back(rules.targets ? parse_primary(rules.namespaces)
                                  : parse_expression(rules.condition));
    if (!current().is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !rules.parentheses) {
    fail_at(line, concat("expected an expression, got ", current().describe()));
  }
  return make(ExprType::kTuple, line, std::move(items));
}

ExprPtr Parser::parse_list() {
  const int line = next().line;
  std::vector<ExprPtr> items;
  while (!current().is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    items.push_back(parse_expression());
  }
  expect_operator("]");
  return make(ExprType::kList, line, std::move(items));
}

ExprPtr Parser::parse_dict() {
  const int line = next().line;
  std::vector<ExprPtr> items;
  while (!current().is_operator("}")) {
    if (!items.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    items.push_back(parse_expression());
    expect_operator(":");
    items.push_back(parse_expression());
  }
  expect_operator("}");
  return make(ExprType::kDict, line, std::move(items));
}

ExprPtr Parser::parse_postfix(ExprPtr node) {
  while (true) {
    if (current().is_operator(".") || current().is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::parse_target(bool namespaces) {
  ExprPtr target = parse_tuple({.targets = true, .namespaces = namespaces});
  check_target(*target);
  return target;
}

void Parser::check_target(const Expr& target) const {
  if (target.type == ExprType::kTuple) {
    for (const ExprPtr& item : target.items) check_target(*item);
  } else if (target.type != ExprType::kName && target.type != ExprType::kNamespaceTarget) {
    fail_at(target.line, "this cannot be assigned to: expected a name");
  }
}

}  // namespace temper::jinja
