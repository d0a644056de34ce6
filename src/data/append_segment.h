#pragma once

#include <cstdint>
#include <span>

#include "temper/nn/token_batch.h"

namespace temper {

/// Adds a segment of these tokens, the first one at `position` of its text. @return its first row.
inline int32_t append_segment(TokenBatch& b, int32_t parent, std::span<const int32_t> ids,
                              int64_t position) {
  const auto start = static_cast<int32_t>(b.ids.size());
  b.segments.push_back({parent, start, static_cast<int32_t>(ids.size()), -1});
  for (const int32_t id : ids) {
    b.ids.push_back(id);
    b.positions.push_back(static_cast<int32_t>(position++));
  }
  return start;
}

}  // namespace temper
