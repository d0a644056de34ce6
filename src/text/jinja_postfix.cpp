#include "jinja_parser.h"
#include "temper/core/error.h"

/// Subscripts, calls, filters and tests: what follows a primary expression.
namespace temper::jinja {
namespace {

std::vector<ExprPtr> one(ExprPtr item) {
  std::vector<ExprPtr> items;
  items.push_back(std::move(item));
  return items;
}

}  // namespace

ExprPtr Parser::parse_filters(ExprPtr node) {
  while (true) {
    if (current().is_operator("|")) {
      node = parse_pipe(std::move(node), false);
    } else if (current().is_name("is")) {
      node = parse_test(std::move(node));
    } else if (current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::parse_subscript(ExprPtr node) {
  const Token& token = next();
  if (token.text == ".") {
    const Token& name = next();
    if (name.type == TokenType::kName) {
      node = make(ExprType::kAttribute, token.line, one(std::move(node)));
      node->name = name.text;
      return node;
    }
    if (name.type != TokenType::kInteger)
      fail_at(name.line, "expected a name or number behind '.'");
    ExprPtr index = make(ExprType::kConstant, token.line);
    index->constant = Value(name.integer);
    std::vector<ExprPtr> items = one(std::move(node));
    items.push_back(std::move(index));
    return make(ExprType::kItem, token.line, std::move(items));
  }
  std::vector<ExprPtr> keys;
  while (!current().is_operator("]")) {
    if (!keys.empty()) expect_operator(",");
    keys.push_back(parse_subscribed());
  }
  expect_operator("]");
  std::vector<ExprPtr> items = one(std::move(node));
  const bool single = keys.size() == 1;
  items.push_back(single ? std::move(keys[0])
                         : make(ExprType::kTuple, token.line, std::move(keys)));
  return make(ExprType::kItem, token.line, std::move(items));
}

ExprPtr Parser::parse_subscribed() {
  const int line = current().line;
  std::vector<ExprPtr> parts(3);
  if (!current().is_operator(":")) {
    parts[0] = parse_expression();
    if (!current().is_operator(":")) return std::move(parts[0]);
  }
  next();
  const auto ends = [&] { return current().is_operator("]") || current().is_operator(","); };
  if (!ends() && !current().is_operator(":")) parts[1] = parse_expression();
  if (skip_operator(":") && !ends()) parts[2] = parse_expression();
  return make(ExprType::kSlice, line, std::move(parts));
}

std::unique_ptr<Arguments> Parser::parse_arguments() {
  const int line = current().line;
  expect_operator("(");
  auto arguments = std::make_unique<Arguments>();
  const auto ensure = [&](bool ok) {
    if (!ok) fail_at(line, "wrong order of arguments in a call");
  };
  bool first = true;
  while (!current().is_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (current().is_operator(")")) break;
    }
    first = false;
    if (skip_operator("*")) {
      ensure(arguments->star == nullptr && arguments->double_star == nullptr);
      arguments->star = parse_expression();
    } else if (skip_operator("**")) {
      ensure(arguments->double_star == nullptr);
      arguments->double_star = parse_expression();
    } else if (current().type == TokenType::kName && look().is_operator("=")) {
      ensure(arguments->double_star == nullptr);
      std::string name = next().text;
      next();
      for (const auto& other : arguments->keyword) {
        if (other.first == name) fail_at(line, concat("argument '", name, "' is given twice"));
      }
      arguments->keyword.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(arguments->star == nullptr && arguments->double_star == nullptr &&
             arguments->keyword.empty());
      arguments->positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return arguments;
}

ExprPtr Parser::parse_call(ExprPtr node) {
  const int line = current().line;
  auto arguments = parse_arguments();
  ExprPtr call = make(ExprType::kCall, line, one(std::move(node)));
  call->arguments = std::move(arguments);
  return finish(std::move(call));
}

/// `| name(...)` as often as it comes; null if there is none and `node` is null.
ExprPtr Parser::parse_pipe(ExprPtr node, bool first_without_pipe) {
  while (first_without_pipe || current().is_operator("|")) {
    if (!first_without_pipe) next();
    first_without_pipe = false;
    const int line = current().line;
    std::string name = expect_name("a filter name");
    while (skip_operator(".")) name += "." + expect_name("a filter name");
    check_known(true, name, line);
    ExprPtr filter = make(ExprType::kFilter, line, one(std::move(node)));
    filter->name = std::move(name);
    filter->arguments =
        current().is_operator("(") ? parse_arguments() : std::make_unique<Arguments>();
    node = finish(std::move(filter));
  }
  return node;
}

ExprPtr Parser::parse_test(ExprPtr node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  std::string name = expect_name("a test name");
  while (skip_operator(".")) name += "." + expect_name("a test name");
  check_known(false, name, line);
  ExprPtr test = make(ExprType::kTest, line, one(std::move(node)));
  test->name = std::move(name);
  test->arguments = std::make_unique<Arguments>();
  const Token& token = current();
  const bool starts_argument = token.type == TokenType::kName || token.type == TokenType::kString ||
                               token.type == TokenType::kInteger ||
                               token.type == TokenType::kFloat || token.is_operator("[") ||
                               token.is_operator("{");
  if (token.is_operator("(")) {
    test->arguments = parse_arguments();
  } else if (starts_argument && !token.is_name("else") && !token.is_name("or") &&
             !token.is_name("and")) {
    if (token.is_name("is")) fail_at(line, "tests with 'is' cannot be chained");
    test->arguments->positional.push_back(parse_postfix(parse_primary()));
  }
  test = finish(std::move(test));
  return negated ? make(ExprType::kNot, line, one(std::move(test))) : std::move(test);
}

}  // namespace temper::jinja
