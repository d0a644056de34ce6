#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/trainer/answer_tokens.h"

namespace temper {

/// One text as the student and as the teacher read it: two prompts, and the same answer behind both.
struct DistillRow {
  AnswerGroup student;  ///< With one answer, or none where somebody has yet to write it.
  std::vector<int32_t> teacher_prompt;

  [[nodiscard]] bool has_answer() const { return !student.answers.empty(); }
  /// Rows of a batch that the teacher needs for it.
  [[nodiscard]] int64_t teacher_rows() const;
};

/// How rows become tokens.
struct DistillTokens {
  TokenLimit limit;  ///< Of the student's text; what only the teacher reads does not count.
  AnswerMask mask = AnswerMask::kCompletion;
  /// What the teacher is told and the student is not; empty: both read the same. In a conversation it
  /// is the system message, or stands before the one that a row has; before a text it stands with an
  /// empty line between them.
  std::string system_prompt;
  bool needs_prompt = false;  ///< Refuse rows without one: answers will be sampled.
};

/// Rows to distil on.
struct DistillRows {
  std::string source;
  std::vector<DistillRow> rows;
  uint64_t hash = 0;  ///< Of all that was kept, in order, with what the teacher reads.
};

/// Rows of a file: with answers (a prompt and a completion, or a conversation, whose last turn of the
/// assistant is the answer where a prompt is needed), or prompts alone.
/// @throws Error as `tokenize_answers`, and naming the line for a row without a prompt where one is
/// needed, or whose tokens differ where its prompt ends.
[[nodiscard]] DistillRows tokenize_distill_rows(const CompletionData& data, const ModelText& text,
                                                const DistillTokens& how);

/// @throws Error unless both give every id the same text and have as many ids.
void check_same_vocabulary(const Tokenizer& student, const Tokenizer& teacher);

}  // namespace temper
