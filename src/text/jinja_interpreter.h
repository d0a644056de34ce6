#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "jinja_ast.h"
#include "jinja_runtime.h"

namespace temper::jinja {

/// Runs one syntax tree once. Scopes, loops and namespaces live in arenas of this object, so that
/// closures and namespaces may refer to each other in circles.
class Interpreter final : public Runtime {
 public:
  struct Setup {
    Dict variables;
    std::optional<int64_t> unix_time;
    bool track_generation = false;  ///< Fail where the place of a generation block is unknown.
  };

  Interpreter(const Body& root, Setup setup) : root_(root), setup_(std::move(setup)) {}

  /// @throws Error; `line()` then says where.
  [[nodiscard]] std::string run();
  [[nodiscard]] int line() const { return line_; }
  [[nodiscard]] const std::vector<std::pair<size_t, size_t>>& generation() const {
    return generation_;
  }

  [[nodiscard]] Value call_filter(std::string_view name, const Value& input,
                                  const CallArgs& args) override;
  [[nodiscard]] bool call_test(std::string_view name, const Value& input,
                               const CallArgs& args) override;

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };

  // Statements (jinja_execute.cpp).
  Flow execute(const Body& body);
  Flow execute(const Stmt& stmt);
  Flow execute_compound(const Stmt& stmt);
  Flow execute_for(const Stmt& stmt);
  Flow run_loop(const Stmt& stmt, const Value& iterable, int64_t depth0);
  Flow execute_with(const Stmt& stmt);
  void execute_generation(const Stmt& stmt);
  void execute_set_block(const Stmt& stmt);
  void assign(const Expr& target, const Value& value);
  void write(std::string_view text);
  /// Runs the body in a scope of its own and returns what it wrote.
  std::string capture(const Body& body, Scope* parent);
  Scope* new_scope(Scope* parent);

  // Loops (jinja_loop.cpp).
  bool advance(Loop& loop);
  std::optional<Value> pull(Loop& loop);
  bool passes(const Loop& loop, const Value& item);
  const std::optional<Value>& peek(Loop& loop);
  int64_t loop_length(Loop& loop);
  Value loop_attribute(Loop& loop, const std::string& name);
  Value loop_method(Loop& loop, const std::string& name, const CallArgs& args);

  // Expressions (jinja_evaluate.cpp).
  Value evaluate(const Expr& expr);
  Value evaluate_node(const Expr& expr);
  Value evaluate_condition(const Expr& expr);
  Value evaluate_compare(const Expr& expr);
  Value evaluate_concat(const Expr& expr);
  Value evaluate_filter(const Expr& expr);
  Value evaluate_item(const Expr& expr);
  Value evaluate_dict(const Expr& expr);
  Value evaluate_call(const Expr& expr, const Value* caller);
  CallArgs evaluate_arguments(const Arguments& arguments);
  Values evaluate_all(const std::vector<ExprPtr>& items);
  Value attribute(const Value& object, const std::string& name);
  Value lookup(std::string_view name);

  // Calls (jinja_call.cpp).
  Value call(const Value& callee, const CallArgs& args);
  Value call_loop(Loop& loop, const CallArgs& args);
  Value call_macro(const Callable& macro, const CallArgs& args);
  void bind_parameters(const Stmt& macro, const CallArgs& args, Scope& scope);
  Value call_function(const std::string& name, const CallArgs& args);
  Value make_range(const CallArgs& args);
  Dict make_dict(const CallArgs& args);
  Value make_namespace(const CallArgs& args);
  Value format_time(const CallArgs& args);
  Value closure(const std::string& name, const Stmt& body);
  /// Counts the work that a value stands for.
  const Value& charge(const Value& value);

  const Body& root_;
  Setup setup_;
  std::deque<Scope> scopes_;
  std::deque<Loop> loops_;
  std::deque<Namespace> namespaces_;
  Scope* scope_ = nullptr;
  std::string* out_ = nullptr;
  const Value* block_text_ = nullptr;  // input of the filters of a block
  int buffers_ = 0;                    // 0: out_ is the rendering itself
  int depth_ = 0;
  int calls_ = 0;
  int line_ = 0;
  std::vector<std::pair<size_t, size_t>> generation_;
};

/// The built-in functions by name.
[[nodiscard]] bool is_function(std::string_view name);

}  // namespace temper::jinja
