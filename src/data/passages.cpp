// Words of a row: texts, messages, numbers and truth values under their keys.
#include "passages.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "json_rows.h"
#include "temper/core/error.h"

namespace temper::detail {
namespace {

using Json = nlohmann::json;

/// A message; one that calls tools may lack a content or have null there.
ChatMessage read_turn(const Json& value, const std::string& where, const std::string& key) {
  if (!value.is_object() || !value.contains("tool_calls")) return read_message(value, where, key);
  if (value.contains("content") && !value["content"].is_null()) {
    return read_message(value, where, key);
  }
  Json filled = value;
  filled["content"] = "";
  return read_message(filled, where, key);
}

}  // namespace

std::optional<RawPassage> read_passage(const Json& object, const std::string& key,
                                       const std::string& where, Tools tools) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return std::nullopt;
  RawPassage out;
  if (it->is_string()) {
    out.words.text = it->get<std::string>();
    return out;
  }
  if (!it->is_array()) refuse_value(where, key, "a string or an array of messages", *it);
  TEMPER_CHECK(!it->empty(), "[read_jsonl] ", where, ": key \"", key,
               "\": the conversation has no messages");
  for (size_t i = 0; i < it->size(); ++i) {
    const Json& message = (*it)[i];
    const std::string at = concat(key, "[", i, "]");
    TEMPER_CHECK(tools == Tools::kKeep || !message.is_object() || !message.contains("tool_calls"),
                 "[read_jsonl] ", where, ": key \"", at,
                 ".tool_calls\": conversations with tools are not read");
    out.words.turns.push_back(read_turn(message, where, at));
  }
  out.raw = *it;
  return out;
}

void make_turns(RawPassage& passage, const std::string& role) {
  if (!passage.words.turns.empty()) return;
  passage.raw = Json::array({{{"role", role}, {"content", passage.words.text}}});
  passage.words.turns.push_back({role, std::move(passage.words.text)});
  passage.words.text.clear();
}

bool begins_with(const std::vector<ChatMessage>& turns, const std::vector<ChatMessage>& head) {
  return turns.size() > head.size() && std::equal(head.begin(), head.end(), turns.begin());
}

bool has_more_than_words(const Json& messages) {
  return std::any_of(messages.begin(), messages.end(), [](const Json& message) {
    const auto content = message.find("content");
    return message.size() != 2 || content == message.end() || !content->is_string();
  });
}

bool says_nothing(const Passage& side, const std::string& whole_json) {
  if (!says_nothing(side)) return false;
  if (whole_json.empty()) return true;
  const Json messages = Json::parse(whole_json);
  const size_t answer = messages.size() - std::min(messages.size(), side.turns.size());
  for (size_t i = answer; i < messages.size(); ++i) {
    if (messages[i].contains("tool_calls") && !messages[i]["tool_calls"].empty()) return false;
  }
  return true;
}

std::string read_tools(const Json& object, const std::string& where) {
  const auto tools = object.find("tools");
  if (tools == object.end() || tools->empty() || *tools == "") return "";
  if (tools->is_array()) return tools->dump();
  if (!tools->is_string()) refuse_value(where, "tools", "an array", *tools);
  bool shallow = true;  // Writing JSON back is recursive.
  const auto watch = [&](int depth, Json::parse_event_t, Json&) {
    return shallow = shallow && depth <= kMaxJsonDepth;
  };
  const Json parsed = Json::parse(tools->get<std::string>(), watch, false);
  TEMPER_CHECK(shallow && parsed.is_array(), "[read_jsonl] ", where,
               ": key \"tools\": expected an array, or one as JSON text, nested no deeper than ",
               kMaxJsonDepth);
  return parsed.empty() ? "" : parsed.dump();
}

bool says_nothing(const Passage& side) {
  for (const ChatMessage& turn : side.turns) {
    if (turn.content.find_first_not_of(" \t\r\n") != std::string::npos) return false;
  }
  return side.text.find_first_not_of(" \t\r\n") == std::string::npos;
}

uint64_t passage_id(const Passage& passage) {
  return prompt_id(
      {.prompt = passage.text, .messages = passage.turns, .answer = {}, .extra_json = {}});
}

std::optional<double> read_number(const Json& object, const std::string& key,
                                  const std::string& where, bool cells) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return std::nullopt;
  if (it->is_number()) return it->get<double>();
  if (!cells || !it->is_string()) refuse_value(where, key, "a number", *it);
  const std::string text = it->get<std::string>();
  if (text.empty()) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  TEMPER_CHECK(whole && std::isfinite(value), "[read_jsonl] ", where, ": key \"", key,
               "\": expected a number, got other text");
  return value;
}

bool read_truth(const Json& value, const std::string& key, const std::string& where, bool cells) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number() && (value == 0 || value == 1)) return value == 1;
  if (cells && value.is_string()) {
    std::string word = value.get<std::string>();
    for (char& c : word) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    if (word == "true" || word == "1") return true;
    if (word == "false" || word == "0") return false;
  }
  TEMPER_CHECK(!value.is_number() && !(cells && value.is_string()), "[read_jsonl] ", where,
               ": key \"", key, "\": expected true, false, 1 or 0, got another value");
  refuse_value(where, key, "true, false, 1 or 0", value);
}

}  // namespace temper::detail
