#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja_value.h"

/// Syntax tree of a template. Immutable once parsed; names and constants are looked at by
/// reference.
namespace temper::jinja {

enum class ExprType : uint8_t {
  kConstant,
  kName,
  kList,
  kTuple,
  kDict,   ///< items: key, value, key, value, ...
  kUnary,  ///< name: "-" or "+"
  kNot,
  kAnd,
  kOr,
  kBinary,     ///< name: operator
  kConcat,     ///< `~` of all items
  kCompare,    ///< items: first operand, then one for each name in `names`
  kCondition,  ///< items: test, then, else (else may be missing)
  kAttribute,  ///< items[0].name
  kItem,       ///< items[0][items[1]]
  kSlice,      ///< items: start, stop, step, each may be null
  kCall,
  kFilter,
  kTest,
  kNamespaceTarget,  ///< `name.names[0]` on the left of `set`
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

/// Arguments of a call, filter or test.
struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keyword;
  ExprPtr star;         ///< `*x`
  ExprPtr double_star;  ///< `**x`
};

struct Expr {
  ExprType type = ExprType::kConstant;
  int line = 0;
  int height = 1;  ///< Longest path down to a leaf.
  std::string name;
  std::vector<std::string> names;
  std::vector<ExprPtr> items;
  Value constant;
  std::unique_ptr<Arguments> arguments;
};

enum class StmtType : uint8_t {
  kText,
  kOutput,
  kFor,
  kIf,  ///< expr, body; orelse holds one kIf (elif) or the else body
  kSet,
  kSetBlock,  ///< expr: filters over the body, null if none
  kMacro,
  kCallBlock,  ///< expr: the call
  kFilterBlock,
  kWith,  ///< names = parameters, defaults = values
  kGeneration,
  kScope,  ///< autoescape false
  kBreak,
  kContinue,
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Stmt {
  StmtType type = StmtType::kText;
  int line = 0;
  std::string text;  ///< kText; name of a macro.
  ExprPtr target;    ///< kFor, kSet.
  ExprPtr expr;
  ExprPtr test;  ///< kFor: the inline condition.
  bool recursive = false;
  Body body;
  Body orelse;
  /// kIf: the elif and else branches in order; an else has no test.
  std::vector<std::pair<ExprPtr, Body>> branches;
  std::vector<ExprPtr> targets;         ///< kWith.
  std::vector<std::string> parameters;  ///< kMacro, kCallBlock.
  std::vector<ExprPtr> defaults;        ///< Of the last parameters; kWith: values.
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

}  // namespace temper::jinja
