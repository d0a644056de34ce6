#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/nn/token_batch.h"

namespace temper {

/// The token ids of a given answer.
struct TokenAnswer {
  std::vector<int32_t> ids;   ///< Not empty.
  std::vector<uint8_t> mask;  ///< [ids] 1 = counts, 0 = only read; empty: all count.
};

/// A prompt and what is trained on behind it: one answer, or a preferred and another one.
struct AnswerGroup {
  std::vector<int32_t> prompt;  ///< Empty: nothing predicts an answer's first token.
  std::vector<TokenAnswer> answers;
  /// Of a single answer: 1 desirable, 0 undesirable, or P(preferred); of a pair that the policy
  /// sampled, what the loss takes it for (XPO: 1 where the preferred answer is the policy's).
  double label = 1;
  double weight = 1;  ///< Factor of the mask of its answers' tokens, not of their count.
  uint64_t line = 0;  ///< Of the row that it came from.

  /// Tokens of an answer that something predicts.
  [[nodiscard]] int64_t predicted(size_t answer) const;
  /// Those of them that count.
  [[nodiscard]] int64_t active(size_t answer) const;
  /// Rows of a batch that holds this group.
  [[nodiscard]] int64_t rows() const;
  /// Tokens of all answers with their prompt each: what a padded batch would hold.
  [[nodiscard]] int64_t tokens() const;
};

/// Single answers with their prompts, one behind the other, cut into texts of `max_length` tokens,
/// the last one shorter (TRL's packing_strategy wrapped). Nothing is padded and nothing cut off, but
/// a text may begin in the middle of a row, and rows see what stands before them in their text.
/// Tokens of prompts do not count. Texts in which nothing counts are left out; each has the line of
/// the row that it begins with. @param max_length  at least 2.
/// @throws Error for a group of several answers and for weights that differ.
[[nodiscard]] std::vector<AnswerGroup> wrap_answers(std::span<const AnswerGroup> groups,
                                                    int64_t max_length);

/// A token tree of groups, and what is predicted in it: first the answers' tokens, answer by
/// answer, then (if asked for) the prompts' own tokens, once for each group.
struct AnswerTokens {
  TokenBatch tokens;
  std::vector<int32_t> rows;      ///< [N + M] batch row whose next token is `targets`.
  std::vector<int32_t> targets;   ///< [N + M]
  std::vector<int32_t> sequence;  ///< [N] answer, counted over all groups.
  std::vector<float> mask;        ///< [N] the row's weight where a token counts, else 0.
  int64_t prompt_tokens = 0;      ///< M.
};

/// Each prompt once, its answers as children: a row's bits are those of its own text alone.
/// @param prompts  whether the prompts' own tokens are predicted too.
/// @throws Error for a group without answers or an empty answer.
[[nodiscard]] AnswerTokens pack_answers(std::span<const AnswerGroup* const> groups,
                                        bool prompts = false);

}  // namespace temper
