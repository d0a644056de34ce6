#include "temper/kernels/tree_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/tree_attention_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <limits>

#include "cpu/attention_tiles-inl.h"
#include "cpu/tree_attention_plan.h"
#include "temper/core/error.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// A query head against one block of keys.
struct Pair {
  const float* q;
  const float* dout;
  float lse;
  float delta;  // dout . out
  LaneRange range;
};

Pair make_pair(const TreeAttentionBackwardArgs& g, const float* delta, int64_t row, int64_t head) {
  const TreeAttentionArgs& a = g.forward;
  return {a.q + row * a.q_stride + head * a.head_dim,
          g.dout + row * g.dout_stride + head * a.head_dim,
          a.lse[row * a.heads + head],
          delta[row * a.heads + head],
          {0, 0}};
}

struct PackedPair {
  const float* keys;    // [head_dim, kKeyBlock]
  const float* values;  // [head_dim, kKeyBlock]
  int64_t head_dim;
  float scale;
};

/// For up to kAttentionRows pairs: p = exp(scale q . key - lse) and
/// ds = scale p (dout . value - delta), [pair, kKeyBlock], zero where a pair sees nothing.
void weights_of(int count, const Pair* pairs, const PackedPair& block, float* p, float* ds) {
  const float* q[kAttentionRows];
  const float* dout[kAttentionRows];
  int keys = 0;
  for (int r = 0; r < count; ++r) {
    q[r] = pairs[r].q;
    dout[r] = pairs[r].dout;
    keys = std::max(keys, pairs[r].range.hi);
  }
  score_tile(count, q, block.keys, block.head_dim, keys, p);
  score_tile(count, dout, block.values, block.head_dim, keys, ds);
  const F16 scale = set16(block.scale);
  const F16 zero = set16(0.0f);
  for (int r = 0; r < count; ++r) {
    const LaneRange range = pairs[r].range;
    const F16 lse = set16(pairs[r].lse);
    const F16 delta = set16(pairs[r].delta);
    for (int lane = 0; lane < kKeyBlock; lane += 16) {
      float* p_at = p + r * kKeyBlock + lane;
      float* ds_at = ds + r * kKeyBlock + lane;
      if (lane + 16 <= range.lo || lane >= range.hi) {
        store16(zero, p_at);
        store16(zero, ds_at);
        continue;
      }
      const F16 e = exp16(sub16(mul16(load16(p_at), scale), lse));
      const F16 d = mul16(mul16(e, sub16(load16(ds_at), delta)), scale);
      store16(mask_lanes(e, lane, range, 0.0f), p_at);
      store16(mask_lanes(d, lane, range, 0.0f), ds_at);
    }
  }
}

/// delta[row, head] = dout . out.
void DotRows(const TreeAttentionBackwardArgs& g, float* delta, int64_t begin, int64_t end) {
  const TreeAttentionArgs& a = g.forward;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t head = 0; head < a.heads; ++head) {
      const float* dout = g.dout + row * g.dout_stride + head * a.head_dim;
      const float* out = a.out + row * a.out_stride + head * a.head_dim;
      F16 sum = set16(0.0f);
      for (int64_t i = 0; i < a.head_dim; i += 16) {
        const int64_t count = std::min<int64_t>(16, a.head_dim - i);
        sum = fma16(load_some(dout + i, count), load_some(out + i, count), sum);
      }
      delta[row * a.heads + head] = sum16(sum);
    }
  }
}

/// dq of the rows [rows.begin, rows.end) of a chunk, into sums [pairs of the rows, width].
void query_blocks(const TreeAttentionBackwardArgs& g, const float* delta, const RowRange& rows,
                  int64_t last_block, int kv_head, float* sums) {
  const TreeAttentionArgs& a = g.forward;
  const int64_t group = a.heads / a.kv_heads;
  const int64_t width = padded(a.head_dim);
  const int64_t pack = int64_t{a.head_dim} * kKeyBlock;
  float* packed = attention_scratch(1, 2 * pack);
  float* copies = attention_scratch(2, width * kKeyBlock);
  alignas(64) float p[kAttentionRows * kKeyBlock];
  alignas(64) float ds[kAttentionRows * kKeyBlock];
  BlockWalk walk(a, rows, last_block, kv_head);
  Block block;
  while (walk.next(&block)) {
    pack_transposed(block.keys, block.count, a.head_dim, packed);
    pack_transposed(block.values, block.count, a.head_dim, packed + pack);
    pad_rows(block.keys, block.count, a.head_dim, copies);
    const int64_t last = (rows.end - rows.begin) * group;
    for (int64_t first = 0; first < last; first += kAttentionRows) {
      const int n = static_cast<int>(std::min<int64_t>(kAttentionRows, last - first));
      Pair pairs[kAttentionRows];
      LaneRange range[kAttentionRows];
      bool seen = false;
      for (int r = 0; r < n; ++r) {
        const int64_t row = rows.begin + (first + r) / group;
        pairs[r] = make_pair(g, delta, row, kv_head * group + (first + r) % group);
        range[r] = pairs[r].range = lanes_of(a, row, block.base);
        seen = seen || !range[r].empty();
      }
      if (!seen) continue;
      weights_of(n, pairs, {packed, packed + pack, a.head_dim, a.scale}, p, ds);
      product_ranges(n, {sums + first * width, width, ds, kKeyBlock, 1, block.keys, width}, range);
    }
  }
}

void QueryGradient(const TreeAttentionBackwardArgs& g, const float* delta,
                   const AttentionChunk& chunk, int kv_head) {
  const TreeAttentionArgs& a = g.forward;
  const int64_t group = a.heads / a.kv_heads;
  const int64_t width = padded(a.head_dim);
  const int64_t pairs = (chunk.end - chunk.begin) * group;
  float* sums = attention_scratch(0, pairs * width);
  std::fill_n(sums, pairs * width, 0.0f);
  if (chunk.common_blocks > 0) {
    query_blocks(g, delta, {chunk.begin, chunk.end, 0}, chunk.common_blocks, kv_head, sums);
  }
  for (int64_t begin = chunk.begin; begin < chunk.end;) {
    const int64_t end = run_end(a.queries, begin, chunk.end);
    query_blocks(g, delta, {begin, end, chunk.common_blocks}, std::numeric_limits<int32_t>::max(),
                 kv_head, sums + (begin - chunk.begin) * group * width);
    begin = end;
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t head = kv_head * group + pair % group;
    float* dq = g.dq + (chunk.begin + pair / group) * g.dq_stride + head * a.head_dim;
    std::copy_n(sums + pair * width, a.head_dim, dq);
  }
}

/// Pairs that wait for their turn with one key block, and the sums that they are added to.
struct KeySums {
  PackedPair block;
  int64_t keys;
  int64_t width;
  float* dk;  // [kKeyBlock, width]
  float* dv;
  std::vector<Pair> pairs;

  /// Adds the pairs in order: dv += p^T dout, dk += ds^T q.
  void flush();
};

void KeySums::flush() {
  const auto count = std::ssize(pairs);
  if (count == 0) return;
  float* p = attention_scratch(2, 2 * count * kKeyBlock);
  float* ds = p + count * kKeyBlock;
  float* copies = attention_scratch(3, 2 * count * width);
  std::vector<const float*> q, dout;
  for (int64_t i = 0; i < count; i += kAttentionRows) {
    const int n = static_cast<int>(std::min<int64_t>(kAttentionRows, count - i));
    weights_of(n, pairs.data() + i, block, p + i * kKeyBlock, ds + i * kKeyBlock);
  }
  for (const Pair& pair : pairs) {
    q.push_back(pair.q);
    dout.push_back(pair.dout);
  }
  pad_rows(q.data(), count, block.head_dim, copies);
  pad_rows(dout.data(), count, block.head_dim, copies + count * width);
  for (int64_t key = 0; key < keys; key += kAttentionRows) {
    const int n = static_cast<int>(std::min<int64_t>(kAttentionRows, keys - key));
    // Pairs at the ends that see none of these keys carry zeros only.
    int64_t first = 0;
    int64_t last = count;
    const auto blind = [&](int64_t i) {
      const LaneRange& r = pairs[static_cast<size_t>(i)].range;
      return r.hi <= key || r.lo >= key + n;
    };
    while (first < last && blind(first)) ++first;
    while (first < last && blind(last - 1)) --last;
    product_tile(n, {dv + key * width, width, p + key, 1, kKeyBlock, dout.data(), width}, first,
                 last);
    product_tile(n, {dk + key * width, width, ds + key, 1, kKeyBlock, q.data(), width}, first,
                 last);
  }
  pairs.clear();
}

void KeyGradient(const TreeAttentionBackwardArgs& g, const float* delta, const KeyBlock& block,
                 int kv_head) {
  const TreeAttentionArgs& a = g.forward;
  const int64_t group = a.heads / a.kv_heads;
  const int64_t width = padded(a.head_dim);
  const int64_t pack = int64_t{a.head_dim} * kKeyBlock;
  float* memory = attention_scratch(0, 2 * kKeyBlock * width);
  std::fill_n(memory, 2 * kKeyBlock * width, 0.0f);
  float* packed = attention_scratch(1, 2 * pack);
  const float* rows[kKeyBlock];
  for (const auto& [source, at] : {std::pair{a.k, packed}, std::pair{a.v, packed + pack}}) {
    for (int64_t j = 0; j < block.count; ++j) {
      rows[j] = source + (block.first_row + j) * a.kv_stride + int64_t{kv_head} * a.head_dim;
    }
    pack_transposed(rows, block.count, a.head_dim, at);
  }
  KeySums sums{{packed, packed + pack, a.head_dim, a.scale},
               block.count,
               width,
               memory,
               memory + kKeyBlock * width,
               {}};
  for (const Visit& visit : block.visits) {
    for (int64_t row = visit.begin; row < visit.end; ++row) {
      const LaneRange range = lanes_of(a, row, visit.base, visit.lanes);
      if (range.empty()) continue;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        sums.pairs.push_back(make_pair(g, delta, row, head));
        sums.pairs.back().range = range;
      }
      if (std::ssize(sums.pairs) + group > kPairs) sums.flush();
    }
  }
  sums.flush();
  for (int64_t j = 0; j < block.count; ++j) {
    const int64_t at = (block.first_row + j) * g.dkv_stride + int64_t{kv_head} * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; ++d) {
      g.dk[at + d] += sums.dk[j * width + d];
      g.dv[at + d] += sums.dv[j * width + d];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(DotRows);
HWY_EXPORT(QueryGradient);
HWY_EXPORT(KeyGradient);

void tree_attention_backward(const TreeAttentionBackwardArgs& args) {
  const TreeAttentionArgs& a = args.forward;
  check_attention(a, "tree_attention_backward");
  TEMPER_CHECK(a.lse != nullptr || a.queries.empty(),
               "[tree_attention_backward] the forward must have kept its log-sum-exp");
  if (const auto op = replacement(&KernelTable::tree_attention_backward)) return op(args);
  std::vector<float> delta(a.queries.size() * static_cast<size_t>(a.heads));
  parallel_for(std::ssize(a.queries), 16, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(DotRows)(args, delta.data(), begin, end);
  });
  const std::vector<AttentionChunk> chunks = plan_chunks(a);
  const int64_t query_tasks = std::ssize(chunks) * a.kv_heads;
  for_each_task(query_tasks, [&](int64_t task) {
    const int64_t t = query_tasks - 1 - task;
    HWY_DYNAMIC_DISPATCH(QueryGradient)
    (args, delta.data(), chunks[static_cast<size_t>(t / a.kv_heads)],
     static_cast<int>(t % a.kv_heads));
  });
  // Early keys are seen by more rows, so that the order of the array is the better one here.
  const std::vector<KeyBlock> blocks = plan_key_blocks(a);
  for_each_task(std::ssize(blocks) * a.kv_heads, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(KeyGradient)
    (args, delta.data(), blocks[static_cast<size_t>(t / a.kv_heads)],
     static_cast<int>(t % a.kv_heads));
  });
}

}  // namespace temper::kernels
#endif  // HWY_ONCE
