// Transcripts as Anthropic's hh-rlhf files have them, and what two texts have in common.
#include "transcript.h"

#include <algorithm>
#include <string>

#include "temper/data/preference.h"

namespace temper {
namespace {

constexpr std::string_view kHuman = "\n\nHuman:";
constexpr std::string_view kAssistant = "\n\nAssistant:";
constexpr std::string_view kBlanks = " \t\r\n";

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kBlanks) - first + 1));
}

size_t common_bytes(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

/// Whether a character of UTF-8 begins at this byte, or the text ends there.
bool begins_character(std::string_view text, size_t at) {
  return at >= text.size() || (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80;
}

}  // namespace

std::vector<ChatMessage> transcript_turns(std::string_view text) {
  std::vector<ChatMessage> turns;
  if (!detail::is_transcript(text)) return turns;
  for (size_t at = 0; at != std::string_view::npos;) {
    const bool human = text.substr(at).starts_with(kHuman);
    const size_t begin = at + (human ? kHuman : kAssistant).size();
    at = std::min(text.find(kHuman, begin), text.find(kAssistant, begin));
    turns.push_back({human ? "user" : "assistant", trimmed(text.substr(begin, at - begin))});
  }
  return turns;
}

size_t shared_beginning(std::string_view a, std::string_view b) {
  size_t n = common_bytes(a, b);
  const auto step_back = [&] {
    do --n;
    while (n > 0 && !(begins_character(a, n) && begins_character(b, n)));
  };
  if (n > 0 && (n == a.size() || n == b.size())) step_back();
  if (n > 0 && !(begins_character(a, n) && begins_character(b, n))) step_back();
  if (n > 0 && a[n - 1] == ' ') --n;
  return n;
}

namespace detail {

bool is_transcript(std::string_view text) { return text.starts_with(kHuman); }

size_t shared_turns(std::string_view a, std::string_view b) {
  const std::string_view common = a.substr(0, common_bytes(a, b));
  size_t end = 0;
  for (const std::string_view marker : {kHuman, kAssistant}) {
    const size_t last = common.rfind(marker);
    if (last != std::string_view::npos) end = std::max(end, last + marker.size());
  }
  return end;
}

}  // namespace detail
}  // namespace temper
