#include "temper/kernels/tree_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/tree_attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <limits>

#include "cpu/attention_tiles-inl.h"
#include "cpu/tree_attention_plan.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Running softmax of the (row, head) pairs of one chunk and one key/value head; pair = row * group
/// + head, counted within the chunk and the group.
struct Softmax {
  float* max;  // [pairs]
  float* sum;  // [pairs, 16] by lane of the key.
  float* out;  // [pairs, width] not yet divided by the sum.
  int64_t width;
};

/// Multiplies the scores of one pair by `scale`, with -infinity where it sees nothing, and returns
/// the largest.
HWY_INLINE float scale_scores(float* scores, LaneRange range, float scale) {
  const float minus_inf = -std::numeric_limits<float>::infinity();
  const F16 factor = set16(scale);
  F16 highest = set16(minus_inf);
  for (int lane = range.lo / 16 * 16; lane < range.hi; lane += 16) {
    const F16 x = mask_lanes(mul16(load16(scores + lane), factor), lane, range, minus_inf);
    store16(x, scores + lane);
    highest = max16(highest, x);
  }
  return max_of16(highest);
}

/// Takes the scores of pairs [pair, pair + n) into their running sums and replaces them by
/// exp(scale score - max). The steps go over all pairs in turn: none waits for its own maximum.
HWY_INLINE void update_softmax(const Softmax& s, int64_t pair, int n, float* scores,
                               const LaneRange* range, float scale) {
  const float minus_inf = -std::numeric_limits<float>::infinity();
  alignas(64) float before[16] = {};
  alignas(64) float max[16] = {};
  alignas(64) float shrink[16];
  for (int r = 0; r < n; ++r) {
    before[r] = s.max[pair + r];
    const float block =
        range[r].empty() ? minus_inf : scale_scores(scores + r * kKeyBlock, range[r], scale);
    max[r] = block <= before[r] ? before[r] : block;
  }
  store16(exp16(sub16(load16(before), load16(max))), shrink);
  for (int r = 0; r < n; ++r) {
    if (range[r].empty()) continue;
    float* sum = s.sum + (pair + r) * 16;
    F16 total = load16(sum);
    if (max[r] != before[r]) {  // With the maximum unchanged the factor would be exactly 1.
      const F16 factor = set16(shrink[r]);
      total = mul16(total, factor);
      float* out = s.out + (pair + r) * s.width;
      for (int64_t i = 0; i < s.width; i += 16) store16(mul16(load16(out + i), factor), out + i);
      s.max[pair + r] = max[r];
    }
    const F16 top = set16(max[r]);
    float* row = scores + r * kKeyBlock;
    for (int lane = range[r].lo / 16 * 16; lane < range[r].hi; lane += 16) {
      const F16 p = exp16(sub16(load16(row + lane), top));
      store16(p, row + lane);
      total = add16(total, p);
    }
    store16(total, sum);
  }
}

struct PackedBlock {
  const float* packed;  // Keys, [head_dim, kKeyBlock].
  const Block* rows;
};

/// The row and the key/value head that pairs are counted from.
struct PairOrigin {
  int64_t chunk_begin;
  int kv_head;
};

/// Attends rows of a chunk to one block.
void attend_block(const TreeAttentionArgs& a, const Softmax& s, const PackedBlock& block,
                  const RowRange& rows, const PairOrigin& origin) {
  const auto [chunk_begin, kv_head] = origin;
  const int64_t group = a.heads / a.kv_heads;
  const int64_t last = (rows.end - chunk_begin) * group;
  alignas(64) float scores[kAttentionRows * kKeyBlock];
  for (int64_t pair = (rows.begin - chunk_begin) * group; pair < last; pair += kAttentionRows) {
    const int n = static_cast<int>(std::min<int64_t>(kAttentionRows, last - pair));
    const float* q[kAttentionRows];
    LaneRange range[kAttentionRows];
    int keys = 0;
    for (int r = 0; r < n; ++r) {
      const int64_t row = chunk_begin + (pair + r) / group;
      const int64_t head = kv_head * group + (pair + r) % group;
      q[r] = a.q + row * a.q_stride + head * a.head_dim;
      range[r] = lanes_of(a, row, block.rows->base);
      keys = std::max(keys, range[r].hi);
    }
    if (keys == 0) continue;
    score_tile(n, q, block.packed, a.head_dim, keys, scores);
    update_softmax(s, pair, n, scores, range, a.scale);
    product_ranges(
        n, {s.out + pair * s.width, s.width, scores, kKeyBlock, 1, block.rows->values, s.width},
        range);
  }
}

/// Attends rows to the blocks [rows.first_block, last_block) of their keys.
void attend_blocks(const TreeAttentionArgs& a, const Softmax& s, const RowRange& rows,
                   int64_t last_block, int64_t chunk_begin, int kv_head) {
  float* packed = attention_scratch(1, int64_t{a.head_dim} * kKeyBlock);
  float* copies = attention_scratch(2, padded(a.head_dim) * kKeyBlock);
  BlockWalk walk(a, rows, last_block, kv_head);
  Block block;
  while (walk.next(&block)) {
    pack_transposed(block.keys, block.count, a.head_dim, packed);
    pad_rows(block.values, block.count, a.head_dim, copies);
    attend_block(a, s, {packed, &block}, rows, {chunk_begin, kv_head});
  }
}

void finish_rows(const TreeAttentionArgs& a, const Softmax& s, const AttentionChunk& chunk,
                 int kv_head) {
  const int64_t group = a.heads / a.kv_heads;
  for (int64_t pair = 0; pair < (chunk.end - chunk.begin) * group; ++pair) {
    const int64_t row = chunk.begin + pair / group;
    const int64_t head = kv_head * group + pair % group;
    const float total = sum16(load16(s.sum + pair * 16));
    const F16 inverse = set16(1.0f / total);
    float* out = a.out + row * a.out_stride + head * a.head_dim;
    for (int64_t i = 0; i < a.head_dim; i += 16) {
      store_some(mul16(load16(s.out + pair * s.width + i), inverse), out + i,
                 std::min<int64_t>(16, a.head_dim - i));
    }
    if (a.lse != nullptr) a.lse[row * a.heads + head] = s.max[pair] + log1(total);
  }
}

void AttendChunk(const TreeAttentionArgs& a, const AttentionChunk& chunk, int kv_head) {
  const int64_t pairs = (chunk.end - chunk.begin) * (a.heads / a.kv_heads);
  const int64_t width = padded(a.head_dim);
  float* memory = attention_scratch(0, pairs * (width + 16 + 1));
  const Softmax s{memory + pairs * (width + 16), memory + pairs * width, memory, width};
  std::fill_n(s.max, pairs, -std::numeric_limits<float>::infinity());
  std::fill_n(memory, pairs * (width + 16), 0.0f);
  if (chunk.common_blocks > 0) {
    attend_blocks(a, s, {chunk.begin, chunk.end, 0}, chunk.common_blocks, chunk.begin, kv_head);
  }
  for (int64_t begin = chunk.begin; begin < chunk.end;) {
    const int64_t end = run_end(a.queries, begin, chunk.end);
    attend_blocks(a, s, {begin, end, chunk.common_blocks}, std::numeric_limits<int32_t>::max(),
                  chunk.begin, kv_head);
    begin = end;
  }
  finish_rows(a, s, chunk, kv_head);
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(AttendChunk);

void tree_attention(const TreeAttentionArgs& args) {
  check_attention(args, "tree_attention");
  if (const auto op = replacement(&KernelTable::tree_attention)) return op(args);
  const std::vector<AttentionChunk> chunks = plan_chunks(args);
  const int64_t tasks = std::ssize(chunks) * args.kv_heads;
  // Later rows see more keys: they come first.
  for_each_task(tasks, [&](int64_t task) {
    const int64_t t = tasks - 1 - task;
    HWY_DYNAMIC_DISPATCH(AttendChunk)
    (args, chunks[static_cast<size_t>(t / args.kv_heads)], static_cast<int>(t % args.kv_heads));
  });
}

}  // namespace temper::kernels
#endif  // HWY_ONCE
