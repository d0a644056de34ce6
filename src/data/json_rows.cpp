#include "json_rows.h"

#include <utf8proc.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "temper/core/error.h"

namespace temper::detail {
namespace {

using Json = nlohmann::json;

/// Bounds the nesting before the parser sees the text: writing JSON back is recursive.
void check_depth(const Row& row, const std::string& name) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < row.text.size(); ++i) {
    const char c = row.text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
      continue;
    }
    quoted = c == '"';
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    TEMPER_CHECK(depth <= kMaxJsonDepth, "[read_jsonl] ", position_in(name, row, i),
                 ": the JSON is nested deeper than ", kMaxJsonDepth);
  }
}

Json parse_json(const Row& row, const std::string& name) {
  try {
    return Json::parse(row.text);
  } catch (const Json::parse_error& e) {
    // The parser's own sentence quotes the row; row contents stay out of logs.
    const size_t at = e.byte == 0 ? 0 : e.byte - 1;
    if (at >= row.text.size()) {
      fail("[read_jsonl] ", position_in(name, row, row.text.size()),
           ": the row ends inside its JSON: expected one whole object a line");
    }
    fail("[read_jsonl] ", position_in(name, row, at), ": the text is not valid JSON here");
  } catch (const Json::exception&) {
    fail("[read_jsonl] ", position_in(name, row, 0), ": the row holds a number out of range");
  }
}

/// A string, or parts of type "text", which are joined.
std::string read_content(const Json& value, const std::string& where, const std::string& key) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) refuse_value(where, key, "a string", value);
  std::string joined;
  for (const Json& part : value) {
    const bool text = part.is_object() && part.value("type", Json()) == "text" &&
                      part.contains("text") && part["text"].is_string();
    TEMPER_CHECK(text, "[read_jsonl] ", where, ": key \"", key,
                 "\": expected parts of type \"text\" only (images are not read)");
    joined += part["text"].get<std::string>();
  }
  return joined;
}

/// One row on its way from JSON to an example: takes keys out, so that the rest is `extra_json`.
class RowParser {
 public:
  RowParser(Json object, std::string where, const ReadOptions& options)
      : object_(std::move(object)), where_(std::move(where)), options_(options) {}

  Example parse() {
    Example example;
    take_prompt(example);
    take_answer(example);
    if (!object_.empty()) example.extra_json = object_.dump();
    example.id = prompt_id(example);
    return example;
  }

 private:
  std::string find_prompt_key() {
    if (!options_.prompt_key.empty()) {
      if (object_.contains(options_.prompt_key)) return options_.prompt_key;
      fail("[read_jsonl] ", where_, ": expected the prompt under the key \"", options_.prompt_key,
           "\", the row has ", key_names(object_));
    }
    for (const char* key : {"prompt", "messages", "question"}) {
      if (object_.contains(key)) return key;
    }
    fail("[read_jsonl] ", where_, ": expected a prompt under \"prompt\", \"messages\" or ",
         "\"question\", the row has ", key_names(object_), "; name it with prompt_key");
  }

  void take_prompt(Example& example) {
    const std::string key = find_prompt_key();
    Json value = std::move(object_[key]);
    object_.erase(key);
    if (value.is_string()) {
      example.prompt = value.get<std::string>();
      TEMPER_CHECK(!example.prompt.empty(), "[read_jsonl] ", where_, ": key \"", key,
                   "\": the prompt is empty");
      return;
    }
    if (!value.is_array()) {
      refuse_value(where_, key, "a string or an array of messages", value);
    }
    TEMPER_CHECK(!value.empty(), "[read_jsonl] ", where_, ": key \"", key,
                 "\": the conversation has no messages");
    bool lost = false;
    for (size_t i = 0; i < value.size(); ++i) {
      example.messages.push_back(read_message(value[i], where_, concat(key, "[", i, "]")));
      lost = lost || value[i].size() > 2;  // Keys that ChatMessage has no place for.
    }
    // "prompt" may end with words put into the assistant's mouth; "messages" ends with the answer.
    if (key == "messages" && example.messages.back().role == "assistant") {
      reference_turn_ = example.messages.back().content;
      example.messages.pop_back();
      TEMPER_CHECK(!example.messages.empty(), "[read_jsonl] ", where_, ": key \"", key,
                   "\": the conversation holds an assistant turn only, no prompt");
    }
    if (lost) object_[key] = std::move(value);
  }

  std::string find_answer_key() const {
    if (!options_.answer_key.empty()) return options_.answer_key;
    for (const char* key : {"answer", "solution", "ground_truth"}) {
      if (object_.contains(key) && !object_[key].is_null()) return key;
    }
    return "";
  }

  void take_answer(Example& example) {
    const std::string key = find_answer_key();
    if (key.empty()) {
      example.answer = reference_turn_.value_or("");
      return;
    }
    TEMPER_CHECK(object_.contains(key), "[read_jsonl] ", where_,
                 ": expected the answer under the key \"", key, "\", the row has ",
                 key_names(object_));
    const Json value = std::move(object_[key]);
    object_.erase(key);
    if (value.is_string()) {
      example.answer = value.get<std::string>();
    } else if (value.is_number() || value.is_boolean()) {
      example.answer = value.dump();
    } else {
      refuse_value(where_, key, "a string, a number or a boolean", value);
    }
    if (reference_turn_) object_["reference_turn"] = *reference_turn_;
  }

  Json object_;
  std::string where_;
  const ReadOptions& options_;
  std::optional<std::string> reference_turn_;
};

}  // namespace

void check_utf8(Row& row, const std::string& name, bool lossy) {
  std::string mended;
  size_t good_from = 0;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(row.text.data());
  for (size_t at = 0; at < row.text.size();) {
    if (bytes[at] < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t code = 0;
    const auto length =
        utf8proc_iterate(bytes + at, static_cast<utf8proc_ssize_t>(row.text.size() - at), &code);
    if (length > 0) {
      at += static_cast<size_t>(length);
      continue;
    }
    TEMPER_CHECK(lossy, "[read_jsonl] ", position_in(name, row, at),
                 ": the text is not valid UTF-8 here; fix the file or read it with lossy_utf8");
    mended.append(row.text, good_from, at - good_from).append("\xef\xbf\xbd");
    good_from = ++at;
  }
  if (!mended.empty()) row.text = mended.append(row.text, good_from);
}

std::string_view type_words(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string()) return "a string";
  if (value.is_number()) return "a number";
  if (value.is_boolean()) return "a boolean";
  return "null";
}

void refuse_value(const std::string& where, const std::string& key, std::string_view expected,
                  const Json& got) {
  fail("[read_jsonl] ", where, ": key \"", key, "\": expected ", expected, ", got ",
       type_words(got));
}

std::string key_names(const Json& object) {
  std::string out;
  size_t count = 0;
  for (const auto& [key, value] : object.items()) {
    if (++count > 8) return out + ", ...";
    out += (out.empty() ? "\"" : ", \"") + key.substr(0, 40) + "\"";
  }
  return out.empty() ? "no keys" : out;
}

ChatMessage read_message(const Json& value, const std::string& where, const std::string& key) {
  if (!value.is_object()) refuse_value(where, key, "a message {\"role\", \"content\"}", value);
  TEMPER_CHECK(value.contains("role") && value.contains("content"), "[read_jsonl] ", where,
               ": key \"", key, "\": a message needs \"role\" and \"content\"");
  const Json& role = value["role"];
  if (!role.is_string()) refuse_value(where, key + ".role", "a string", role);
  ChatMessage message;
  message.role = role.get<std::string>();
  TEMPER_CHECK(!message.role.empty(), "[read_jsonl] ", where, ": key \"", key,
               ".role\": the role is empty");
  message.content = read_content(value["content"], where, key + ".content");
  return message;
}

Json parse_object(Row& row, const std::string& name, bool lossy_utf8) {
  check_utf8(row, name, lossy_utf8);
  check_depth(row, name);
  Json json = parse_json(row, name);
  TEMPER_CHECK(json.is_object(), "[read_jsonl] ", position_in(name, row, 0),
               ": expected a JSON object, got ", type_words(json));
  return json;
}

Example parse_row(Row& row, const std::string& name, const ReadOptions& options) {
  Json json = parse_object(row, name, options.lossy_utf8);
  return RowParser(std::move(json), position_in(name, row, 0), options).parse();
}

}  // namespace temper::detail
