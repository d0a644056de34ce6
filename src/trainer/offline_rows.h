#pragma once

#include <cstdint>
#include <vector>

#include "temper/data/answers.h"

namespace temper {

/// `pack_answers` of some of the rows.
[[nodiscard]] AnswerTokens pack_rows_of(const std::vector<AnswerGroup>& groups,
                                        const std::vector<size_t>& list, bool prompts = false);

/// Tokens of all answers that something predicts.
[[nodiscard]] int64_t predicted_tokens(const AnswerGroup& group);

/// Each row's prompt with the answer of the row before it in its block of the file, the first one's
/// with the last's (TRL's rule): texts that nobody wrote together.
[[nodiscard]] std::vector<AnswerGroup> mismatched_rows(const std::vector<AnswerGroup>& groups,
                                                       int64_t block);

/// Neighbouring rows in as few parts as their tokens allow.
[[nodiscard]] std::vector<std::vector<size_t>> cut_rows(const std::vector<AnswerGroup>& groups,
                                                        const std::vector<size_t>& list,
                                                        int64_t limit);

}  // namespace temper
