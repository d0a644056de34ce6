// Attention over a tree of segments, one run of rows with equal key lists at a time.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <limits>
#include <vector>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

namespace {

/// Rows [begin, end) that share one key list, as [heads, rows, ...] and [heads, keys, ...].
struct KeyRun {
  int64_t begin;
  int64_t end;
  at::Tensor keys;  // [keys] rows of the key and value arrays, in logical order.
  at::Tensor seen;  // [rows, keys] bool.
};

KeyRun run_at(const TreeAttentionArgs& a, int64_t begin) {
  const auto query = [&](int64_t row) { return a.queries[static_cast<size_t>(row)]; };
  const auto [first, last] = std::pair{query(begin).span_begin, query(begin).span_end};
  KeyRun run{begin, begin, {}, {}};
  std::vector<int32_t> visible;
  for (; run.end < std::ssize(a.queries); ++run.end) {
    if (query(run.end).span_begin != first || query(run.end).span_end != last) break;
    visible.push_back(query(run.end).visible);
  }
  std::vector<at::Tensor> rows;
  for (int32_t i = first; i < last; ++i) {
    const KeySpan& s = a.spans[static_cast<size_t>(i)];
    rows.push_back(at::arange(s.first_row, s.first_row + s.count, at::kLong));
  }
  run.keys = at::cat(rows);
  const at::Tensor position = at::arange(run.keys.numel(), at::kLong);
  const at::Tensor limit = index(visible).unsqueeze(-1);
  run.seen = position < limit;
  if (a.window > 0) run.seen = run.seen.logical_and(position >= limit - a.window);
  return run;
}

/// The run's rows of an array [any, heads * head_dim] as [heads, rows, head_dim].
at::Tensor query_rows(const float* p, int64_t stride, const KeyRun& run, int64_t heads,
                      int64_t head_dim) {
  return at::from_blob(const_cast<float*>(p) + run.begin * stride,
                       {run.end - run.begin, heads, head_dim}, {stride, head_dim, 1}, at::kFloat)
      .transpose(0, 1);
}

/// All rows that the spans reach, [rows, kv_heads, head_dim].
at::Tensor key_rows(const TreeAttentionArgs& a, const float* p, int64_t stride) {
  int64_t rows = 0;
  for (const KeySpan& s : a.spans) rows = std::max(rows, s.first_row + s.count);
  return at::from_blob(const_cast<float*>(p), {rows, a.kv_heads, a.head_dim},
                       {stride, a.head_dim, 1}, at::kFloat);
}

/// The run's keys or values, [heads, keys, head_dim]: each key/value head serves heads / kv_heads.
at::Tensor gathered(const TreeAttentionArgs& a, const float* p, const KeyRun& run) {
  return key_rows(a, p, a.kv_stride)
      .index_select(0, run.keys)
      .repeat_interleave(a.heads / a.kv_heads, 1)
      .transpose(0, 1);
}

/// scale q k^T with -inf where a query does not see a key, [heads, rows, keys].
at::Tensor masked_scores(const TreeAttentionArgs& a, const at::Tensor& q, const at::Tensor& k,
                         const KeyRun& run) {
  return (q.matmul(k.transpose(1, 2)) * double{a.scale})
      .masked_fill(run.seen.logical_not(), -std::numeric_limits<double>::infinity());
}

}  // namespace

void tree_attention(const TreeAttentionArgs& a) {
  for (int64_t begin = 0; begin < std::ssize(a.queries);) {
    const KeyRun run = run_at(a, begin);
    const at::Tensor q = query_rows(a.q, a.q_stride, run, a.heads, a.head_dim);
    const at::Tensor k = gathered(a, a.k, run), v = gathered(a, a.v, run);
    const at::Tensor out = at::scaled_dot_product_attention(
        q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), run.seen, 0.0, false, double{a.scale});
    query_rows(a.out, a.out_stride, run, a.heads, a.head_dim).copy_(out.squeeze(0));
    if (a.lse != nullptr) {
      matrix(a.lse + begin * a.heads, run.end - begin, a.heads, a.heads)
          .copy_(masked_scores(a, q, k, run).logsumexp(-1).t());
    }
    begin = run.end;
  }
}

void tree_attention_backward(const TreeAttentionBackwardArgs& g) {
  const TreeAttentionArgs& a = g.forward;
  for (int64_t begin = 0; begin < std::ssize(a.queries);) {
    const KeyRun run = run_at(a, begin);
    const at::Tensor q = query_rows(a.q, a.q_stride, run, a.heads, a.head_dim);
    const at::Tensor dout = query_rows(g.dout, g.dout_stride, run, a.heads, a.head_dim);
    const at::Tensor k = gathered(a, a.k, run), v = gathered(a, a.v, run);
    const at::Tensor p = masked_scores(a, q, k, run).softmax(-1);
    const at::Tensor dp = dout.matmul(v.transpose(1, 2));
    const at::Tensor ds = p * (dp - (p * dp).sum(-1, true)) * double{a.scale};
    query_rows(g.dq, g.dq_stride, run, a.heads, a.head_dim).copy_(ds.matmul(k));
    // Heads that read one key/value head add up there.
    const auto add = [&](float* to, const at::Tensor& heads) {
      const at::Tensor by_key = heads.transpose(0, 1).reshape(
          {run.keys.numel(), a.kv_heads, a.heads / a.kv_heads, a.head_dim});
      key_rows(a, to, g.dkv_stride).index_add_(0, run.keys, by_key.sum(2));
    };
    add(g.dk, ds.transpose(1, 2).matmul(q));
    add(g.dv, p.transpose(1, 2).matmul(dout));
    begin = run.end;
  }
}

}  // namespace temper::ops::reference
