#include "added_tokens.h"

#include <algorithm>
#include <utility>

#include "json_parts.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr size_t kMaxAddedTokens = 1 << 18;
constexpr size_t kMaxAddedTokenBytes = 1024;

AddedToken parse(const Json& json, const std::string& where) {
  AddedToken token;
  token.content = string_member(json, "content", where);
  TEMPER_CHECK(token.content.size() <= kMaxAddedTokenBytes, where, ": a token of ",
               token.content.size(), " bytes; at most ", kMaxAddedTokenBytes, " are accepted");
  token.single_word = bool_member(json, "single_word", false, where);
  token.lstrip = bool_member(json, "lstrip", false, where);
  token.rstrip = bool_member(json, "rstrip", false, where);
  token.special = bool_member(json, "special", false, where);
  token.normalized = bool_member(json, "normalized", !token.special, where);
  return token;
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t at = unicode::previous_start(text, text.size());
  return unicode::is_word(unicode::next_code_point(text, &at));
}

bool starts_with_word(std::string_view text) {
  size_t at = 0;
  return !text.empty() && unicode::is_word(unicode::next_code_point(text, &at));
}

// The start of the white space that `text` ends with.
size_t trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t start = unicode::previous_start(text, end);
    size_t at = start;
    if (!unicode::is_white_space(unicode::next_code_point(text, &at))) break;
    end = start;
  }
  return end;
}

// The end of the white space that `text` starts with.
size_t leading_space(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    size_t at = end;
    if (!unicode::is_white_space(unicode::next_code_point(text, &at))) break;
    end = at;
  }
  return end;
}

}  // namespace

StringFinder::StringFinder() : values_(1, -1), first_(256, 0) {}

bool StringFinder::add(std::string_view text, int32_t value) {
  uint32_t node = 0;
  for (const char c : text) {
    const uint64_t key = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(c);
    const auto [it, added] = edges_.try_emplace(key, static_cast<uint32_t>(values_.size()));
    if (added) values_.push_back(-1);
    if (node == 0) first_[static_cast<uint8_t>(c)] = it->second;
    node = it->second;
  }
  if (node == 0 || values_[node] != -1) return false;
  values_[node] = value;
  return true;
}

StringFinder::Found StringFinder::find(std::string_view text, size_t start) const {
  for (size_t i = start; i < text.size(); ++i) {
    uint32_t node = first_[static_cast<uint8_t>(text[i])];
    if (node == 0) continue;
    Found best;
    for (size_t j = i + 1;; ++j) {
      if (values_[node] != -1) best = {i, j, values_[node]};
      if (j >= text.size()) break;
      const auto it = edges_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(text[j]));
      if (it == edges_.end()) break;
      node = it->second;
    }
    if (best.value != -1) return best;
  }
  return {};
}

AddedTokens::AddedTokens(const nlohmann::json& json, const Vocabulary& vocabulary,
                         const Normalizer& normalizer, const std::string& where) {
  TEMPER_CHECK(json.is_array(), where, " must be an array, not ", json.type_name());
  TEMPER_CHECK(json.size() <= kMaxAddedTokens, where, ": ", json.size(), " tokens; at most ",
               kMaxAddedTokens, " are accepted");
  int64_t next_id = vocabulary.size();
  for (const Json& item : json) {
    AddedToken token = parse(item, where);
    if (token.content.empty()) continue;
    int64_t id = next_id;
    if (const auto known = ids_.find(token.content); known != ids_.end()) {
      id = known->second;
    } else if (const auto in_model = vocabulary.id(token.content)) {
      id = *in_model;
    } else {
      ++next_id;
      TEMPER_CHECK(id <= Vocabulary::kMaxId, where, ": token \"", token.content, "\" gets id ", id,
                   ", above the limit ", Vocabulary::kMaxId);
      TEMPER_CHECK(vocabulary.token(static_cast<int32_t>(id)) == nullptr, where, ": token \"",
                   token.content, "\" gets id ", id, ", which the model's vocabulary uses already");
    }
    insert(std::move(token), static_cast<int32_t>(id), normalizer);
  }
  for (const auto& [id, token] : tokens_) {
    const std::string& text = *shown(id);
    TEMPER_CHECK((token.normalized ? normalized_ : raw_).add(text, id), where, ": token \"",
                 token.content, "\" is, after normalization, empty or equal to another one");
  }
}

void AddedTokens::insert(AddedToken token, int32_t id, const Normalizer& normalizer) {
  if (token.normalized && !normalizer.empty()) {
    shown_[id] = normalizer(token.content);
  }
  if (token.special) special_.insert(token.content);
  ids_[token.content] = id;
  tokens_[id] = std::move(token);
}

const std::string* AddedTokens::shown(int32_t id) const {
  if (const auto it = shown_.find(id); it != shown_.end()) return &it->second;
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second.content;
}

bool AddedTokens::is_special_text(std::string_view token) const {
  return special_.find(token) != special_.end();
}

std::vector<Section> AddedTokens::cut(const StringFinder& finder, std::string_view text,
                                      bool allow_special) const {
  std::vector<Section> sections;
  size_t done = 0;
  size_t position = 0;
  Section space;  // the white space last looked at, lest tokens inside it walk it again and again
  while (!finder.empty()) {
    StringFinder::Found found = finder.find(text, position);
    if (found.value == -1) break;
    position = found.end;
    const AddedToken& token = tokens_.at(found.value);
    if (!allow_special && is_special_text(token.content)) continue;
    if (token.single_word &&
        (ends_with_word(text.substr(0, found.begin)) || starts_with_word(text.substr(found.end)))) {
      continue;
    }
    // The white space may belong to the token before already.
    if (token.lstrip) {
      const size_t room = found.begin > done ? found.begin - done : 0;
      found.begin = done + trailing_space(text.substr(done, room));
    }
    if (token.rstrip) {
      if (found.end < space.begin || found.end >= space.end) {
        space = {found.end, found.end + leading_space(text.substr(found.end)), -1};
      }
      found.end = space.end;
    }
    if (done < found.begin) sections.push_back({done, found.begin, -1});
    sections.push_back({found.begin, found.end, found.value});
    done = found.end;
  }
  if (done < text.size()) sections.push_back({done, text.size(), -1});
  return sections;
}

}  // namespace temper
