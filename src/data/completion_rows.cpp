// One row with one answer, or none, on its way from JSON to a record.
#include "completion_rows.h"

#include <initializer_list>

#include "json_rows.h"
#include "temper/core/error.h"

namespace temper::detail {
namespace {

using Json = nlohmann::json;

std::string first_key(const Json& object, const std::string& named,
                      std::initializer_list<const char*> usual) {
  if (!named.empty()) return named;
  for (const char* key : usual) {
    if (object.contains(key)) return key;
  }
  return *usual.begin();
}

std::string text_key(const Json& object, const CompletionReadOptions& options) {
  return first_key(object, options.text_key, {"text", "messages"});
}

std::string prompt_key(const Json& object, const CompletionReadOptions& options) {
  return first_key(object, options.prompt_key, {"prompt", "question"});
}

std::string completion_key(const Json& object, const CompletionReadOptions& options) {
  return first_key(object, options.completion_key, {"completion", "answer"});
}

/// One row on its way from JSON to records.
class CompletionParser {
 public:
  CompletionParser(const Json& object, const RowContext& row, const CompletionReadOptions& options)
      : object_(object), row_(row), options_(options) {}

  CompletionRecord parse(DataForm form) const {
    CompletionRecord record;
    RawPassage prompt, completion;
    switch (form) {
      case DataForm::kText:
      case DataForm::kMessages: completion = read_text(form == DataForm::kMessages); break;
      case DataForm::kPrompt: prompt = read_prompt(); break;
      case DataForm::kStepwise:
      case DataForm::kSteps:
        prompt = read_prompt();
        record.steps = read_steps();
        completion.words.text = joined(record.steps);
        break;
      default:
        prompt = read_prompt();
        completion = read(completion_key(object_, options_), "an answer");
    }
    if (form == DataForm::kUnpaired) record.label = read_label();
    place(record, std::move(prompt), std::move(completion));
    return record;
  }

 private:
  RawPassage read(const std::string& key, std::string_view what) const {
    auto passage = read_passage(object_, key, row_.where, Tools::kKeep);
    TEMPER_CHECK(passage, "[read_jsonl] ", row_.where, ": expected ", what, " under the key \"",
                 key, "\", the row has ", key_names(object_));
    return std::move(*passage);
  }

  RawPassage read_prompt() const { return read(prompt_key(object_, options_), "a prompt"); }

  RawPassage read_text(bool messages) const {
    const std::string key = text_key(object_, options_);
    RawPassage passage = read(key, messages ? "messages" : "a text");
    TEMPER_CHECK(messages == !passage.words.turns.empty(), "[read_jsonl] ", row_.where, ": key \"",
                 key, "\": expected ",
                 messages ? "an array of messages, got a string"
                          : "a string, as the first row has, got an array");
    return passage;
  }

  bool read_label() const {
    const auto it = object_.find(options_.label_key);
    TEMPER_CHECK(it != object_.end(), "[read_jsonl] ", row_.where,
                 ": expected a label under the key \"", options_.label_key, "\", the row has ",
                 key_names(object_));
    return read_truth(*it, options_.label_key, row_.where, row_.cells);
  }

  const Json& array_under(const std::string& key) const {
    const auto it = object_.find(key);
    TEMPER_CHECK(it != object_.end(), "[read_jsonl] ", row_.where,
                 ": expected an array under the key \"", key, "\", the row has ",
                 key_names(object_));
    if (!it->is_array()) refuse_value(row_.where, key, "an array", *it);
    return *it;
  }

  std::vector<LabelledStep> read_steps() const {
    const Json& texts = array_under("completions");
    const Json& labels = array_under("labels");
    TEMPER_CHECK(texts.size() == labels.size(), "[read_jsonl] ", row_.where,
                 ": key \"labels\": ", "expected one label a step, got ", labels.size(), " for ",
                 texts.size());
    std::vector<LabelledStep> steps;
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::string key = concat("completions[", i, "]");
      if (!texts[i].is_string()) refuse_value(row_.where, key, "a string", texts[i]);
      steps.push_back({texts[i].get<std::string>(),
                       read_truth(labels[i], concat("labels[", i, "]"), row_.where, row_.cells)});
    }
    return steps;
  }

  static std::string joined(const std::vector<LabelledStep>& steps) {
    std::string text;
    for (const LabelledStep& step : steps) text += (&step == &steps[0] ? "" : "\n") + step.text;
    return text;
  }

  static void cut_front(RawPassage& from, size_t n) {
    const auto count = static_cast<std::ptrdiff_t>(n);
    from.words.turns.erase(from.words.turns.begin(), from.words.turns.begin() + count);
    from.raw.erase(from.raw.begin(), from.raw.begin() + count);
  }

  static size_t turns_before_assistant(const std::vector<ChatMessage>& turns) {
    size_t n = 0;
    while (n < turns.size() && turns[n].role != "assistant") ++n;
    return n;
  }

  static void place(CompletionRecord& record, RawPassage prompt, RawPassage completion) {
    record.conversation = !prompt.words.turns.empty() || !completion.words.turns.empty();
    if (record.conversation) {
      if (!completion.words.text.empty()) make_turns(completion, "assistant");
      if (!prompt.words.text.empty()) place_text_prompt(prompt, completion);
      if (begins_with(completion.words.turns, prompt.words.turns)) {
        cut_front(completion, prompt.words.turns.size());
      }
      keep_messages(record, prompt.raw, completion.raw);
    }
    record.prompt = std::move(prompt.words);
    record.completion = std::move(completion.words);
  }

  /// A text as the prompt of messages: the user's turn, unless the messages hold their prompt.
  static void place_text_prompt(RawPassage& prompt, RawPassage& completion) {
    const auto& turns = completion.words.turns;
    const size_t n = turns_before_assistant(turns);
    if (n == 0 || n == turns.size()) return make_turns(prompt, "user");
    const auto end = static_cast<std::ptrdiff_t>(n);
    prompt.words = {"", {turns.begin(), turns.begin() + end}};
    prompt.raw = Json(Json::array_t(completion.raw.begin(), completion.raw.begin() + end));
    cut_front(completion, n);
  }

  static void keep_messages(CompletionRecord& record, Json prompt, const Json& completion) {
    for (const Json& message : completion) {
      const bool off = (message.contains("weight") && message["weight"] == 0) ||
                       (message.contains("train") && message["train"] == false);
      record.assistant.push_back(message["role"] == "assistant" && !off);
      prompt.push_back(message);
    }
    if (has_more_than_words(prompt)) record.turns_json = prompt.dump();
  }

  const Json& object_;
  const RowContext& row_;
  const CompletionReadOptions& options_;
};

}  // namespace

DataForm detect_form(const Json& object, const std::string& where,
                     const CompletionReadOptions& options) {
  const auto has = [&](const std::string& key) { return object.contains(key); };
  if (has(options.chosen_key) && has(options.rejected_key)) return DataForm::kPreference;
  if (has("completions") && has("labels")) return DataForm::kStepwise;
  const Annotations marks = annotations_of(object);
  if (marks == Annotations::kUltraFeedback) return DataForm::kUltraFeedback;
  if (marks == Annotations::kAlpacaEval) return DataForm::kAlpacaEval;
  const bool prompt = has(prompt_key(object, options));
  if (prompt && has(completion_key(object, options))) {
    return has(options.label_key) ? DataForm::kUnpaired : DataForm::kPromptCompletion;
  }
  const std::string text = text_key(object, options);
  if (has(text)) return object[text].is_array() ? DataForm::kMessages : DataForm::kText;
  if (prompt) return DataForm::kPrompt;
  fail("[read_jsonl] ", where, ": the row is of no known form, it has ", key_names(object),
       "; name its keys (prompt_key, completion_key, text_key, ...) or the form");
}

CompletionRecord record_of_row(const Json& object, const RowContext& row,
                               const CompletionReadOptions& options, DataForm form) {
  return CompletionParser(object, row, options).parse(form);
}

void read_row_columns(CompletionRecord& record, const Json& object, const RowContext& row,
                      const CompletionReadOptions& options) {
  record.weight = read_number(object, options.weight_key, row.where, row.cells).value_or(1);
  TEMPER_CHECK(record.weight >= 0, "[read_jsonl] ", row.where, ": key \"", options.weight_key,
               "\": expected a weight of at least 0, got ", record.weight);
  record.tools_json = read_tools(object, row.where);
}

}  // namespace temper::detail
