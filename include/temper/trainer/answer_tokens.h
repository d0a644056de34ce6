#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/data/answers.h"
#include "temper/data/completions.h"
#include "temper/nn/models.h"

namespace temper {

/// How long a text may be, and what becomes of a longer one.
struct TokenLimit {
  int64_t max_length = 1024;
  std::string too_long = "cut";
  std::string packing = "none";

  template <class V>
  void visit(V&& v) {
    v(max_length, "max_length", "Most tokens of a prompt and its answer together, at least 2.");
    v(too_long, "too_long",
      "What becomes of a longer text: cut at its end (TRL's rule; a row of which no answer is left "
      "is dropped), or dropped as a whole.",
      {"cut", "drop"});
    v(packing, "packing",
      "none: each row is a text of its own (nothing is padded either way); wrapped: all rows one "
      "behind the other, cut into texts of max_length tokens (TRL's strategy of that name), for "
      "supervised training on single answers.",
      {"none", "wrapped"});
  }
};

/// Which tokens of a conversation count.
enum class AnswerMask {
  kCompletion,  ///< The answer behind the prompt; of a text without a prompt, all of it.
  kAll,         ///< Prompt and answer alike.
  kAssistant    ///< What the assistant writes in any turn: the template's {% generation %} blocks, or
                ///< the turns from their header on where it has none.
};

/// Rows as a model reads them, and what was left out on the way.
struct TokenizedAnswers {
  std::string source;
  std::vector<AnswerGroup> groups;
  int64_t too_long = 0;  ///< Rows left out: longer than the limit, or no answer left in it.
  int64_t cut = 0;       ///< Answers that lost their end.
  int64_t equal = 0;     ///< Pairs left out because both sides are the same tokens.
  int64_t longest = 0;   ///< Tokens of the longest text that was kept.
  uint64_t hash = 0;     ///< Of all that was kept, in order.
};

/// Single answers, for supervised training and for judgements of one answer each. The prompt is the
/// beginning that the tokens of the prompt alone share with those of the whole (TRL's rule), so that
/// a token across the border belongs to the answer. Conversations are written by the model's chat
/// template; behind a text comes the model's end token.
/// @throws Error for a conversation and a model without a template, a template that refuses a
/// conversation (naming the line), AnswerMask::kAssistant and a row that is no conversation, rows
/// with labels that are to be wrapped, or when no row is left.
[[nodiscard]] TokenizedAnswers tokenize_answers(const CompletionData& data, const ModelText& text,
                                                const TokenLimit& limit,
                                                AnswerMask mask = AnswerMask::kCompletion);

/// Pairs, from records of which every two that follow each other are the preferred and the other
/// answer of one row, as `read_completions` gives them. Answer 0 is the preferred one.
/// @throws Error as above, and for data of a form that has no pairs.
[[nodiscard]] TokenizedAnswers tokenize_answer_pairs(const CompletionData& data,
                                                     const ModelText& text,
                                                     const TokenLimit& limit);

}  // namespace temper
