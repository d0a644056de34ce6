#include "jinja_parser.h"

#include <algorithm>
#include <utility>

#include "jinja_runtime.h"
#include "temper/core/error.h"

namespace temper::jinja {

void Parser::enter() {
  if (++depth_ > kMaxDepth) {
    fail_at(current().line, concat("nested deeper than ", kMaxDepth, " levels"));
  }
}

const Token& Parser::next() {
  const Token& token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_operator(std::string_view op) {
  const bool hit = current().is_operator(op);
  if (hit) next();
  return hit;
}

bool Parser::skip_name(std::string_view name) {
  const bool hit = current().is_name(name);
  if (hit) next();
  return hit;
}

void Parser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) {
    fail_at(current().line, concat("expected '", op, "', got ", current().describe()));
  }
}

std::string Parser::expect_name(std::string_view what) {
  if (current().type != TokenType::kName) {
    fail_at(current().line, concat("expected ", what, ", got ", current().describe()));
  }
  return next().text;
}

void Parser::expect_keyword(std::string_view name) {
  if (!skip_name(name)) {
    fail_at(current().line, concat("expected '", name, "', got ", current().describe()));
  }
}

void Parser::expect_type(TokenType type, std::string_view what) {
  if (current().type != type) {
    fail_at(current().line, concat("expected ", what, ", got ", current().describe()));
  }
  next();
}

void Parser::fail_at(int line, const std::string& message) const {
  std::string open;
  if (!open_tags_.empty()) open = concat(" (inside {% ", open_tags_.back(), " %})");
  fail("line ", line, ": ", message, open);
}

std::unique_ptr<Stmt> Parser::make_stmt(StmtType type) const {
  auto stmt = std::make_unique<Stmt>();
  stmt->type = type;
  stmt->line = current().line;
  return stmt;
}

Body Parser::parse() {
  Body body = parse_body({});
  if (current().type != TokenType::kEnd) {
    fail_at(current().line, concat("unexpected ", current().describe()));
  }
  return body;
}

void Parser::append_output(Body& body) {
  auto stmt = make_stmt(StmtType::kOutput);
  next();
  stmt->expr = parse_tuple({});
  expect_type(TokenType::kVariableEnd, "'}}'");
  body.push_back(std::move(stmt));
}

/// Up to one of the tags `ends`, whose name is then the current token; to the end if there is none.
Body Parser::parse_body(const Ends& ends) {
  Body body;
  while (current().type != TokenType::kEnd) {
    if (current().type == TokenType::kData) {
      auto stmt = make_stmt(StmtType::kText);
      stmt->text = next().text;
      body.push_back(std::move(stmt));
    } else if (current().type == TokenType::kVariableBegin) {
      append_output(body);
    } else {
      next();  // {%
      const Token& tag = current();
      if (tag.type == TokenType::kName &&
          std::find(ends.begin(), ends.end(), tag.text) != ends.end()) {
        return body;
      }
      if (tag.is_name("print")) {
        parse_print(body);
      } else {
        body.push_back(parse_statement());
      }
      expect_type(TokenType::kBlockEnd, "'%}'");
    }
  }
  if (!ends.empty()) {
    std::string wanted;
    for (const std::string_view end : ends) wanted += concat(wanted.empty() ? "" : " or ", end);
    fail_at(current().line, concat("unexpected end of template, expected {% ", wanted, " %}"));
  }
  return body;
}

/// The rest of a tag, then its body.
Body Parser::parse_block(const Ends& ends) {
  skip_operator(":");
  expect_type(TokenType::kBlockEnd, "'%}'");
  return parse_body(ends);
}

void Parser::close(std::string_view end) { expect_keyword(end); }

std::unique_ptr<Stmt> Parser::parse_statement() {
  enter();
  const int line = current().line;
  const std::string tag = expect_name("a tag name");
  open_tags_.push_back(tag);
  auto stmt = parse_known(tag, line);
  open_tags_.pop_back();
  --depth_;
  stmt->line = line;
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_known(const std::string& tag, int line) {
  if (tag == "if") return parse_if();
  if (tag == "for") return parse_for();
  if (tag == "set") return parse_set();
  if (tag == "macro") return parse_macro();
  if (tag == "call") return parse_call_block();
  if (tag == "with") return parse_with();
  if (tag == "break" || tag == "continue") {
    if (functions_.back().loops == 0) fail_at(line, "no loop that could be left from here");
    return make_stmt(tag == "break" ? StmtType::kBreak : StmtType::kContinue);
  }
  if (tag == "generation") {
    has_generation_ = true;
    auto stmt = make_stmt(StmtType::kGeneration);
    stmt->body = parse_function_body("endgeneration", *stmt);
    return stmt;
  }
  if (tag == "filter") {
    auto stmt = make_stmt(StmtType::kFilterBlock);
    stmt->expr = parse_pipe(nullptr, true);
    stmt->body = parse_buffered("endfilter");
    return stmt;
  }
  if (tag == "autoescape") {
    auto stmt = make_stmt(StmtType::kScope);
    if (!skip_name("false") && !skip_name("False")) fail_at(line, "only false is supported");
    stmt->body = parse_block({"endautoescape"});
    close("endautoescape");
    return stmt;
  }
  for (const std::string_view other : {"block", "extends", "include", "import", "from"}) {
    if (tag == other) fail_at(line, "not supported: a chat template stands alone");
  }
  open_tags_.pop_back();
  fail_at(line, concat("unknown tag {% ", tag, " %}"));
}

std::unique_ptr<Stmt> Parser::parse_for() {
  auto stmt = make_stmt(StmtType::kFor);
  stmt->target = parse_target(false);
  expect_keyword("in");
  stmt->expr = parse_tuple({.condition = false});
  if (skip_name("if")) stmt->test = parse_expression();
  stmt->recursive = skip_name("recursive");
  ++functions_.back().loops;
  stmt->body = parse_block({"endfor", "else"});
  --functions_.back().loops;
  if (skip_name("else")) stmt->orelse = parse_block({"endfor"});
  close("endfor");
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_if() {
  auto stmt = make_stmt(StmtType::kIf);
  ++conditional_;
  const auto branch = [&](ExprPtr test, const Ends& ends) {
    stmt->branches.emplace_back(std::move(test), parse_block(ends));
  };
  branch(parse_tuple({.condition = false}), {"elif", "else", "endif"});
  while (skip_name("elif")) branch(parse_tuple({.condition = false}), {"elif", "else", "endif"});
  if (skip_name("else")) branch(nullptr, {"endif"});
  --conditional_;
  close("endif");
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_set() {
  auto stmt = make_stmt(StmtType::kSet);
  stmt->target = parse_target(true);
  if (skip_operator("=")) {
    stmt->expr = parse_tuple({});
    return stmt;
  }
  stmt->type = StmtType::kSetBlock;
  stmt->expr = parse_pipe(nullptr, false);
  stmt->body = parse_buffered("endset");
  return stmt;
}

void Parser::parse_signature(Stmt& stmt) {
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (!stmt.parameters.empty()) expect_operator(",");
    const int line = current().line;
    stmt.parameters.push_back(expect_name("a parameter name"));
    if (skip_operator("=")) {
      stmt.defaults.push_back(parse_expression());
    } else if (!stmt.defaults.empty()) {
      fail_at(line, concat("parameter '", stmt.parameters.back(), "' needs a default too"));
    }
  }
  expect_operator(")");
}

/// A body that becomes a function of its own: no loop of the outside can be left from it.
Body Parser::parse_function_body(std::string_view end, Stmt& stmt) {
  functions_.emplace_back();
  Body body = parse_block({end});
  stmt.uses_caller = functions_.back().caller;
  stmt.uses_varargs = functions_.back().varargs;
  stmt.uses_kwargs = functions_.back().kwargs;
  functions_.pop_back();
  close(end);
  return body;
}

/// A body whose text is kept back: leaving a loop from it would lose the text, so it may not.
Body Parser::parse_buffered(std::string_view end) {
  const int loops = std::exchange(functions_.back().loops, 0);
  Body body = parse_block({end});
  functions_.back().loops = loops;
  close(end);
  return body;
}

std::unique_ptr<Stmt> Parser::parse_macro() {
  auto stmt = make_stmt(StmtType::kMacro);
  stmt->text = expect_name("a macro name");
  parse_signature(*stmt);
  stmt->body = parse_function_body("endmacro", *stmt);
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_call_block() {
  auto stmt = make_stmt(StmtType::kCallBlock);
  stmt->text = "caller";
  if (current().is_operator("(")) parse_signature(*stmt);
  const int line = current().line;
  stmt->expr = parse_expression();
  if (stmt->expr->type != ExprType::kCall) fail_at(line, "expected a call of a macro");
  stmt->body = parse_function_body("endcall", *stmt);
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_with() {
  auto stmt = make_stmt(StmtType::kWith);
  while (current().type != TokenType::kBlockEnd) {
    if (!stmt->targets.empty()) expect_operator(",");
    stmt->targets.push_back(parse_target(false));
    expect_operator("=");
    stmt->defaults.push_back(parse_expression());
  }
  stmt->body = parse_block({"endwith"});
  close("endwith");
  return stmt;
}

void Parser::parse_print(Body& body) {
  const int line = next().line;
  for (bool first = true; current().type != TokenType::kBlockEnd; first = false) {
    if (!first) expect_operator(",");
    auto stmt = make_stmt(StmtType::kOutput);
    stmt->line = line;
    stmt->expr = parse_expression();
    body.push_back(std::move(stmt));
  }
}

void Parser::check_known(bool filter, const std::string& name, int line) const {
  const bool known = filter ? find_filter(name) != nullptr : find_test(name) != nullptr;
  if (!known && conditional_ == 0) {
    fail_at(line, concat("no ", filter ? "filter" : "test", " named '", name, "'"));
  }
}

}  // namespace temper::jinja
