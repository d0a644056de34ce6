#include "cpu/tree_attention_plan.h"

#include <hwy/cache_control.h>

#include <array>
#include <limits>

#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using Query = TreeAttentionArgs::Query;

bool same_list(const Query& a, const Query& b) {
  return a.span_begin == b.span_begin && a.span_end == b.span_end;
}

int64_t keys_in(std::span<const KeySpan> spans, const char* op) {
  int64_t total = 0;
  for (const KeySpan& s : spans) {
    TEMPER_CHECK(s.first_row >= 0 && s.count >= 0 && s.count <= std::numeric_limits<int32_t>::max(),
                 "[", op, "] a span needs first_row >= 0 and a count in [0, 2^31), got ",
                 s.first_row, " and ", s.count);
    total += s.count;
  }
  return total;
}

/// Leading keys that two lists have in common.
int64_t shared_keys(std::span<const KeySpan> a, std::span<const KeySpan> b) {
  int64_t shared = 0;
  for (size_t i = 0; i < a.size() && i < b.size() && a[i].first_row == b[i].first_row; ++i) {
    shared += std::min(a[i].count, b[i].count);
    if (a[i].count != b[i].count) break;
  }
  return shared;
}

}  // namespace

void check_attention(const TreeAttentionArgs& args, const char* op) {
  TEMPER_CHECK(args.head_dim >= 8 && args.head_dim <= 256 && args.head_dim % 8 == 0, "[", op,
               "] head_dim must be a multiple of 8 in [8, 256], got ", args.head_dim);
  TEMPER_CHECK(args.kv_heads >= 1 && args.heads >= 1 && args.heads % args.kv_heads == 0, "[", op,
               "] kv_heads must divide heads, got ", args.kv_heads, " and ", args.heads);
  TEMPER_CHECK(args.scale > 0, "[", op, "] scale must be above 0, got ", args.scale);
  TEMPER_CHECK(args.window >= 0, "[", op, "] window must not be negative, got ", args.window);
  int64_t keys = 0;
  for (size_t row = 0; row < args.queries.size(); ++row) {
    const Query& q = args.queries[row];
    if (row == 0 || !same_list(q, args.queries[row - 1])) {
      TEMPER_CHECK(
          q.span_begin >= 0 && q.span_begin <= q.span_end && q.span_end <= std::ssize(args.spans),
          "[", op, "] row ", row, " has spans [", q.span_begin, ", ", q.span_end, ") of ",
          args.spans.size());
      keys = keys_in(spans_of(args, static_cast<int64_t>(row)), op);
    }
    TEMPER_CHECK(q.visible >= 1 && q.visible <= keys, "[", op, "] row ", row, " sees ", q.visible,
                 " keys, its list has ", keys);
  }
}

int64_t run_end(std::span<const Query> queries, int64_t begin, int64_t end) {
  int64_t row = begin + 1;
  while (row < end &&
         same_list(queries[static_cast<size_t>(row)], queries[static_cast<size_t>(begin)])) {
    ++row;
  }
  return row;
}

std::vector<AttentionChunk> plan_chunks(const TreeAttentionArgs& args) {
  const int64_t rows = std::ssize(args.queries);
  // Enough tasks to keep all threads busy to the end; larger chunks pack each key block less often.
  const int64_t wanted = (rows * args.kv_heads + 4 * num_threads() - 1) / (4 * num_threads());
  const int64_t most = std::max<int64_t>(1, kPairs * args.kv_heads / args.heads);
  const int64_t limit = std::clamp<int64_t>(wanted, 1, most);
  std::vector<AttentionChunk> chunks;
  for (int64_t begin = 0; begin < rows;) {
    int64_t end = run_end(args.queries, begin, std::min(rows, begin + limit));
    int64_t common = 0;
    // Short runs (decode) that continue the same prompt read its keys together.
    for (int64_t blocks = 0; end < rows && end - begin < limit; common = blocks) {
      const int64_t stop = run_end(args.queries, end, rows);
      blocks = shared_keys(spans_of(args, begin), spans_of(args, end)) / kKeyBlock;
      if (common > 0) blocks = std::min(blocks, common);
      if (blocks < 2 || stop - begin > limit) break;
      end = stop;
    }
    chunks.push_back({begin, end, common});
    begin = end;
  }
  return chunks;
}

BlockWalk::BlockWalk(const TreeAttentionArgs& args, const RowRange& rows, int64_t last_block,
                     int kv_head)
    : args_(args),
      walk_(spans_of(args, rows.begin), 0),
      base_(0),
      last_key_(0),
      column_(int64_t{kv_head} * args.head_dim) {
  int64_t first_key = std::numeric_limits<int64_t>::max();
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    first_key = std::min(first_key, first_visible(args, row));
    last_key_ = std::max<int64_t>(last_key_, args.queries[static_cast<size_t>(row)].visible);
  }
  const int64_t first_block = std::max(rows.first_block, first_key / kKeyBlock);
  last_key_ = std::min(last_key_, last_block * kKeyBlock);
  base_ = first_block * kKeyBlock;
  walk_ = KeyWalk(spans_of(args, rows.begin), base_);
  look_ahead();
}

void BlockWalk::look_ahead() {
  count_ = std::clamp<int64_t>(last_key_ - base_, 0, kKeyBlock);
  walk_.next(count_, ahead_);
  for (int64_t j = 0; j < count_; ++j) {
    const int64_t at = ahead_[j] * args_.kv_stride + column_;
    for (int64_t d = 0; d < args_.head_dim; d += 16) {
      hwy::Prefetch(args_.k + at + d);
      hwy::Prefetch(args_.v + at + d);
    }
  }
}

bool BlockWalk::next(Block* block) {
  if (count_ == 0) return false;
  for (int64_t j = 0; j < count_; ++j) {
    const int64_t at = ahead_[j] * args_.kv_stride + column_;
    block->keys[j] = args_.k + at;
    block->values[j] = args_.v + at;
  }
  block->base = base_;
  block->count = count_;
  base_ += kKeyBlock;
  look_ahead();
  return true;
}

namespace {

/// The rows that spans cover, overlapping spans joined, so that each row lies in one range.
std::vector<KeySpan> disjoint_ranges(const TreeAttentionArgs& args) {
  std::vector<KeySpan> spans(args.spans.begin(), args.spans.end());
  std::erase_if(spans, [](const KeySpan& s) { return s.count <= 0; });
  std::sort(spans.begin(), spans.end(),
            [](const KeySpan& a, const KeySpan& b) { return a.first_row < b.first_row; });
  std::vector<KeySpan> ranges;
  for (const KeySpan& s : spans) {
    if (!ranges.empty() && s.first_row < ranges.back().first_row + ranges.back().count) {
      KeySpan& last = ranges.back();
      last.count = std::max(last.count, s.first_row + s.count - last.first_row);
    } else {
      ranges.push_back(s);
    }
  }
  return ranges;
}

}  // namespace

std::vector<KeyBlock> plan_key_blocks(const TreeAttentionArgs& args) {
  std::vector<KeyBlock> blocks;
  for (const KeySpan& range : disjoint_ranges(args)) {
    for (int64_t at = 0; at < range.count; at += kKeyBlock) {
      blocks.push_back({range.first_row + at, std::min<int64_t>(kKeyBlock, range.count - at), {}});
    }
  }
  const int64_t rows = std::ssize(args.queries);
  for (int64_t begin = 0; begin < rows;) {
    const int64_t end = run_end(args.queries, begin, rows);
    int64_t logical = 0;
    for (const KeySpan& s : spans_of(args, begin)) {
      if (s.count == 0) continue;
      const int64_t last = s.first_row + s.count;
      auto block =
          std::upper_bound(blocks.begin(), blocks.end(), s.first_row,
                           [](int64_t row, const KeyBlock& b) { return row < b.first_row; });
      for (--block; block != blocks.end() && block->first_row < last; ++block) {
        const LaneRange lanes{
            static_cast<int>(std::max<int64_t>(0, s.first_row - block->first_row)),
            static_cast<int>(std::min<int64_t>(block->count, last - block->first_row))};
        block->visits.push_back({begin, end, logical + block->first_row - s.first_row, lanes});
      }
      logical += s.count;
    }
    begin = end;
  }
  std::erase_if(blocks, [](const KeyBlock& b) { return b.visits.empty(); });
  return blocks;
}

TreeAttentionKeyPlan plan_tree_attention_keys(const TreeAttentionArgs& args) {
  check_attention(args, "plan_tree_attention_keys");
  TreeAttentionKeyPlan plan;
  for (const KeyBlock& block : plan_key_blocks(args)) {
    const size_t first = plan.visits.size();
    for (const Visit& visit : block.visits) {
      const auto blind = [&](int64_t row) {
        return lanes_of(args, row, visit.base, visit.lanes).empty();
      };
      int64_t begin = visit.begin;
      int64_t end = visit.end;
      while (begin < end && blind(begin)) ++begin;
      while (begin < end && blind(end - 1)) --end;
      if (begin == end) continue;
      plan.visits.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end), visit.base,
                             visit.lanes.lo, visit.lanes.hi});
    }
    if (plan.visits.size() == first) continue;
    plan.blocks.push_back({block.first_row, static_cast<int32_t>(block.count),
                           static_cast<int32_t>(first), static_cast<int32_t>(plan.visits.size())});
  }
  return plan;
}

float* attention_scratch(int slot, int64_t floats) {
  struct Buffer {
    hwy::AlignedFreeUniquePtr<float[]> data;
    int64_t size = 0;
  };
  thread_local std::array<Buffer, 4> buffers;
  Buffer& b = buffers[static_cast<size_t>(slot)];
  if (b.size < floats) {
    b.data = hwy::AllocateAligned<float>(static_cast<size_t>(floats));
    TEMPER_CHECK(b.data != nullptr, "[tree_attention] out of memory for ", floats, " floats");
    b.size = floats;
  }
  return b.data.get();
}

}  // namespace temper::kernels
