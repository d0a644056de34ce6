#include <cmath>
#include <limits>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void overflow() { fail("integer result needs more than 64 bits"); }

int64_t floor_div(int64_t a, int64_t b) {
  TEMPER_CHECK(b != 0, "integer division or modulo by zero");
  if (b == -1) {
    if (a == std::numeric_limits<int64_t>::min()) overflow();
    return -a;
  }
  const int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

int64_t floor_mod(int64_t a, int64_t b) {
  TEMPER_CHECK(b != 0, "integer division or modulo by zero");
  if (b == -1) return 0;
  const int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

int64_t multiply(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) overflow();
  return out;
}

Value power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    TEMPER_CHECK(base != 0, "0 cannot be raised to a negative power");
    return Value(std::pow(double(base), double(exponent)));
  }
  int64_t result = 1;
  for (uint64_t e = uint64_t(exponent); e > 0; e >>= 1) {
    if (e & 1) result = multiply(result, base);
    // Squared only if a bit is left, and then |base| <= 1 is the one case that goes on for long.
    if (e > 1) base = multiply(base, base);
  }
  return Value(result);
}

Value integer_op(Binary op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case Binary::kAdd:
      if (__builtin_add_overflow(a, b, &out)) overflow();
      return Value(out);
    case Binary::kSub:
      if (__builtin_sub_overflow(a, b, &out)) overflow();
      return Value(out);
    case Binary::kMul: return Value(multiply(a, b));
    case Binary::kDiv:
      TEMPER_CHECK(b != 0, "division by zero");
      return Value(double(a) / double(b));
    case Binary::kFloorDiv: return Value(floor_div(a, b));
    case Binary::kMod: return Value(floor_mod(a, b));
    case Binary::kPow: return power(a, b);
  }
  return {};
}

double real_mod(double a, double b) {
  TEMPER_CHECK(b != 0, "float modulo by zero");
  const double r = std::fmod(a, b);
  if (r == 0) return std::copysign(0.0, b);
  return (r < 0) != (b < 0) ? r + b : r;
}

Value real_op(Binary op, double a, double b) {
  switch (op) {
    case Binary::kAdd: return Value(a + b);
    case Binary::kSub: return Value(a - b);
    case Binary::kMul: return Value(a * b);
    case Binary::kDiv: TEMPER_CHECK(b != 0, "float division by zero"); return Value(a / b);
    case Binary::kFloorDiv: {
      TEMPER_CHECK(b != 0, "float floor division by zero");
      const double quotient = (a - real_mod(a, b)) / b;
      const double floored = std::floor(quotient);
      return Value(quotient - floored > 0.5 ? floored + 1 : floored);
    }
    case Binary::kMod: return Value(real_mod(a, b));
    case Binary::kPow: {
      TEMPER_CHECK(a != 0 || b >= 0, "0.0 cannot be raised to a negative power");
      const double result = std::pow(a, b);
      TEMPER_CHECK(!std::isnan(result) || std::isnan(a) || std::isnan(b),
                   "complex results are not supported");
      TEMPER_CHECK(!std::isinf(result) || std::isinf(a) || std::isinf(b), "result out of range");
      return Value(result);
    }
  }
  return {};
}

Value repeat(const Value& value, int64_t times) {
  const size_t n = times < 0 ? 0 : size_t(times);
  const auto fits = [&](size_t size, size_t limit) {
    TEMPER_CHECK(size == 0 || n <= limit / size, "repeating ", size, " elements ", n,
                 " times exceeds the limit of ", limit);
  };
  if (value.is_string()) {
    const std::string& text = value.text();
    fits(text.size(), kMaxText);
    std::string out;
    out.reserve(text.size() * n);
    for (size_t i = 0; i < n && !text.empty(); ++i) out += text;
    return Value(std::move(out), value.is_markup());
  }
  fits(value.items().size(), kMaxItems);
  Values items;
  for (size_t i = 0; i < n && !value.items().empty(); ++i) {
    items.insert(items.end(), value.items().begin(), value.items().end());
  }
  return Value::sequence(value.kind(), std::move(items));
}

Value add_text(const Value& a, const Value& b) {
  const bool markup = a.is_markup() || b.is_markup();
  const auto part = [&](const Value& v) {
    return markup && !v.is_markup() ? escape_html(v.text()) : v.text();
  };
  const std::string left = part(a), right = part(b);
  check_text_size(left.size() + right.size());
  return Value(left + right, markup);
}

bool repeatable(const Value& v) { return v.is_string() || v.is(Kind::kList) || v.is(Kind::kTuple); }

}  // namespace

void require_defined(const Value& value) {
  if (value.is_undefined()) fail(value.why());
}

Value binary(Binary op, const Value& a, const Value& b, Budget& budget) {
  if (op == Binary::kMod && a.is_string()) {
    budget.charge_text(a.text().size());
    return Value(format_percent(a.text(), b, budget));
  }
  require_defined(a);
  require_defined(b);
  if (a.is_integral() && b.is_integral()) return integer_op(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return real_op(op, a.real(), b.real());
  if (op == Binary::kAdd && a.is_string() && b.is_string()) return add_text(a, b);
  if (op == Binary::kAdd && a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    check_item_count(a.items().size() + b.items().size());
    Values items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return Value::sequence(a.kind(), std::move(items));
  }
  if (op == Binary::kMul && repeatable(a) && b.is_integral()) return repeat(a, b.integer());
  if (op == Binary::kMul && repeatable(b) && a.is_integral()) return repeat(b, a.integer());
  fail("unsupported operand types for ", kSymbols[size_t(op)], ": '", type_name(a), "' and '",
       type_name(b), "'");
}

Value negate(const Value& a, bool minus) {
  require_defined(a);
  TEMPER_CHECK(a.is_number(), "bad operand type for unary ", minus ? "-" : "+", ": '", type_name(a),
               "'");
  if (!a.is_integral()) return Value(minus ? -a.real() : a.real());
  if (minus && a.integer() == std::numeric_limits<int64_t>::min()) overflow();
  return Value(minus ? -a.integer() : a.integer());
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_string()) {
    require_defined(item);
    TEMPER_CHECK(item.is_string(), "'in <string>' requires string as left operand, not ",
                 type_name(item));
    budget.charge_text(container.text().size());
    return find_text(container.text(), item.text()) != std::string_view::npos;
  }
  if (container.is_dict()) return container.dict().find(item) != nullptr;
  if (container.is(Kind::kIterator)) {
    for (const Value& other : container.drain()) {
      if (equals(item, other, budget)) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  TEMPER_CHECK(container.is_sequence(), "argument of type '", type_name(container),
               "' is not iterable");
  for (const Value& other : container.items()) {
    if (equals(item, other, budget)) return true;
  }
  return false;
}

}  // namespace temper::jinja
