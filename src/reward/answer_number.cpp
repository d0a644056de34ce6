#include <string>

#include "number_scan.h"
#include "temper/reward/number.h"

namespace temper {
namespace {

constexpr size_t kNone = std::string_view::npos;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != kNone; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

/// The number right behind the last "####"; blanks and emphasis stars are skipped.
std::optional<Number> after_hashes(std::string_view text) {
  const size_t mark = text.rfind("####");
  if (mark == kNone) return std::nullopt;
  const size_t start = text.find_first_not_of(" \t*", mark + 4);
  if (start == kNone) return std::nullopt;
  const auto found = detail::number_at(text, start);
  return found ? found->value : std::nullopt;
}

/// Offset of the brace that closes the one at `open`; kNone if the text ends first.
size_t closing_brace(std::string_view text, size_t open) {
  size_t depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {  // \{ and \} are characters.
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i;
    }
  }
  return kNone;
}

/// Content of the last \boxed{...}.
std::optional<std::string> last_box(std::string_view text) {
  for (size_t at = text.rfind("\\boxed"); at != kNone;
       at = at == 0 ? kNone : text.rfind("\\boxed", at - 1)) {
    const size_t open = text.find_first_not_of(' ', at + 6);
    if (open == kNone || text[open] != '{') continue;
    const size_t close = closing_brace(text, open);
    if (close != kNone) return std::string(text.substr(open + 1, close - open - 1));
  }
  return std::nullopt;
}

/// Removes `command{...}` with its content.
void drop_group(std::string& text, std::string_view command) {
  for (size_t at = text.find(command); at != kNone; at = text.find(command, at)) {
    const size_t open = at + command.size() - 1;
    const size_t close = closing_brace(text, open);
    text.erase(at, close == kNone ? kNone : close - at + 1);
  }
}

/// \frac{a}{b} -> a/b.
void unfold_fractions(std::string& text) {
  for (size_t at = text.find("\\frac{"); at != kNone; at = text.find("\\frac{", at + 1)) {
    const size_t top = at + 5;
    const size_t top_end = closing_brace(text, top);
    if (top_end == kNone || top_end + 1 >= text.size() || text[top_end + 1] != '{') continue;
    const size_t bottom_end = closing_brace(text, top_end + 1);
    if (bottom_end == kNone) continue;
    text.erase(bottom_end, 1);
    text.replace(top_end, 2, "/");
    text.erase(at, top - at + 1);
  }
}

/// Whether `rest`, which follows a number, is a unit: words, the first of them set off by a blank
/// or of two letters at least ("2x" is a product).
bool is_unit(std::string_view rest) {
  size_t letters = 0;
  for (const char c : rest) {
    if (detail::is_letter(c)) {
      ++letters;
    } else if (c != ' ' && c != '.') {
      return false;
    }
  }
  return letters == 0 || rest.front() == ' ' || letters >= 2;
}

std::optional<Number> number_in_box(std::string box) {
  for (const char* command : {"\\text{", "\\mathrm{", "\\textbf{", "\\mbox{"}) {
    drop_group(box, command);
  }
  for (const char* nothing :
       {"\\,", "\\!", "\\;", "\\:", "\\left", "\\right", "^\\circ", "^{\\circ}"}) {
    replace_all(box, nothing, "");
  }
  replace_all(box, "{,}", ",");
  replace_all(box, "\\dfrac", "\\frac");
  replace_all(box, "\\tfrac", "\\frac");
  unfold_fractions(box);
  const size_t equals = box.rfind('=');
  const size_t start = box.find_first_not_of(" \t\r\n", equals == kNone ? 0 : equals + 1);
  if (start == kNone) return std::nullopt;
  const auto found = detail::number_at(box, start);
  if (!found) return std::nullopt;
  const std::string_view rest = std::string_view(box).substr(found->end);
  const size_t closing_dollar = rest.find_first_not_of("$ ");
  if (closing_dollar != kNone && !is_unit(rest)) return std::nullopt;
  return found->value;
}

}  // namespace

std::optional<Number> answer_number(std::string_view text) {
  if (auto number = after_hashes(text)) return number;
  if (auto box = last_box(text)) return number_in_box(std::move(*box));
  return detail::last_number(text);
}

}  // namespace temper
