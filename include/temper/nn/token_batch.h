#pragma once

#include <cstdint>
#include <vector>

namespace temper {

/// A run of tokens of a `TokenBatch`. Its rows see themselves up to their own position and all rows
/// of its ancestors.
struct Segment {
  int32_t parent = -1;  ///< Index of the segment that this one continues; -1 for a root.
  int32_t start = 0;    ///< First row in the batch.
  int32_t length = 0;   ///< Rows.
  int32_t node = -1;    ///< KvStore node that the rows are appended to; -1: keys live in the batch.
};

/// Flat token stream with a tree of segments; never a padded rectangle. Parents come before their
/// children; segments tile [0, ids.size()) in order.
struct TokenBatch {
  std::vector<int32_t> ids;        ///< [N]
  std::vector<int32_t> positions;  ///< [N] position of the token in its own text, from 0.
  std::vector<Segment> segments;

  [[nodiscard]] int64_t rows() const { return static_cast<int64_t>(ids.size()); }
};

}  // namespace temper
