#include "jinja_interpreter.h"
#include "temper/core/error.h"

namespace temper::jinja {

std::string Interpreter::run() {
  std::string text;
  out_ = &text;
  scope_ = new_scope(nullptr);
  execute(root_);
  return text;
}

Scope* Interpreter::new_scope(Scope* parent) {
  scopes_.emplace_back().parent = parent;
  return &scopes_.back();
}

void Interpreter::write(std::string_view text) {
  check_text_size(out_->size() + text.size());
  budget.charge_text(text.size());
  out_->append(text);
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const auto& stmt : body) {
    const Flow flow = execute(*stmt);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Stmt& stmt) {
  budget.charge();
  const int outer_line = line_;
  line_ = stmt.line;
  ++depth_;  // checked by evaluate, which every statement that nests comes to
  Flow flow = Flow::kNormal;
  switch (stmt.type) {
    case StmtType::kText: write(stmt.text); break;
    case StmtType::kOutput: write(to_text(evaluate(*stmt.expr))); break;
    case StmtType::kSet: assign(*stmt.target, evaluate(*stmt.expr)); break;
    case StmtType::kBreak: flow = Flow::kBreak; break;
    case StmtType::kContinue: flow = Flow::kContinue; break;
    default: flow = execute_compound(stmt);
  }
  --depth_;
  line_ = outer_line;
  return flow;
}

Interpreter::Flow Interpreter::execute_compound(const Stmt& stmt) {
  switch (stmt.type) {
    case StmtType::kFor: return execute_for(stmt);
    case StmtType::kIf:
      for (const auto& [test, body] : stmt.branches) {
        if (test == nullptr || evaluate(*test).truthy()) return execute(body);
      }
      return Flow::kNormal;
    case StmtType::kMacro: scope_->variables[stmt.text] = closure(stmt.text, stmt); break;
    case StmtType::kCallBlock: {
      const Value caller = closure("caller", stmt);
      write(to_text(evaluate_call(*stmt.expr, &caller)));
      break;
    }
    case StmtType::kFilterBlock:
    case StmtType::kSetBlock: execute_set_block(stmt); break;
    case StmtType::kWith: return execute_with(stmt);
    case StmtType::kGeneration: execute_generation(stmt); break;
    case StmtType::kScope: {
      Scope* const outer = scope_;
      scope_ = new_scope(outer);
      const Flow flow = execute(stmt.body);
      scope_ = outer;
      return flow;
    }
    default: fail("unexpected statement");
  }
  return Flow::kNormal;
}

std::string Interpreter::capture(const Body& body, Scope* parent) {
  std::string text;
  std::string* const outer_out = out_;
  Scope* const outer_scope = scope_;
  out_ = &text;
  scope_ = parent;
  ++buffers_;
  execute(body);
  --buffers_;
  scope_ = outer_scope;
  out_ = outer_out;
  return text;
}

/// `{% set x %}...{% endset %}` and `{% filter f %}...{% endfilter %}`.
void Interpreter::execute_set_block(const Stmt& stmt) {
  Value value(capture(stmt.body, new_scope(scope_)));
  if (stmt.expr != nullptr) {
    const Value text = value;
    const Value* const outer = block_text_;
    block_text_ = &text;
    value = evaluate(*stmt.expr);
    block_text_ = outer;
  }
  if (stmt.type == StmtType::kSetBlock) {
    assign(*stmt.target, value);
  } else {
    write(to_text(value));
  }
}

Interpreter::Flow Interpreter::execute_with(const Stmt& stmt) {
  Scope* const outer = scope_;
  Scope* const inner = new_scope(outer);
  for (size_t i = 0; i < stmt.targets.size(); ++i) {
    scope_ = outer;
    const Value value = evaluate(*stmt.defaults[i]);
    scope_ = inner;
    assign(*stmt.targets[i], value);
  }
  scope_ = inner;
  const Flow flow = execute(stmt.body);
  scope_ = outer;
  return flow;
}

void Interpreter::execute_generation(const Stmt& stmt) {
  TEMPER_CHECK(!setup_.track_generation || buffers_ == 0,
               "a generation block within a macro, a block set, a filter block or another "
               "generation block: its place in the text is not known, so there is no mask");
  const size_t start = out_->size();
  write(capture(stmt.body, new_scope(scope_)));
  if (buffers_ == 0) generation_.emplace_back(start, out_->size());
}

void Interpreter::assign(const Expr& target, const Value& value) {
  if (target.type == ExprType::kName) {
    scope_->variables[target.name] = value;
    return;
  }
  if (target.type == ExprType::kNamespaceTarget) {
    const Value space = lookup(target.name);
    const std::string& name = target.names[0];
    TEMPER_CHECK(space.is(Kind::kNamespace), "cannot assign attribute '", name, "' of '",
                 target.name, "': it is no namespace");
    TEMPER_CHECK(!name.starts_with('_'), "attribute '", name,
                 "' of a namespace must not start with an underscore");
    space.space().attributes.set(name, value);
    return;
  }
  const Values items = iterate(value);
  TEMPER_CHECK(items.size() == target.items.size(), "expected ", target.items.size(),
               " values to unpack, got ", items.size());
  for (size_t i = 0; i < items.size(); ++i) assign(*target.items[i], items[i]);
}

Interpreter::Flow Interpreter::execute_for(const Stmt& stmt) {
  return run_loop(stmt, evaluate(*stmt.expr), 0);
}

Interpreter::Flow Interpreter::run_loop(const Stmt& stmt, const Value& iterable, int64_t depth0) {
  charge(iterable);
  Loop& loop = loops_.emplace_back();
  loop.items = iterate(iterable);
  loop.statement = &stmt;
  loop.test = stmt.test.get();
  loop.scope = scope_;
  loop.depth0 = depth0;
  Scope* scope = new_scope(loop.scope);
  // As in Python's translation, an iteration counts for `else` only if it ran to its end.
  bool completed = false;
  while (advance(loop)) {
    budget.charge();
    if (scope->captured) scope = new_scope(loop.scope);
    scope->variables.clear();
    scope_ = scope;
    assign(*stmt.target, *loop.current);
    scope->variables["loop"] = Value(&loop);
    const Flow flow = execute(stmt.body);
    scope_ = loop.scope;
    if (flow == Flow::kBreak) break;
    completed |= flow == Flow::kNormal;
  }
  if (completed || stmt.orelse.empty()) return Flow::kNormal;
  scope_ = new_scope(loop.scope);
  const Flow flow = execute(stmt.orelse);
  scope_ = loop.scope;
  return flow;
}

}  // namespace temper::jinja
