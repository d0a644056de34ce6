#include "temper/data/answers.h"

#include <algorithm>

#include "append_segment.h"
#include "temper/core/error.h"

namespace temper {
namespace {

/// A segment whose rows predict its own next tokens.
void predict_inside(AnswerTokens& out, int32_t start, std::span<const int32_t> ids) {
  for (size_t t = 1; t < ids.size(); ++t) {
    out.rows.push_back(start + static_cast<int32_t>(t) - 1);
    out.targets.push_back(ids[t]);
  }
}

/// @param parent, prompt_end  the prompt's segment and last row; -1: it has none.
void append_answer(AnswerTokens& out, const AnswerGroup& group, const TokenAnswer& answer,
                   int32_t sequence, int32_t parent, int32_t prompt_end) {
  const std::span<const int32_t> ids = answer.ids;
  TEMPER_CHECK(!ids.empty(), "[pack_answers] the answer of line ", group.line, " has no tokens");
  TEMPER_CHECK(answer.mask.empty() || answer.mask.size() == ids.size(),
               "[pack_answers] a mask has ", answer.mask.size(), " entries for ", ids.size(),
               " tokens");
  if (parent >= 0) {
    out.rows.push_back(prompt_end);
    out.targets.push_back(ids[0]);
  }
  if (ids.size() > 1) {  // Nothing is predicted from the last token.
    const auto kept = ids.first(ids.size() - 1);
    predict_inside(out, append_segment(out.tokens, parent, kept, std::ssize(group.prompt)), ids);
  }
  const auto weight = static_cast<float>(group.weight);
  for (size_t t = parent >= 0 ? 0 : 1; t < ids.size(); ++t) {
    out.sequence.push_back(sequence);
    out.mask.push_back(answer.mask.empty() || answer.mask[t] != 0 ? weight : 0.0f);
  }
}

}  // namespace

int64_t AnswerGroup::predicted(size_t answer) const {
  return std::ssize(answers[answer].ids) - (prompt.empty() ? 1 : 0);
}

int64_t AnswerGroup::active(size_t answer) const {
  const auto& mask = answers[answer].mask;
  if (mask.empty()) return predicted(answer);
  return std::count_if(mask.begin() + (prompt.empty() ? 1 : 0), mask.end(),
                       [](uint8_t m) { return m != 0; });
}

int64_t AnswerGroup::rows() const {
  int64_t n = std::ssize(prompt);
  for (const TokenAnswer& a : answers) n += std::ssize(a.ids) - 1;
  return n;
}

int64_t AnswerGroup::tokens() const {
  int64_t n = 0;
  for (const TokenAnswer& a : answers) n += std::ssize(prompt) + std::ssize(a.ids);
  return n;
}

std::vector<AnswerGroup> wrap_answers(std::span<const AnswerGroup> groups, int64_t max_length) {
  TEMPER_CHECK(max_length >= 2, "[wrap_answers] max_length must be at least 2, got ", max_length);
  std::vector<AnswerGroup> out;
  AnswerGroup text;
  const auto finish = [&] {
    if (text.answers.empty()) return;
    if (text.active(0) > 0) out.push_back(text);
    text.answers.clear();
  };
  const auto add = [&](const AnswerGroup& from, int32_t id, uint8_t counts) {
    if (text.answers.empty()) {
      text = {.prompt = {}, .answers = {{}}, .weight = from.weight, .line = from.line};
    }
    text.answers[0].ids.push_back(id);
    text.answers[0].mask.push_back(counts);
    if (std::ssize(text.answers[0].ids) == max_length) finish();
  };
  for (const AnswerGroup& group : groups) {
    TEMPER_CHECK(group.answers.size() == 1, "[wrap_answers] line ", group.line, " has ",
                 group.answers.size(), " answers; single answers alone can be wrapped");
    TEMPER_CHECK(group.weight == groups[0].weight, "[wrap_answers] line ", group.line,
                 " has another weight than line ", groups[0].line,
                 "; rows that share a text need the same");
    for (const int32_t id : group.prompt) add(group, id, 0);
    const TokenAnswer& answer = group.answers[0];
    for (size_t t = 0; t < answer.ids.size(); ++t) {
      add(group, answer.ids[t], answer.mask.empty() ? uint8_t{1} : answer.mask[t]);
    }
  }
  finish();
  return out;
}

AnswerTokens pack_answers(std::span<const AnswerGroup* const> groups, bool prompts) {
  AnswerTokens out;
  int32_t sequence = 0;
  std::vector<int32_t> prompt_starts;
  for (const AnswerGroup* group : groups) {
    TEMPER_CHECK(!group->answers.empty(), "[pack_answers] the group of line ", group->line,
                 " has no answer");
    int32_t parent = -1, end = -1;
    if (!group->prompt.empty()) {
      parent = static_cast<int32_t>(out.tokens.segments.size());
      prompt_starts.push_back(append_segment(out.tokens, -1, group->prompt, 0));
      end = static_cast<int32_t>(out.tokens.ids.size()) - 1;
    } else {
      prompt_starts.push_back(-1);
    }
    for (const TokenAnswer& answer : group->answers) {
      append_answer(out, *group, answer, sequence++, parent, end);
    }
  }
  if (!prompts) return out;
  const auto answer_tokens = std::ssize(out.rows);
  for (size_t g = 0; g < groups.size(); ++g) {
    if (prompt_starts[g] >= 0) predict_inside(out, prompt_starts[g], groups[g]->prompt);
  }
  out.prompt_tokens = std::ssize(out.rows) - answer_tokens;
  return out;
}

}  // namespace temper
