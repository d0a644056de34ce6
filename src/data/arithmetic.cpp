#include <functional>

#include "temper/core/error.h"
#include "temper/data/tasks.h"

namespace temper {
namespace {

using Questions = std::vector<Question>;

struct Range {
  int low;
  int high;
};

void add(Questions& out, std::string text, int result) {
  if (result >= 0) out.push_back({std::move(text), std::to_string(result)});
}

/// a `symbol` b for all a and b of the ranges.
Questions binary(char symbol, Range a_range, Range b_range) {
  Questions out;
  for (int a = a_range.low; a <= a_range.high; ++a) {
    for (int b = b_range.low; b <= b_range.high; ++b) {
      const int result = symbol == '+' ? a + b : symbol == '-' ? a - b : a * b;
      add(out, concat(a, ' ', symbol, ' ', b), result);
    }
  }
  return out;
}

using Chain = std::function<void(Questions&, int a, int b, int c)>;

Questions chains(const Chain& chain) {
  Questions out;
  for (int a = 1; a <= 12; ++a) {
    for (int b = 1; b <= 12; ++b) {
      for (int c = 1; c <= 12; ++c) chain(out, a, b, c);
    }
  }
  return out;
}

std::vector<Questions> two_steps() {
  return {
      chains([](Questions& q, int a, int b, int c) {
        add(q, concat(a, " + ", b, " + ", c), a + b + c);
      }),
      chains([](Questions& q, int a, int b, int c) {
        add(q, concat(a, " + ", b, " - ", c), a + b - c);
      }),
      chains([](Questions& q, int a, int b, int c) {
        // The first step must not be negative either.
        if (a >= b) add(q, concat(a, " - ", b, " + ", c), a - b + c);
      }),
      chains([](Questions& q, int a, int b, int c) {
        add(q, concat(a, " * ", b, " + ", c), a * b + c);
      }),
      chains([](Questions& q, int a, int b, int c) {
        add(q, concat(a, " * ", b, " - ", c), a * b - c);
      }),
      chains([](Questions& q, int a, int b, int c) {
        add(q, concat("(", a, " + ", b, ") * ", c), (a + b) * c);
      }),
  };
}

}  // namespace

std::vector<std::vector<Question>> arithmetic_questions(int64_t level) {
  switch (level) {
    case 1: return {binary('+', {0, 9}, {0, 9})};
    case 2: return {binary('+', {0, 20}, {0, 20}), binary('-', {0, 20}, {0, 20})};
    case 3: return {binary('+', {10, 99}, {10, 99}), binary('-', {10, 99}, {10, 99})};
    case 4: {
      auto kinds = arithmetic_questions(3);
      kinds.push_back(binary('*', {2, 12}, {2, 99}));
      return kinds;
    }
    case 5: return two_steps();
    default: fail("[arithmetic] level must be in 1..5, got ", level);
  }
}

}  // namespace temper
