#include "pattern.h"

#include "json_parts.h"
#include "temper/text/unicode.h"

namespace temper {

Pattern::Pattern(const nlohmann::json& json, const std::string& where) {
  TEMPER_CHECK(json.is_object() && json.size() == 1, where,
               ": \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}");
  if (json.contains("Regex")) {
    regex_.emplace(string_member(json, "Regex", where), where);
    return;
  }
  literal_ = string_member(json, "String", where);
  TEMPER_CHECK(!literal_.empty(), where, ": the pattern is an empty string");
}

void Pattern::stretches(std::string_view text, std::vector<Stretch>* out) const {
  out->clear();
  size_t end = 0;
  const auto take = [&](size_t begin, size_t match_end) {
    if (begin != end) out->push_back({end, begin, false});
    out->push_back({begin, match_end, true});
    end = match_end;
  };
  if (regex_) {
    MatchIterator matches(*regex_, text);
    while (const auto match = matches.next()) take(match->begin, match->end);
  } else {
    size_t at = 0;
    while ((at = text.find(literal_, end)) != std::string_view::npos) {
      take(at, at + literal_.size());
    }
  }
  if (end != text.size()) out->push_back({end, text.size(), false});
}

std::string Pattern::replace(std::string_view text, std::string_view content) const {
  std::string out;
  if (text.empty()) return out;
  std::vector<Stretch> parts;
  stretches(text, &parts);
  for (const Stretch& part : parts) {
    out += part.is_match ? content : text.substr(part.begin, part.end - part.begin);
  }
  return out;
}

bool Pattern::is_single_character() const {
  return !regex_ && unicode::sequence_length(literal_) == literal_.size();
}

}  // namespace temper
