#pragma once

#include "ops_test_util.h"
#include "temper/kernels/tree_attention.h"

namespace temper::test_ops {

/// Arrays and key lists of one attention call.
struct AttentionCase {
  struct Out {
    Floats out, lse;
  };
  struct Gradients {
    Floats dq, dk, dv;
  };

  AttentionCase(int64_t rows, int heads_, int kv_heads_, int head_dim_)
      : heads(heads_),
        kv_heads(kv_heads_),
        head_dim(head_dim_),
        q(random_floats(rows * heads_ * head_dim_, 31)),
        k(random_floats(rows * kv_heads_ * head_dim_, 32)),
        v(random_floats(rows * kv_heads_ * head_dim_, 33)),
        dout(random_floats(rows * heads_ * head_dim_, 34)),
        scale(1.0f / std::sqrt(static_cast<float>(head_dim_))) {}

  /// One text: row r sees keys 0..r.
  static AttentionCase causal(int64_t rows, int heads, int kv_heads, int head_dim) {
    AttentionCase c(rows, heads, kv_heads, head_dim);
    c.spans = {{0, rows}};
    for (int32_t r = 0; r < rows; ++r) c.queries.push_back({0, 1, r + 1, r});
    return c;
  }

  /// A prompt, its keys listed in two pieces, and children that see it and themselves.
  static AttentionCase tree(int64_t prompt, int64_t children, int64_t length, int heads,
                            int kv_heads, int head_dim) {
    AttentionCase c(prompt + children * length, heads, kv_heads, head_dim);
    const int64_t piece = prompt / 2;
    c.spans = {{0, piece}, {piece, prompt - piece}};
    if (piece == 0) c.spans.erase(c.spans.begin());
    const std::vector<kernels::KeySpan> shared = c.spans;
    const auto row = [&](int32_t begin, int64_t visible) {
      c.queries.push_back({begin, static_cast<int32_t>(c.spans.size()),
                           static_cast<int32_t>(visible), static_cast<int32_t>(visible) - 1});
    };
    for (int64_t r = 0; r < prompt; ++r) row(0, r + 1);
    for (int64_t child = 0; child < children; ++child) {
      const auto begin = static_cast<int32_t>(c.spans.size());
      c.spans.insert(c.spans.end(), shared.begin(), shared.end());
      c.spans.push_back({prompt + child * length, length});
      for (int64_t r = 0; r < length; ++r) row(begin, prompt + r + 1);
    }
    return c;
  }

  /// Adds `offset` to every score: the last component of all queries and keys becomes a constant.
  void shift_scores(float offset) {
    const float side = std::sqrt(std::abs(offset) / scale);
    const auto width = static_cast<size_t>(head_dim);
    for (size_t i = width - 1; i < q.size(); i += width) q[i] = std::copysign(side, offset);
    for (size_t i = width - 1; i < k.size(); i += width) k[i] = side;
  }

  [[nodiscard]] double largest_score() const {
    return double{scale} * head_dim * q_scale() * q_scale();
  }
  [[nodiscard]] double q_scale() const { return double{*std::max_element(k.begin(), k.end())}; }

  [[nodiscard]] kernels::TreeAttentionArgs args(float* out, float* lse) const {
    kernels::TreeAttentionArgs a{};
    a.q = q.data();
    a.q_stride = a.out_stride = int64_t{heads} * head_dim;
    a.k = k.data();
    a.v = v.data();
    a.kv_stride = int64_t{kv_heads} * head_dim;
    a.out = out;
    a.lse = lse;
    a.spans = spans;
    a.queries = queries;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.head_dim = head_dim;
    a.scale = scale;
    a.window = window;
    return a;
  }

  template <class Op>
  [[nodiscard]] Out forward(Op op) const {
    Out o{Floats(q.size()), Floats(queries.size() * static_cast<size_t>(heads))};
    op(args(o.out.data(), o.lse.data()));
    return o;
  }

  template <class Op>
  [[nodiscard]] Gradients backward(Op op, Out forward) const {
    Gradients g{Floats(q.size()), random_floats(std::ssize(k), 35),
                random_floats(std::ssize(v), 36)};
    kernels::TreeAttentionBackwardArgs b{};
    b.forward = args(forward.out.data(), forward.lse.data());
    b.dout = dout.data();
    b.dout_stride = b.dq_stride = int64_t{heads} * head_dim;
    b.dq = g.dq.data();
    b.dk = g.dk.data();
    b.dv = g.dv.data();
    b.dkv_stride = int64_t{kv_heads} * head_dim;
    op(b);
    return g;
  }

  int heads, kv_heads, head_dim;
  Floats q, k, v, dout;
  float scale;
  int64_t window = 0;
  std::vector<kernels::KeySpan> spans;
  std::vector<kernels::TreeAttentionArgs::Query> queries;
};

}  // namespace temper::test_ops
