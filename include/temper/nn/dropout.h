#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "temper/nn/token_batch.h"

namespace temper {

/// What is dropped out of the rows of one forward. A draw is a hash of (key, text of the row,
/// column), the key a Philox draw at (seed, `kDropout`, step, matrix): no bit depends on the batch,
/// on shared prompts or on threads.
struct Dropout {
  double rate = 0;  ///< In [0, 1).
  uint64_t seed = 0;
  int64_t step = 0;
  std::span<const uint64_t> texts;  ///< Of each row, `text_hashes`.
};

/// A hash of every row's text: the tokens of its segment up to itself behind those of the segment's
/// ancestors. Rows of equal texts have equal hashes, wherever they lie.
[[nodiscard]] std::vector<uint64_t> text_hashes(const TokenBatch& batch);

/// out = x / (1 - rate), or 0 where a column of a row is dropped.
/// @param matrix  names the draws. @param x, out  [rows, k], may be the same.
void drop_out(const Dropout& dropout, std::string_view matrix, const float* x, int64_t rows,
              int64_t k, float* out);

}  // namespace temper
