#include "temper/trainer/preference_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "temper/core/error.h"
#include "temper/core/log.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

/// @param whole_json  all messages of the side, where they are more than role and content.
Ids encode_side(const PreferencePair& pair, const Passage& side, const std::string& whole_json,
                const ModelText& text) {
  if (!pair.conversation) {
    Ids ids = text.tokenizer().encode(pair.prompt.text + side.text,
                                      {.add_special_tokens = true, .allow_special = true});
    const auto eos = text.eos_id();
    if (eos && (ids.empty() || ids.back() != *eos)) ids.push_back(*eos);
    return ids;
  }
  Json messages = Json::array();
  for (const auto* turns : {&pair.prompt.turns, &side.turns}) {
    for (const ChatMessage& turn : *turns) {
      messages.push_back({{"role", turn.role}, {"content", turn.content}});
    }
  }
  if (!whole_json.empty()) messages = Json::parse(whole_json);
  const Json tools = pair.tools_json.empty() ? Json() : Json::parse(pair.tools_json);
  return text.encode_rendered(
      text.render_finished(messages, tools.is_null() ? nullptr : &tools));
}

template <class T>
void add_to(StableHash& hash, std::span<const T> values) {
  hash.update({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}

uint64_t hash_of(const std::vector<TokenPair>& pairs) {
  StableHash hash;
  for (const TokenPair& p : pairs) {
    const int64_t sizes[] = {std::ssize(p.shared), std::ssize(p.chosen), std::ssize(p.rejected)};
    add_to<int64_t>(hash, sizes);
    for (const Ids* ids : {&p.shared, &p.chosen, &p.rejected}) add_to<int32_t>(hash, *ids);
    add_to<double>(hash, {&p.margin, 1});
  }
  return hash.value();
}

}  // namespace

TokenizedPairs tokenize_pairs(const PreferenceData& data, const ModelText& text,
                              int64_t max_length) {
  TEMPER_CHECK(max_length >= 1, "data.max_length must be at least 1, got ", max_length);
  TokenizedPairs out;
  out.source = data.source;
  for (const PreferencePair& pair : data.pairs) {
    Ids chosen, rejected;
    try {
      chosen = encode_side(pair, pair.chosen, pair.chosen_json, text);
      rejected = encode_side(pair, pair.rejected, pair.rejected_json, text);
    } catch (const Error& e) {
      fail("[tokenize_pairs] ", data.source, ":", pair.line, ": ", e.what());
    }
    const int64_t longest = std::max(std::ssize(chosen), std::ssize(rejected));
    if (longest > max_length) {
      ++out.too_long;
    } else if (chosen == rejected) {
      ++out.equal;
    } else {
      out.longest = std::max(out.longest, longest);
      out.pairs.push_back(token_pair(chosen, rejected));
      out.pairs.back().margin = pair.margin;
      out.pairs.back().line = pair.line;
    }
  }
  TEMPER_CHECK(!out.pairs.empty(), "[tokenize_pairs] ", data.source,
               ": no pair is left: ", out.too_long, " have a side of more than ", max_length,
               " tokens (data.max_length), ", out.equal, " have the same tokens twice");
  if (out.too_long + out.equal > 0) {
    log_warn("[tokenize_pairs] ", data.source, ": left out ", out.too_long,
             " pairs with a side of more than ", max_length, " tokens and ", out.equal,
             " with the same tokens twice; ", out.pairs.size(), " are left");
  }
  out.hash = hash_of(out.pairs);
  return out;
}

}  // namespace temper
