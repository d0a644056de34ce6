#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/data/pairs.h"
#include "temper/data/preference.h"
#include "temper/nn/models.h"

namespace temper {

/// Pairs as a model reads them, and what was left out on the way.
struct TokenizedPairs {
  std::string source;
  std::vector<TokenPair> pairs;
  int64_t too_long = 0;  ///< Pairs left out because a side has more tokens than the limit.
  int64_t equal = 0;     ///< Pairs left out because both sides are the same tokens.
  int64_t longest = 0;   ///< Tokens of the longest side that was kept.
  uint64_t hash = 0;     ///< Of all ids and margins that were kept, in order.
};

/// The ids of each pair's two sides, prompt included. A conversation is written by the model's chat
/// template, whole and with no further turn asked for; a text is encoded whole, with the tokens
/// that the tokenizer puts around a text, and the model's end token is appended unless it is there
/// (TRL's rule). Where the text of a special token stands in a text it counts as that token.
/// @param max_length  a pair with a longer side is left out, not cut; at least 1.
/// @throws Error for a conversation and a model without a template, a template that refuses a
/// conversation (naming the line), or when no pair is left.
[[nodiscard]] TokenizedPairs tokenize_pairs(const PreferenceData& data, const ModelText& text,
                                            int64_t max_length);

}  // namespace temper
