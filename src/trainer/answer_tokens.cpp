#include "temper/trainer/answer_tokens.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "temper/core/error.h"
#include "temper/core/log.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

size_t common_prefix(const Ids& a, const Ids& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

Json to_json(std::span<const ChatMessage> turns) {
  Json messages = Json::array();
  for (const ChatMessage& t : turns) messages.push_back({{"role", t.role}, {"content", t.content}});
  return messages;
}

/// What is encoded: a text, or messages and the tools that a template may show.
struct Words {
  bool conversation = false;
  std::string prompt, answer;  ///< Texts.
  Json messages;               ///< Prompt and answer.
  size_t prompt_turns = 0;
  Json tools;  ///< Null: none.

  [[nodiscard]] Json first(size_t turns) const {
    return Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(turns));
  }
  [[nodiscard]] const Json* tools_or_null() const { return tools.is_null() ? nullptr : &tools; }
};

Words words_of(const CompletionRecord& row) {
  Words w{.conversation = row.conversation,
          .prompt = row.prompt.text,
          .answer = row.completion.text,
          .messages = to_json(row.prompt.turns),
          .prompt_turns = row.prompt.turns.size(),
          .tools = nullptr};
  for (auto& turn : to_json(row.completion.turns)) w.messages.push_back(std::move(turn));
  if (!row.turns_json.empty()) w.messages = Json::parse(row.turns_json);
  if (!row.tools_json.empty()) w.tools = Json::parse(row.tools_json);
  return w;
}

/// The prompt as it stands before its answer; empty where there is none.
Ids encode_prompt(const Words& w, const ModelText& text) {
  if (w.conversation) {
    if (w.prompt_turns == 0) return {};
    return text.encode_rendered(text.render(w.first(w.prompt_turns), w.tools_or_null()));
  }
  if (w.prompt.empty()) return {};
  return text.tokenizer().encode(w.prompt, {.add_special_tokens = true, .allow_special = true});
}

/// Prompt and answer; a text with the tokens that the tokenizer puts around one and an end token.
Ids encode_whole(const Words& w, const ModelText& text) {
  if (w.conversation) {
    return text.encode_rendered(text.render_finished(w.messages, w.tools_or_null()));
  }
  Ids ids = text.tokenizer().encode(w.prompt + w.answer,
                                    {.add_special_tokens = true, .allow_special = true});
  const auto eos = text.eos_id();
  if (eos && (ids.empty() || ids.back() != *eos)) ids.push_back(*eos);
  return ids;
}

/// Which of the assistant's turns count: those of the answer that the row does not switch off.
std::vector<bool> counting_turns(const Words& w, const std::vector<bool>& answer_flags) {
  std::vector<bool> out;
  for (size_t i = 0; i < w.messages.size(); ++i) {
    if (w.messages[i].value("role", "") != "assistant") continue;
    const size_t at = i - std::min(i, w.prompt_turns);
    out.push_back(i >= w.prompt_turns && (at >= answer_flags.size() || answer_flags[at]));
  }
  return out;
}

/// The tokens that the assistant writes: by the template's own blocks, or, where it has none, from
/// the header that asks for a turn to the end of that turn.
std::vector<uint8_t> assistant_mask(const Words& w, const std::vector<bool>& answer_flags,
                                    const Ids& whole, const ModelText& text) {
  std::vector<uint8_t> mask(whole.size(), 0);
  const auto tokens_until = [&](std::string_view words) {
    return common_prefix(text.encode_rendered(words), whole);
  };
  const auto mark = [&](std::string_view before, std::string_view until) {
    const size_t begin = tokens_until(before), end = tokens_until(until);
    std::fill(mask.begin() + static_cast<std::ptrdiff_t>(begin),
              mask.begin() + static_cast<std::ptrdiff_t>(std::max(begin, end)), uint8_t{1});
  };
  const std::vector<bool> counts = counting_turns(w, answer_flags);
  const ChatTemplate::Rendered r = text.render_with_spans(w.messages, w.tools_or_null());
  if (!r.generation.empty()) {
    TEMPER_CHECK(r.generation.size() == counts.size(), "the template has ", r.generation.size(),
                 " {% generation %} blocks for ", counts.size(), " turns of the assistant");
    const std::string_view all = r.text;
    for (size_t i = 0; i < counts.size(); ++i) {
      const auto [begin, end] = r.generation[i];
      if (counts[i]) mark(all.substr(0, begin), all.substr(0, end));
    }
    return mask;
  }
  size_t turn = 0;
  for (size_t i = 0; i < w.messages.size(); ++i) {
    if (w.messages[i].value("role", "") != "assistant" || !counts[turn++]) continue;
    const std::string before = i == 0 ? "" : text.render(w.first(i), w.tools_or_null());
    mark(before, text.render_finished(w.first(i + 1), w.tools_or_null()));
  }
  return mask;
}

template <class T>
void add_to(StableHash& hash, std::span<const T> values) {
  hash.update({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}

uint64_t hash_of(const std::vector<AnswerGroup>& groups) {
  StableHash hash;
  for (const AnswerGroup& g : groups) {
    const int64_t sizes[] = {std::ssize(g.prompt), std::ssize(g.answers)};
    add_to<int64_t>(hash, sizes);
    add_to<int32_t>(hash, g.prompt);
    for (const TokenAnswer& a : g.answers) {
      const int64_t lengths[] = {std::ssize(a.ids), std::ssize(a.mask)};
      add_to<int64_t>(hash, lengths);
      add_to<int32_t>(hash, a.ids);
      add_to<uint8_t>(hash, a.mask);
    }
    add_to<double>(hash, {&g.label, 1});
    add_to<double>(hash, {&g.weight, 1});
  }
  return hash.value();
}

/// Puts rows that fit into a result, and counts the others.
class Collector {
 public:
  Collector(std::string source, const TokenLimit& limit) : limit_(limit) {
    TEMPER_CHECK(limit.max_length >= 2, "data.limit.max_length must be at least 2, got ",
                 limit.max_length);
    out_.source = std::move(source);
  }

  void add(AnswerGroup group) {
    const int64_t room = limit_.max_length - std::ssize(group.prompt);
    int64_t longest = 0;
    for (const TokenAnswer& a : group.answers) longest = std::max(longest, std::ssize(a.ids));
    bool fits = room > 0 && (longest <= room || limit_.too_long == "cut");
    for (TokenAnswer& a : group.answers) {
      if (!fits || std::ssize(a.ids) <= room) continue;
      a.ids.resize(static_cast<size_t>(room));
      if (!a.mask.empty()) a.mask.resize(static_cast<size_t>(room));
      ++out_.cut;
    }
    for (size_t i = 0; fits && i < group.answers.size(); ++i) fits = group.active(i) > 0;
    if (!fits) {
      ++out_.too_long;
    } else if (group.answers.size() == 2 && group.answers[0].ids == group.answers[1].ids) {
      ++out_.equal;
    } else {
      out_.longest = std::max(out_.longest, std::ssize(group.prompt) + std::min(longest, room));
      out_.groups.push_back(std::move(group));
    }
  }

  [[nodiscard]] TokenizedAnswers finish() {
    TEMPER_CHECK(!out_.groups.empty(), "[tokenize] ", out_.source, ": no row is left: ",
                 out_.too_long, " are longer than ", limit_.max_length,
                 " tokens (data.limit.max_length) or have no answer in that length, ", out_.equal,
                 " have the same tokens twice");
    if (out_.too_long + out_.cut + out_.equal > 0) {
      log_warn("[tokenize] ", out_.source, ": with at most ", limit_.max_length,
               " tokens a text, ", out_.cut, " answers lost their end; left out: ", out_.too_long,
               " rows that are too long or have no answer in that length, ", out_.equal,
               " pairs with the same tokens twice; ", out_.groups.size(), " rows are left");
    }
    out_.hash = hash_of(out_.groups);
    return std::move(out_);
  }

 private:
  const TokenLimit& limit_;
  TokenizedAnswers out_;
};

/// Runs `body`, whose errors get the row's place.
template <class Body>
void at_line(const std::string& source, uint64_t line, const Body& body) {
  try {
    body();
  } catch (const Error& e) {
    fail("[tokenize] ", source, ":", line, ": ", e.what());
  }
}

TokenAnswer rest_of(const Ids& whole, size_t begin) {
  return {{whole.begin() + static_cast<std::ptrdiff_t>(begin), whole.end()}, {}};
}

AnswerGroup encode_pair(const CompletionRecord& better, const CompletionRecord& worse,
                        const ModelText& text) {
  TEMPER_CHECK(better.line == worse.line && better.label == true && worse.label == false,
               "the row has no pair of answers");
  const Words w = words_of(better);
  const Ids prompt = encode_prompt(w, text);
  const Ids chosen = encode_whole(w, text), rejected = encode_whole(words_of(worse), text);
  TEMPER_CHECK(!chosen.empty() && !rejected.empty(), "a side has no tokens");
  const size_t border = std::min({common_prefix(prompt, chosen), common_prefix(prompt, rejected),
                                  chosen.size() - 1, rejected.size() - 1});
  AnswerGroup group;
  group.prompt.assign(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(border));
  group.answers = {rest_of(chosen, border), rest_of(rejected, border)};
  group.line = better.line;
  return group;
}

AnswerGroup encode_completion(const CompletionRecord& row, const ModelText& text, AnswerMask mask) {
  const Words w = words_of(row);
  const Ids whole = encode_whole(w, text);
  TEMPER_CHECK(!whole.empty(), "the row has no tokens");
  AnswerGroup group;
  group.line = row.line;
  group.label = row.label.value_or(true) ? 1 : 0;
  group.weight = row.weight;
  if (mask == AnswerMask::kCompletion) {
    const size_t border = std::min(common_prefix(encode_prompt(w, text), whole), whole.size() - 1);
    group.prompt.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(border));
    group.answers = {rest_of(whole, border)};
    return group;
  }
  group.answers = {{whole, {}}};
  if (mask == AnswerMask::kAssistant) {
    TEMPER_CHECK(row.conversation, "data.loss_on=assistant needs conversations, and this is a text");
    group.answers[0].mask = assistant_mask(w, row.assistant, whole, text);
  }
  return group;
}

TokenizedAnswers tokenize_wrapped(const CompletionData& data, const ModelText& text,
                                  const TokenLimit& limit, AnswerMask mask) {
  for (const CompletionRecord& row : data.records) {
    TEMPER_CHECK(!row.label, "[tokenize] ", data.source, ":", row.line,
                 ": a row with a label cannot share a text with others (data.limit.packing=wrapped)");
  }
  TokenLimit whole = limit;
  whole.packing = "none";
  whole.max_length = std::numeric_limits<int64_t>::max();
  TokenizedAnswers out = tokenize_answers(data, text, whole, mask);
  out.groups = wrap_answers(out.groups, limit.max_length);
  out.longest = 0;
  for (const AnswerGroup& g : out.groups) out.longest = std::max(out.longest, g.tokens());
  out.hash = hash_of(out.groups);
  return out;
}

}  // namespace

TokenizedAnswers tokenize_answers(const CompletionData& data, const ModelText& text,
                                  const TokenLimit& limit, AnswerMask mask) {
  if (limit.packing == "wrapped") return tokenize_wrapped(data, text, limit, mask);
  Collector out(data.source, limit);
  for (const CompletionRecord& row : data.records) {
    at_line(data.source, row.line, [&] { out.add(encode_completion(row, text, mask)); });
  }
  return out.finish();
}

TokenizedAnswers tokenize_answer_pairs(const CompletionData& data, const ModelText& text,
                                       const TokenLimit& limit) {
  const bool pairs = data.form == DataForm::kPreference || data.form == DataForm::kUltraFeedback ||
                     data.form == DataForm::kAlpacaEval;
  TEMPER_CHECK(pairs && data.records.size() % 2 == 0, "[tokenize] ", data.source, ": pairs of a ",
               "preferred and another answer are needed (keys chosen and rejected), and its rows "
               "are of the form ", form_name(data.form));
  TEMPER_CHECK(limit.packing != "wrapped", "[tokenize] ", data.source,
               ": pairs cannot be wrapped (data.limit.packing)");
  Collector out(data.source, limit);
  for (size_t i = 0; i < data.records.size(); i += 2) {
    at_line(data.source, data.records[i].line, [&] {
      out.add(encode_pair(data.records[i], data.records[i + 1], text));
    });
  }
  return out.finish();
}

}  // namespace temper
