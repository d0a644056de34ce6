#pragma once

#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "temper/core/threads.h"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels {

/// Logical keys in a block. Part of the exactness contract: the softmax is rescaled once a block.
inline constexpr int kKeyBlock = 64;
/// (row, head) pairs that share one packed key block.
inline constexpr int64_t kPairs = 96;

/// Rows [begin, end) that one task attends together. All see the same keys in the first
/// `common_blocks` blocks; after those each run of equal span lists goes on alone.
struct AttentionChunk {
  int64_t begin;
  int64_t end;
  int64_t common_blocks;
};

/// Throws unless the arguments describe arrays that can be read.
void check_attention(const TreeAttentionArgs& args, const char* op);

/// Cuts the rows into chunks. How they are cut never changes bits.
[[nodiscard]] std::vector<AttentionChunk> plan_chunks(const TreeAttentionArgs& args);

/// First row at or after `begin`, below `end`, whose span list differs from the list of `begin`.
[[nodiscard]] int64_t run_end(std::span<const TreeAttentionArgs::Query> queries, int64_t begin,
                              int64_t end);

[[nodiscard]] inline std::span<const KeySpan> spans_of(const TreeAttentionArgs& a, int64_t row) {
  const auto& q = a.queries[static_cast<size_t>(row)];
  return a.spans.subspan(static_cast<size_t>(q.span_begin),
                         static_cast<size_t>(q.span_end - q.span_begin));
}

/// First logical key that a query sees.
[[nodiscard]] inline int64_t first_visible(const TreeAttentionArgs& a, int64_t row) {
  const int64_t visible = a.queries[static_cast<size_t>(row)].visible;
  return a.window > 0 ? std::max<int64_t>(0, visible - a.window) : 0;
}

/// Keys of one block that a query sees, as lanes of the block.
struct LaneRange {
  int lo;
  int hi;
  [[nodiscard]] bool empty() const { return lo >= hi; }
};

/// Walks a span list in logical order.
class KeyWalk {
 public:
  KeyWalk(std::span<const KeySpan> spans, int64_t logical) : spans_(spans), offset_(logical) {
    settle();
  }
  /// Writes the array rows of the next `count` keys.
  void next(int64_t count, int64_t* rows) {
    while (count > 0) {
      const KeySpan& s = spans_[index_];
      const int64_t n = std::min(count, s.count - offset_);
      for (int64_t i = 0; i < n; ++i) *rows++ = s.first_row + offset_ + i;
      offset_ += n;
      count -= n;
      settle();
    }
  }

 private:
  void settle() {
    while (index_ < spans_.size() && offset_ >= spans_[index_].count) {
      offset_ -= spans_[index_++].count;
    }
  }
  std::span<const KeySpan> spans_;
  size_t index_ = 0;
  int64_t offset_;
};

/// Rows [begin, end) that see the same keys from `first_block` on.
struct RowRange {
  int64_t begin;
  int64_t end;
  int64_t first_block;
};

/// Keys [base, base + count) of a logical key list, for one key/value head.
struct Block {
  const float* keys[kKeyBlock];
  const float* values[kKeyBlock];
  int64_t base;
  int64_t count;
};

/// Walks the blocks that rows see, from rows.first_block to before `last_block`.
class BlockWalk {
 public:
  BlockWalk(const TreeAttentionArgs& args, const RowRange& rows, int64_t last_block, int kv_head);
  /// Fills the next block and asks the cache for the one behind it; false at the end.
  bool next(Block* block);

 private:
  void look_ahead();

  const TreeAttentionArgs& args_;
  KeyWalk walk_;
  int64_t base_;
  int64_t last_key_;
  int64_t column_;
  int64_t count_ = 0;
  int64_t ahead_[kKeyBlock];
};

/// Lanes of a block at logical key `base` that a row sees, within [first, last).
[[nodiscard]] inline LaneRange lanes_of(const TreeAttentionArgs& a, int64_t row, int64_t base,
                                        LaneRange within = {0, kKeyBlock}) {
  const int64_t lo = std::max<int64_t>(within.lo, first_visible(a, row) - base);
  const int64_t hi =
      std::min<int64_t>(within.hi, a.queries[static_cast<size_t>(row)].visible - base);
  return lo < hi ? LaneRange{static_cast<int>(lo), static_cast<int>(hi)} : LaneRange{0, 0};
}

/// A run of rows that may see keys of a block of array rows.
struct Visit {
  int64_t begin;
  int64_t end;
  int64_t base;     ///< Logical key of lane 0 in the run's list; negative if the list starts later.
  LaneRange lanes;  ///< Lanes that belong to the list.
};

/// Up to kKeyBlock adjacent rows of the key array, with their visits in ascending row order.
struct KeyBlock {
  int64_t first_row;
  int64_t count;
  std::vector<Visit> visits;
};

/// Every key row that some list holds, in exactly one block.
[[nodiscard]] std::vector<KeyBlock> plan_key_blocks(const TreeAttentionArgs& args);

/// Scratch floats on cache-line boundaries, kept by the calling thread. `slot` below 4.
float* attention_scratch(int slot, int64_t floats);

/// Calls body(task) for every task, whichever thread is free first. For tasks whose results do not
/// meet; the largest should come first.
template <class Body>
void for_each_task(int64_t tasks, const Body& body) {
  std::atomic<int64_t> next{0};
  parallel_for(std::min<int64_t>(tasks, num_threads()), 1, [&](int64_t, int64_t) {
    for (int64_t t = next.fetch_add(1); t < tasks; t = next.fetch_add(1)) body(t);
  });
}

}  // namespace temper::kernels
