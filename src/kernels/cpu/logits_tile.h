#pragma once

#include <cstdint>

#include "temper/kernels/linear_logprob.h"

namespace temper::kernels {

/// Floats from one row of logits to the next: an odd number of cache lines, as rows a multiple of
/// 4096 bytes apart would all fall on the same few cache sets. `padded` is a multiple of 32.
constexpr int64_t logit_stride(int64_t padded) { return padded + 16; }

/// A tile of logits; columns past the support are -inf.
struct LogitsTile {
  float* z;          // The policy's.
  float* reference;  // The reference's, or null.
  int64_t padded;    // Columns, whole panels.
  int64_t stride;
  int64_t rows;
};

/// Hidden rows that are multiplied with the head and with the reference's head.
struct HiddenRows {
  const float* policy;
  int64_t policy_stride;
  const float* reference;
  int64_t reference_stride;
};

/// The hidden rows from `row` on, where they lie.
inline HiddenRows rows_from(const LinearLogprobArgs& g, int64_t row) {
  const ReferenceHead& ref = g.reference;
  return {g.hidden + row * g.hidden_stride, g.hidden_stride,
          ref.hidden == nullptr ? nullptr : ref.hidden + row * ref.hidden_stride,
          ref.hidden_stride};
}

/// Ids in the softmax.
inline int64_t support_of(const LinearLogprobArgs& g) {
  return g.support > 0 ? g.support : g.head.n;
}

/// @throws Error for options out of their range.
void check_head(const LinearLogprobArgs& g);

/// Memory for tiles of at most `rows` rows. Valid until the calling thread's next such call.
[[nodiscard]] LogitsTile allocate_tile(const LinearLogprobArgs& g, int64_t rows);

/// Fills the first `tile.rows` rows of a tile.
void compute_logits(const LinearLogprobArgs& g, const HiddenRows& hidden, const LogitsTile& tile);

/// Writes the outputs of rows [row, row + tile.rows).
void write_statistics(const LinearLogprobArgs& g, const LogitsTile& tile, int64_t row);

}  // namespace temper::kernels
