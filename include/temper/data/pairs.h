#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/nn/token_batch.h"

namespace temper {

/// The token ids of a preference pair: the beginning that both sides share, and what is each one's
/// own. A side is never empty as a whole, but its own part is where the other side goes on from it.
struct TokenPair {
  std::vector<int32_t> shared;
  std::vector<int32_t> chosen;
  std::vector<int32_t> rejected;
  double margin = 0;
  uint64_t line = 0;  ///< Of the row that it came from.

  /// Rows of a batch that holds this pair.
  [[nodiscard]] int64_t rows() const;
  /// Tokens of both sides, the shared ones counted twice: what a padded batch would hold.
  [[nodiscard]] int64_t tokens() const;
};

/// Cuts two whole sides at the end of what they share.
/// @throws Error if a side is empty or both are equal.
[[nodiscard]] TokenPair token_pair(std::span<const int32_t> chosen,
                                   std::span<const int32_t> rejected);

/// A token tree of pairs and the row of each side's last token.
struct PairBatch {
  TokenBatch tokens;
  std::vector<int32_t> rows;  ///< [2 P] chosen and rejected of the first pair, of the second, ...
};

/// Each shared beginning once, the two sides as its children: a forward over it gives every row the
/// bits that it has in a text of its own.
[[nodiscard]] PairBatch pack_pairs(std::span<const TokenPair* const> pairs);

}  // namespace temper
