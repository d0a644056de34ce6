#pragma once

#include <algorithm>
#include <string_view>

#include "jinja_ast.h"
#include "jinja_lexer.h"

namespace temper::jinja {

/// Recursive descent over the tokens of one template, in the precedence of Jinja:
/// `if else` < `or` < `and` < `not` < comparisons < `+ -` < `~` < `* / // %` < `**` < signs.
class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  /// @throws Error with the line and what was expected.
  [[nodiscard]] Body parse();
  [[nodiscard]] bool has_generation() const { return has_generation_; }

 private:
  /// What the innermost macro, call block or generation block may refer to.
  struct Function {
    bool caller = false, varargs = false, kwargs = false;
    int loops = 0;
  };

  // Tokens.
  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next();
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  std::string expect_name(std::string_view what);
  void expect_keyword(std::string_view name);
  void expect_type(TokenType type, std::string_view what);
  [[noreturn]] void fail_at(int line, const std::string& message) const;
  void enter();  ///< One level deeper, within kMaxDepth.

  // Statements.
  using Ends = std::vector<std::string_view>;
  Body parse_body(const Ends& ends);
  Body parse_block(const Ends& ends);
  Body parse_function_body(std::string_view end, Stmt& stmt);
  Body parse_buffered(std::string_view end);
  void close(std::string_view end);
  std::unique_ptr<Stmt> parse_statement();
  std::unique_ptr<Stmt> parse_known(const std::string& tag, int line);
  std::unique_ptr<Stmt> parse_for();
  std::unique_ptr<Stmt> parse_if();
  std::unique_ptr<Stmt> parse_set();
  std::unique_ptr<Stmt> parse_macro();
  std::unique_ptr<Stmt> parse_call_block();
  std::unique_ptr<Stmt> parse_with();
  void parse_print(Body& body);
  void parse_signature(Stmt& stmt);
  void append_output(Body& body);
  std::unique_ptr<Stmt> make_stmt(StmtType type) const;

  // Expressions.
  ExprPtr parse_expression(bool with_condition = true);
  ExprPtr parse_condition();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_primary(bool namespace_targets = false);
  ExprPtr parse_name(bool namespace_targets);
  struct TupleRules {
    bool targets = false;   ///< Names and literals only, for assignments.
    bool condition = true;  ///< `a if b else c` is allowed.
    bool parentheses = false;
    bool namespaces = false;
  };
  ExprPtr parse_tuple(const TupleRules& rules);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_subscribed();
  std::unique_ptr<Arguments> parse_arguments();
  ExprPtr parse_call(ExprPtr node);
  ExprPtr parse_pipe(ExprPtr node, bool first_without_pipe);
  ExprPtr parse_test(ExprPtr node);
  ExprPtr parse_target(bool namespaces);
  void check_target(const Expr& target) const;
  void check_known(bool filter, const std::string& name, int line) const;
  ExprPtr make(ExprType type, int line, std::vector<ExprPtr> items = {}) const;
  ExprPtr finish(ExprPtr node) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int conditional_ = 0;  // inside if: unknown filters fail only when they are reached
  bool has_generation_ = false;
  std::vector<std::string> open_tags_;
  std::vector<Function> functions_ = {Function{}};
};

}  // namespace temper::jinja
