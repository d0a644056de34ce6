// Personal data by its form, in one pass from left to right.
#include "temper/data/scrub.h"

#include <cstddef>
#include <vector>

namespace temper {
namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }
bool upper(char c) { return c >= 'A' && c <= 'Z'; }
bool letter(char c) { return upper(c) || (c >= 'a' && c <= 'z'); }
bool word(char c) { return digit(c) || letter(c) || (c & 0x80) != 0; }
bool local(char c) { return digit(c) || letter(c) || std::string_view("._%+-").find(c) < 5; }

/// A piece of text from a place on: how far it reaches and its digits or letters without gaps.
struct Run {
  size_t end = 0;
  std::string marks;
  std::vector<size_t> groups;  ///< Lengths of the groups between gaps.
};

/// Marks that `is_mark` knows, with single characters of `gaps` between them.
template <class F>
Run take_run(std::string_view text, size_t at, std::string_view gaps, const F& is_mark) {
  Run run;
  run.end = at;
  bool open = false;
  while (at < text.size()) {
    if (is_mark(text[at])) {
      if (!open) run.groups.push_back(0);
      open = true;
      ++run.groups.back();
      run.marks += text[at++];
      run.end = at;
    } else if (open && gaps.find(text[at]) != std::string_view::npos) {
      open = false;
      ++at;
    } else {
      break;
    }
  }
  return run;
}

bool ends_number(std::string_view text, size_t at) { return at >= text.size() || !word(text[at]); }

/// Each finder returns the end of what begins at `at`, or 0.
size_t email_end(std::string_view text, size_t at) {
  size_t i = at;
  while (i < text.size() && local(text[i])) ++i;
  if (i == at || i - at > 64 || i >= text.size() || text[i] != '@') return 0;
  size_t end = 0, label = ++i;
  bool letters = true, dotted = false;  // Of the label that is being read; whether it has a parent.
  for (; i < text.size() && i - at < 320; ++i) {
    const char c = text[i];
    if (digit(c) || letter(c) || c == '-') {
      letters = letters && letter(c);
      const bool whole = ends_number(text, i + 1) && (i + 1 >= text.size() || text[i + 1] != '-');
      if (whole && dotted && letters && i - label + 1 >= 2) end = i + 1;
    } else if (c == '.' && i > label) {
      dotted = true;
      letters = true;
      label = i + 1;
    } else {
      break;
    }
  }
  return end;
}

bool luhn(const std::string& digits) {
  int sum = 0;
  for (size_t i = 0; i < digits.size(); ++i) {
    int d = digits[digits.size() - 1 - i] - '0';
    if (i % 2 == 1) d = d > 4 ? 2 * d - 9 : 2 * d;
    sum += d;
  }
  return sum % 10 == 0;
}

size_t card_end(std::string_view text, size_t at) {
  if (text[at] < '2' || text[at] > '6') return 0;
  const Run run = take_run(text, at, " -", digit);
  const size_t n = run.marks.size();
  return n >= 13 && n <= 19 && luhn(run.marks) && ends_number(text, run.end) ? run.end : 0;
}

bool leaves_one(const std::string& marks) {
  int rest = 0;
  for (size_t i = 0; i < marks.size(); ++i) {
    const char c = marks[(i + 4) % marks.size()];  // Country and check digits come last.
    const int value = digit(c) ? c - '0' : c - 'A' + 10;
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
  }
  return rest == 1;
}

/// The longest whole groups that make an account number: words behind it may look like a part.
size_t iban_end(std::string_view text, size_t at) {
  if (at + 4 > text.size() || !upper(text[at]) || !upper(text[at + 1]) || !digit(text[at + 2]) ||
      !digit(text[at + 3])) {
    return 0;
  }
  const Run run = take_run(text, at, " ", [](char c) { return digit(c) || upper(c); });
  size_t best = 0, count = 0, end = at;
  for (const size_t group : run.groups) {
    count += group;
    end += group + (end == at ? 0 : 1);
    if (count > 34) break;
    if (count >= 15 && ends_number(text, end) && leaves_one(run.marks.substr(0, count))) best = end;
  }
  return best;
}

size_t phone_end(std::string_view text, size_t at) {
  const bool plus = text[at] == '+', bracket = text[at] == '(';
  if (!plus && !bracket && !digit(text[at])) return 0;
  size_t from = at + (plus || bracket ? 1 : 0);
  Run run = take_run(text, from, bracket ? "" : " .-/", digit);
  if (bracket) {
    if (run.marks.empty() || run.marks.size() > 5 || run.end >= text.size() || text[run.end] != ')')
      return 0;
    size_t rest = run.end + 1;
    if (rest < text.size() && (text[rest] == ' ' || text[rest] == '-')) ++rest;
    const Run more = take_run(text, rest, " .-", digit);
    if (more.marks.size() < 5) return 0;
    run.marks += more.marks;
    run.end = more.end;
  } else if (plus && run.end < text.size()) {  // +49 (0)30 ...
    const size_t open = run.end + (text[run.end] == ' ' ? 1 : 0);
    if (open < text.size() && text[open] == '(') return phone_end(text, open);
  }
  const size_t n = run.marks.size();
  if (n < 7 || n > 15 || !ends_number(text, run.end)) return 0;
  if (plus || bracket || run.marks.starts_with("00")) return run.end;
  if (run.marks[0] == '0' && run.groups.size() >= 2) return run.end;
  return run.groups == std::vector<size_t>{3, 3, 4} ? run.end : 0;
}

struct Finder {
  size_t (*end)(std::string_view, size_t);
  std::string_view tag;
  uint64_t ScrubCounts::*count;
};
constexpr Finder kFinders[] = {{&iban_end, "[IBAN]", &ScrubCounts::ibans},
                               {&card_end, "[CARD]", &ScrubCounts::cards},
                               {&email_end, "[EMAIL]", &ScrubCounts::emails},
                               {&phone_end, "[PHONE]", &ScrubCounts::phones}};

/// Whether something may begin here: not inside of words and of longer numbers.
bool begins(const std::string& before, char next) {
  if (before.empty()) return true;
  const char last = before.back();
  if (word(last)) return false;
  return !local(last) || (digit(next) && last != '.' && last != '-');
}

std::string scrub_once(std::string_view text, ScrubCounts& counts) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = 0;
    for (const Finder& finder : kFinders) {
      if (end != 0 || !begins(out, text[at])) break;
      end = finder.end(text, at);
      if (end == 0) continue;
      out += finder.tag;
      ++(counts.*finder.count);
    }
    if (end == 0) out += text[at++];
    if (end != 0) at = end;
  }
  return out;
}

}  // namespace

std::string scrub_personal_data(std::string_view text, ScrubCounts& counts) {
  std::string out(text);
  // What is replaced may uncover more: digits beside it are a number of their own then.
  for (uint64_t before = counts.all() + 1; before != counts.all();) {
    before = counts.all();
    out = scrub_once(out, counts);
  }
  return out;
}

}  // namespace temper
