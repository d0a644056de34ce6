#pragma once
// Problems for tree attention, its definition in double, and runs of the CPU kernel.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels::attention_case {

using Query = TreeAttentionArgs::Query;
using test::random_floats;
using test::same_bits;

struct Shape {
  int heads;
  int kv_heads;
  int head_dim;
  int64_t window = 0;
};

/// A problem with everything it points to. Query row r has key row r unless a test rewires it.
struct Problem {
  Shape shape;
  std::vector<KeySpan> spans = {};
  std::vector<Query> queries = {};
  std::vector<float> q = {}, k = {}, v = {};
  int64_t key_rows = 0;

  int64_t rows() const { return std::ssize(queries); }
  int64_t q_width() const { return int64_t{shape.heads} * shape.head_dim; }
  int64_t kv_width() const { return int64_t{shape.kv_heads} * shape.head_dim; }

  TreeAttentionArgs args(std::vector<float>& out, std::vector<float>& lse) const {
    out.resize(static_cast<size_t>(rows() * q_width()));
    lse.resize(static_cast<size_t>(rows() * shape.heads));
    return {.q = q.data(),
            .q_stride = q_width(),
            .k = k.data(),
            .v = v.data(),
            .kv_stride = kv_width(),
            .out = out.data(),
            .out_stride = q_width(),
            .lse = lse.data(),
            .spans = spans,
            .queries = queries,
            .heads = shape.heads,
            .kv_heads = shape.kv_heads,
            .head_dim = shape.head_dim,
            .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
            .window = shape.window};
  }

  void fill(uint32_t seed) {
    q = random_floats(rows() * q_width(), seed, 2.0f);
    k = random_floats(key_rows * kv_width(), seed + 1, 2.0f);
    v = random_floats(key_rows * kv_width(), seed + 2);
  }

  std::vector<int64_t> keys_of(int64_t row) const {
    std::vector<int64_t> keys;
    const Query& query = queries[static_cast<size_t>(row)];
    for (int32_t s = query.span_begin; s < query.span_end; ++s) {
      for (int64_t i = 0; i < spans[static_cast<size_t>(s)].count; ++i) {
        keys.push_back(spans[static_cast<size_t>(s)].first_row + i);
      }
    }
    keys.resize(static_cast<size_t>(query.visible));
    const int64_t drop = shape.window > 0 ? std::max<int64_t>(0, query.visible - shape.window) : 0;
    keys.erase(keys.begin(), keys.begin() + drop);
    return keys;
  }
};

struct TreeNode {
  int parent;
  int64_t length;
};

/// Nodes laid out one after the other, as in a training batch.
inline Problem make_tree(const std::vector<TreeNode>& nodes, const Shape& shape,
                         uint32_t seed = 1) {
  Problem p{.shape = shape};
  std::vector<int64_t> start, depth;
  for (const TreeNode& node : nodes) {
    std::vector<KeySpan> path = {{p.rows(), node.length}};
    for (int up = node.parent; up >= 0; up = nodes[static_cast<size_t>(up)].parent) {
      path.insert(path.begin(),
                  {start[static_cast<size_t>(up)], nodes[static_cast<size_t>(up)].length});
    }
    const int64_t before = node.parent < 0 ? 0
                                           : depth[static_cast<size_t>(node.parent)] +
                                                 nodes[static_cast<size_t>(node.parent)].length;
    start.push_back(p.rows());
    depth.push_back(before);
    const auto begin = static_cast<int32_t>(p.spans.size());
    p.spans.insert(p.spans.end(), path.begin(), path.end());
    for (int64_t i = 0; i < node.length; ++i) {
      p.queries.push_back({begin, static_cast<int32_t>(p.spans.size()),
                           static_cast<int32_t>(before + i + 1), static_cast<int32_t>(before + i)});
    }
  }
  p.key_rows = p.rows();
  p.fill(seed);
  return p;
}

inline const std::vector<TreeNode> kThreeLevels = {{-1, 70}, {0, 33}, {0, 1},
                                                   {1, 40},  {1, 5},  {-1, 31}};

struct Result {
  std::vector<float> out, lse;
};

inline Result run(const Problem& p) {
  Result r;
  tree_attention(p.args(r.out, r.lse));
  return r;
}

/// The definition, in double.
struct Reference {
  std::vector<double> out, lse;
};

inline Reference reference(const Problem& p, const std::vector<double>& q,
                           const std::vector<double>& k, const std::vector<double>& v) {
  const Shape& s = p.shape;
  Reference r;
  r.out.resize(static_cast<size_t>(p.rows() * p.q_width()));
  const double scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  for (int64_t row = 0; row < p.rows(); ++row) {
    const auto keys = p.keys_of(row);
    for (int head = 0; head < s.heads; ++head) {
      const int64_t at = row * p.q_width() + head * s.head_dim;
      const int64_t kv_at = head / (s.heads / s.kv_heads) * s.head_dim;
      std::vector<double> weight;
      double max = -1e300, total = 0;
      for (const int64_t key : keys) {
        double dot = 0;
        for (int d = 0; d < s.head_dim; ++d) dot += q[at + d] * k[key * p.kv_width() + kv_at + d];
        weight.push_back(dot * scale);
        max = std::max(max, weight.back());
      }
      for (double& w : weight) total += w = std::exp(w - max);
      for (size_t j = 0; j < keys.size(); ++j) {
        for (int d = 0; d < s.head_dim; ++d) {
          r.out[at + d] += weight[j] / total * v[keys[j] * p.kv_width() + kv_at + d];
        }
      }
      r.lse.push_back(max + std::log(total));
    }
  }
  return r;
}

inline std::vector<double> wide(const std::vector<float>& x) { return {x.begin(), x.end()}; }

inline void expect_matches_reference(const Problem& p, double tolerance = 3e-6) {
  const Result got = run(p);
  const Reference want = reference(p, wide(p.q), wide(p.k), wide(p.v));
  double worst_out = 0, worst_lse = 0;
  for (size_t i = 0; i < got.out.size(); ++i) {
    worst_out = std::max(worst_out, std::fabs(got.out[i] - want.out[i]));
  }
  for (size_t i = 0; i < got.lse.size(); ++i) {
    worst_lse = std::max(worst_lse, std::fabs(got.lse[i] - want.lse[i]));
  }
  EXPECT_LT(worst_out, tolerance);
  EXPECT_LT(worst_lse, tolerance);
}

/// A group that decodes behind one prompt: rows with lists of their own that share leading spans.
inline Problem make_group(int64_t prompt, int64_t group, const Shape& shape) {
  Problem p{.shape = shape};
  for (int64_t g = 0; g < group; ++g) {
    const auto begin = static_cast<int32_t>(p.spans.size());
    for (int64_t at = 0; at < prompt; at += 32)
      p.spans.push_back({at, std::min<int64_t>(32, prompt - at)});
    p.spans.push_back({prompt + g * 40, g + 1});
    p.queries.push_back(
        {begin, static_cast<int32_t>(p.spans.size()), static_cast<int32_t>(prompt + g + 1), 0});
  }
  p.key_rows = prompt + group * 40;
  p.fill(5);
  return p;
}

struct Gradients {
  std::vector<float> dq, dk, dv;
};

inline Gradients run_backward(const Problem& p, const std::vector<float>& dout) {
  Result r;
  const TreeAttentionArgs args = p.args(r.out, r.lse);
  tree_attention(args);
  Gradients g{std::vector<float>(p.q.size()), std::vector<float>(p.k.size()),
              std::vector<float>(p.v.size())};
  tree_attention_backward({.forward = args,
                           .dout = dout.data(),
                           .dout_stride = p.q_width(),
                           .dq = g.dq.data(),
                           .dq_stride = p.q_width(),
                           .dk = g.dk.data(),
                           .dv = g.dv.data(),
                           .dkv_stride = p.kv_width()});
  return g;
}

/// The chain rule written out in double, itself held against finite differences below.
struct WideGradients {
  std::vector<double> dq, dk, dv;
};

inline WideGradients reference_backward(const Problem& p, const std::vector<float>& dout) {
  const Shape& s = p.shape;
  const auto q = wide(p.q), k = wide(p.k), v = wide(p.v);
  const Reference forward = reference(p, q, k, v);
  const double scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  WideGradients g{std::vector<double>(q.size()), std::vector<double>(k.size()),
                  std::vector<double>(v.size())};
  for (int64_t row = 0; row < p.rows(); ++row) {
    const auto keys = p.keys_of(row);
    for (int head = 0; head < s.heads; ++head) {
      const int64_t at = row * p.q_width() + head * s.head_dim;
      double delta = 0;
      for (int d = 0; d < s.head_dim; ++d) delta += dout[at + d] * forward.out[at + d];
      for (const int64_t key : keys) {
        const int64_t kv = key * p.kv_width() + head / (s.heads / s.kv_heads) * s.head_dim;
        double dot = 0, dp = 0;
        for (int d = 0; d < s.head_dim; ++d) {
          dot += q[at + d] * k[kv + d];
          dp += dout[at + d] * v[kv + d];
        }
        const double weight = std::exp(dot * scale - forward.lse[row * s.heads + head]);
        const double ds = weight * (dp - delta) * scale;
        for (int d = 0; d < s.head_dim; ++d) {
          g.dq[at + d] += ds * k[kv + d];
          g.dk[kv + d] += ds * q[at + d];
          g.dv[kv + d] += weight * dout[at + d];
        }
      }
    }
  }
  return g;
}

inline void expect_near(const std::vector<float>& got, const std::vector<double>& want,
                        double tolerance) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - want[i]));
  EXPECT_LT(worst, tolerance);
}

inline void expect_gradients_match(const Problem& p) {
  const auto dout = random_floats(p.rows() * p.q_width(), 77);
  const Gradients got = run_backward(p, dout);
  const WideGradients want = reference_backward(p, dout);
  expect_near(got.dq, want.dq, 2e-5);
  expect_near(got.dk, want.dk, 2e-5);
  expect_near(got.dv, want.dv, 2e-5);
}

}  // namespace temper::kernels::attention_case
