#include "temper/trainer/distill_rows.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "temper/core/error.h"
#include "temper/core/hash.h"
#include "temper/core/log.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

/// Puts the teacher's words into a conversation.
void add_system(Json& messages, const std::string& system) {
  if (!messages.empty() && messages[0].value("role", "") == "system") {
    messages[0]["content"] = system + "\n\n" + messages[0].value("content", "");
    return;
  }
  messages.insert(messages.begin(), Json{{"role", "system"}, {"content", system}});
}

/// A row's prompt as a model reads it, after `system` if that is not empty.
Ids prompt_ids(const CompletionRecord& row, const ModelText& text, const std::string& system) {
  if (!row.conversation) {
    const std::string before = system.empty() ? "" : system + "\n\n";
    return text.tokenizer().encode(before + row.prompt.text,
                                   {.add_special_tokens = true, .allow_special = true});
  }
  const size_t turns = row.prompt.turns.size();
  Json messages = Json::array();
  if (row.turns_json.empty()) {
    for (const ChatMessage& t : row.prompt.turns) {
      messages.push_back({{"role", t.role}, {"content", t.content}});
    }
  } else {
    const Json all = Json::parse(row.turns_json);
    messages = Json(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(turns));
  }
  if (!system.empty()) add_system(messages, system);
  const Json tools = row.tools_json.empty() ? Json() : Json::parse(row.tools_json);
  return text.encode_rendered(text.render(messages, tools.is_null() ? nullptr : &tools));
}

/// Makes the last turn of the assistant the answer of a conversation that has no prompt.
void take_last_turn(CompletionRecord& row) {
  auto& turns = row.completion.turns;
  if (!row.conversation || !row.prompt.turns.empty() || turns.size() < 2 ||
      turns.back().role != "assistant") {
    return;
  }
  row.prompt.turns.assign(turns.begin(), turns.end() - 1);
  turns.erase(turns.begin(), turns.end() - 1);
  if (!row.assistant.empty()) row.assistant = {row.assistant.back()};
}

/// The teacher's prompt before the same answer. Where the first token of the answer took in the end
/// of the prompt, the teacher's prompt loses that end too.
Ids teacher_prompt(const CompletionRecord& row, const ModelText& text, const AnswerGroup& student,
                   const std::string& system) {
  if (system.empty()) return student.prompt;
  const Ids own = prompt_ids(row, text, "");
  Ids ids = prompt_ids(row, text, system);
  const auto lost = std::ssize(own) - std::ssize(student.prompt);
  TEMPER_CHECK(lost >= 0 && std::ssize(ids) > lost &&
                   std::equal(own.end() - lost, own.end(), ids.end() - lost),
               "the tokens where the prompt ends are not the same behind the teacher's prompt");
  ids.resize(ids.size() - static_cast<size_t>(lost));
  return ids;
}

/// Runs `body`, whose errors get the row's place.
template <class Body>
void at_line(const std::string& source, uint64_t line, const Body& body) {
  try {
    body();
  } catch (const Error& e) {
    fail("[distill] ", source, ":", line, ": ", e.what());
  }
}

/// Prompts alone: somebody is still to answer them.
std::vector<DistillRow> prompt_rows(const CompletionData& data, const ModelText& text,
                                    const DistillTokens& how) {
  std::vector<DistillRow> out;
  int64_t too_long = 0;
  for (const CompletionRecord& record : data.records) {
    at_line(data.source, record.line, [&] {
      DistillRow row;
      row.student.prompt = prompt_ids(record, text, "");
      row.student.line = record.line;
      row.student.weight = record.weight;
      row.teacher_prompt = teacher_prompt(record, text, row.student, how.system_prompt);
      const bool fits = std::ssize(row.student.prompt) < how.limit.max_length;
      too_long += fits ? 0 : 1;
      if (fits) out.push_back(std::move(row));
    });
  }
  TEMPER_CHECK(!out.empty(), "[distill] ", data.source, ": no prompt is left: all have ",
               how.limit.max_length, " tokens or more (data.limit.max_length)");
  if (too_long > 0) {
    log_warn("[distill] ", data.source, ": ", too_long, " prompts of ", how.limit.max_length,
             " tokens or more are left out");
  }
  return out;
}

/// Rows with their answers. `tokenize_answers` leaves rows out; what stays keeps its order and line.
std::vector<DistillRow> answered_rows(const CompletionData& data, const ModelText& text,
                                      const DistillTokens& how) {
  std::vector<DistillRow> out;
  size_t at = 0;
  for (AnswerGroup& group : tokenize_answers(data, text, how.limit, how.mask).groups) {
    while (data.records[at].line != group.line) ++at;
    const CompletionRecord& record = data.records[at];
    at_line(data.source, group.line, [&] {
      const bool needed = how.needs_prompt || !how.system_prompt.empty();
      TEMPER_CHECK(!needed || !group.prompt.empty(),
                   "this row has no prompt of its own, which a teacher's system prompt stands "
                   "before and a sampled answer behind: give a prompt and a completion");
      DistillRow row;
      row.teacher_prompt = teacher_prompt(record, text, group, how.system_prompt);
      row.student = std::move(group);
      out.push_back(std::move(row));
    });
  }
  return out;
}

template <class T>
void add_to(StableHash& hash, std::span<const T> values) {
  hash.update({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}

uint64_t hash_of(const std::vector<DistillRow>& rows) {
  StableHash hash;
  for (const DistillRow& r : rows) {
    const Ids none;
    const std::vector<uint8_t> all;
    const Ids& answer = r.has_answer() ? r.student.answers[0].ids : none;
    const std::vector<uint8_t>& mask = r.has_answer() ? r.student.answers[0].mask : all;
    const int64_t sizes[] = {std::ssize(r.student.prompt), std::ssize(r.teacher_prompt),
                             std::ssize(answer), std::ssize(mask)};
    add_to<int64_t>(hash, sizes);
    for (const Ids* ids : {&r.student.prompt, &r.teacher_prompt, &answer}) {
      add_to<int32_t>(hash, *ids);
    }
    add_to<uint8_t>(hash, mask);
    add_to<double>(hash, {&r.student.weight, 1});
  }
  return hash.value();
}

}  // namespace

int64_t DistillRow::teacher_rows() const {
  const int64_t answer = has_answer() ? std::ssize(student.answers[0].ids) - 1 : 0;
  return std::ssize(teacher_prompt) + answer;
}

DistillRows tokenize_distill_rows(const CompletionData& data, const ModelText& text,
                                  const DistillTokens& how) {
  TEMPER_CHECK(how.limit.packing == "none",
               "[distill] data.limit.packing must be none: rows keep their own prompts");
  DistillRows out;
  out.source = data.source;
  if (data.form == DataForm::kPrompt) {
    out.rows = prompt_rows(data, text, how);
  } else {
    CompletionData read = data;
    if (how.needs_prompt || !how.system_prompt.empty()) {
      for (CompletionRecord& row : read.records) take_last_turn(row);
    }
    out.rows = answered_rows(read, text, how);
  }
  out.hash = hash_of(out.rows);
  return out;
}

void check_same_vocabulary(const Tokenizer& student, const Tokenizer& teacher) {
  const int64_t ids = student.vocab_size();
  TEMPER_CHECK(ids == teacher.vocab_size(), "[distill] the teacher's tokenizer has ",
               teacher.vocab_size(), " tokens and the student's ", ids,
               ": distributions over different tokens cannot be compared");
  for (int32_t id = 0; id < ids; ++id) {
    const std::string own = student.decode({&id, 1}, false), other = teacher.decode({&id, 1}, false);
    TEMPER_CHECK(own == other, "[distill] token ", id, " is \"", own, "\" to the student and \"",
                 other, "\" to the teacher: their vocabularies must be the same");
  }
}

}  // namespace temper
