#include "temper/kernels/tree_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_test_util.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

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
Problem make_tree(const std::vector<TreeNode>& nodes, const Shape& shape, uint32_t seed = 1) {
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

const std::vector<TreeNode> kThreeLevels = {{-1, 70}, {0, 33}, {0, 1}, {1, 40}, {1, 5}, {-1, 31}};

struct Result {
  std::vector<float> out, lse;
};

Result run(const Problem& p) {
  Result r;
  tree_attention(p.args(r.out, r.lse));
  return r;
}

/// The definition, in double.
struct Reference {
  std::vector<double> out, lse;
};

Reference reference(const Problem& p, const std::vector<double>& q, const std::vector<double>& k,
                    const std::vector<double>& v) {
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

std::vector<double> wide(const std::vector<float>& x) { return {x.begin(), x.end()}; }

void expect_matches_reference(const Problem& p, double tolerance = 3e-6) {
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

TEST(TreeAttention, OneKeyReturnsItsValue) {
  const Problem p = make_tree({{-1, 1}}, {2, 1, 8});
  const Result r = run(p);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(r.out[i], p.v[i % 8]);
}

TEST(TreeAttention, MatchesTheDefinition) {
  for (const int64_t length : {1, 31, 33, 64, 65, 200}) {
    for (const int head_dim : {8, 16, 24, 64, 128}) {
      SCOPED_TRACE(testing::Message() << length << " rows, head_dim " << head_dim);
      expect_matches_reference(make_tree({{-1, length}}, {6, 2, head_dim}));
    }
  }
}

TEST(TreeAttention, MatchesTheDefinitionOnLongTexts) {
  expect_matches_reference(make_tree({{-1, 1025}}, {3, 1, 16}));
}

TEST(TreeAttention, MatchesTheDefinitionOnTrees) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 32}, Shape{9, 3, 64, 5},
                             Shape{2, 1, 8, 64}, Shape{8, 1, 256}, Shape{7, 1, 40, 50}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << " " << shape.head_dim << " " << shape.window);
    expect_matches_reference(make_tree(kThreeLevels, shape));
  }
}

TEST(TreeAttention, LargeScoresStayFinite) {
  Problem p = make_tree({{-1, 100}}, {2, 1, 16});
  for (float& x : p.q) x *= 200.0f;
  // Scores reach 2000, where fp32 has steps of 1e-4.
  expect_matches_reference(p, 5e-4);
}

/// One query at a time, its keys scattered over pages of 32 rows in an array of their own.
void expect_decode_has_the_same_bits(const Problem& p) {
  const Result all = run(p);
  for (int64_t row = 0; row < p.rows(); row += 7) {
    const Query& query = p.queries[static_cast<size_t>(row)];
    Problem one{.shape = p.shape};
    Problem unwindowed = p;
    unwindowed.shape.window = 0;
    const auto keys = unwindowed.keys_of(row);
    const int64_t pages = (std::ssize(keys) + 31) / 32;
    one.key_rows = (pages + 3) * 32;
    // What lies in the pages beyond the visible keys must not matter.
    one.k.assign(static_cast<size_t>(one.key_rows * p.kv_width()), NAN);
    one.v = one.k;
    for (int64_t page = 0; page < pages; ++page) {
      one.spans.push_back({(pages - page) * 32, 32});
    }
    for (int64_t j = 0; j < std::ssize(keys); ++j) {
      const int64_t to = ((pages - j / 32) * 32 + j % 32) * p.kv_width();
      std::copy_n(p.k.begin() + keys[j] * p.kv_width(), p.kv_width(), one.k.begin() + to);
      std::copy_n(p.v.begin() + keys[j] * p.kv_width(), p.kv_width(), one.v.begin() + to);
    }
    one.queries = {{0, static_cast<int32_t>(pages), query.visible, query.position}};
    one.q.assign(p.q.begin() + row * p.q_width(), p.q.begin() + (row + 1) * p.q_width());
    const Result alone = run(one);
    ASSERT_TRUE(same_bits(alone.out, {all.out.begin() + row * p.q_width(),
                                      all.out.begin() + (row + 1) * p.q_width()}))
        << row;
    ASSERT_TRUE(same_bits(alone.lse, {all.lse.begin() + row * p.shape.heads,
                                      all.lse.begin() + (row + 1) * p.shape.heads}));
  }
}

TEST(TreeAttention, DecodeOverPagesHasTheBitsOfTraining) {
  expect_decode_has_the_same_bits(make_tree(kThreeLevels, {9, 3, 64}));
  expect_decode_has_the_same_bits(make_tree(kThreeLevels, {4, 4, 24}));
  expect_decode_has_the_same_bits(make_tree({{-1, 300}}, {6, 2, 64, 77}));
  expect_decode_has_the_same_bits(make_tree({{-1, 129}}, {5, 1, 128, 1}));
}

TEST(TreeAttention, EveryChunkingOfAPrefillHasTheSameBits) {
  const Problem p = make_tree({{-1, 200}}, {9, 3, 64});
  const Result all = run(p);
  for (const int64_t chunk : {1, 3, 12, 37, 64, 65}) {
    for (int64_t begin = 0; begin < p.rows(); begin += chunk) {
      const int64_t end = std::min(p.rows(), begin + chunk);
      Problem part = p;
      part.queries.assign(p.queries.begin() + begin, p.queries.begin() + end);
      part.q.assign(p.q.begin() + begin * p.q_width(), p.q.begin() + end * p.q_width());
      ASSERT_TRUE(same_bits(run(part).out, {all.out.begin() + begin * p.q_width(),
                                            all.out.begin() + end * p.q_width()}))
          << chunk << " " << begin;
    }
  }
}

/// A group that decodes behind one prompt: rows with lists of their own that share leading spans.
Problem make_group(int64_t prompt, int64_t group, const Shape& shape) {
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

TEST(TreeAttention, GroupBehindAPromptHasTheBitsOfItsMembers) {
  for (const int64_t window : {0, 100}) {
    const Problem p = make_group(200, 16, {9, 3, 64, window});
    const test::ThreadScope one_thread(1);
    expect_matches_reference(p);
    expect_decode_has_the_same_bits(p);
  }
}

TEST(TreeAttention, SameBitsForAnyThreadsAndTarget) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 8}, Shape{9, 3, 128, 21}}) {
    const Problem p = make_tree(kThreeLevels, shape);
    const Result want = run(p);
    for (const int threads : {1, 2, 3}) {
      const test::ThreadScope scope(threads);
      const Result got = run(p);
      EXPECT_TRUE(same_bits(got.out, want.out)) << threads;
      EXPECT_TRUE(same_bits(got.lse, want.lse)) << threads;
    }
    test::expect_same_bits_on_targets([&] { return run(p).out; });
    test::expect_same_bits_on_targets([&] { return run(p).lse; });
  }
}

TEST(TreeAttention, PortableFallbackAgrees) {
  // Without fma the bits differ; the numbers may not.
  const test::TargetScope scope(HWY_STATIC_TARGET);
  expect_matches_reference(make_tree(kThreeLevels, {9, 3, 24, 50}));
}

TEST(TreeAttention, NotANumberStaysWithTheRowsThatSeeIt) {
  Problem p = make_tree({{-1, 40}}, {2, 2, 16});
  p.v[20 * p.kv_width() + 3] = NAN;
  const Result r = run(p);
  for (int64_t row = 0; row < 40; ++row) {
    EXPECT_EQ(std::isnan(r.out[row * p.q_width() + 3]), row >= 20) << row;
    EXPECT_FALSE(std::isnan(r.out[row * p.q_width() + 4])) << row;
  }
  p.k[30 * p.kv_width()] = NAN;
  const Result worse = run(p);
  for (int64_t row = 0; row < 40; ++row) {
    EXPECT_EQ(std::isnan(worse.out[row * p.q_width() + 4]), row >= 30) << row;
    EXPECT_FALSE(std::isnan(worse.out[row * p.q_width() + 20])) << row;
  }
}

struct Gradients {
  std::vector<float> dq, dk, dv;
};

Gradients run_backward(const Problem& p, const std::vector<float>& dout) {
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

WideGradients reference_backward(const Problem& p, const std::vector<float>& dout) {
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

void expect_near(const std::vector<float>& got, const std::vector<double>& want, double tolerance) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - want[i]));
  EXPECT_LT(worst, tolerance);
}

void expect_gradients_match(const Problem& p) {
  const auto dout = random_floats(p.rows() * p.q_width(), 77);
  const Gradients got = run_backward(p, dout);
  const WideGradients want = reference_backward(p, dout);
  expect_near(got.dq, want.dq, 2e-5);
  expect_near(got.dk, want.dk, 2e-5);
  expect_near(got.dv, want.dv, 2e-5);
}

TEST(TreeAttentionBackward, FiniteDifferencesInDouble) {
  const Problem p = make_tree({{-1, 3}, {0, 2}, {0, 1}}, {2, 1, 8, 4});
  const auto dout = random_floats(p.rows() * p.q_width(), 7);
  auto q = wide(p.q), k = wide(p.k), v = wide(p.v);
  const auto slope = [&](double& x) {
    const double x0 = x, h = 1e-5;
    double difference = 0;
    for (const double sign : {1.0, -1.0}) {
      x = x0 + sign * h;
      const auto out = reference(p, q, k, v).out;
      for (size_t i = 0; i < out.size(); ++i) difference += sign * dout[i] * out[i];
    }
    x = x0;
    return difference / (2 * h);
  };
  const Gradients g = run_backward(p, dout);
  for (size_t i = 0; i < q.size(); ++i) ASSERT_NEAR(g.dq[i], slope(q[i]), 3e-6) << i;
  for (size_t i = 0; i < k.size(); ++i) ASSERT_NEAR(g.dk[i], slope(k[i]), 3e-6) << i;
  for (size_t i = 0; i < v.size(); ++i) ASSERT_NEAR(g.dv[i], slope(v[i]), 3e-6) << i;
}

TEST(TreeAttentionBackward, MatchesTheChainRule) {
  for (const int64_t length : {1, 31, 33, 65, 200}) {
    for (const int head_dim : {8, 24, 64, 128}) {
      SCOPED_TRACE(testing::Message() << length << " rows, head_dim " << head_dim);
      expect_gradients_match(make_tree({{-1, length}}, {6, 2, head_dim}));
    }
  }
}

TEST(TreeAttentionBackward, MatchesTheChainRuleOnTrees) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 32}, Shape{9, 3, 64, 5}, Shape{8, 1, 256},
                             Shape{7, 1, 40, 50}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << " " << shape.head_dim << " " << shape.window);
    expect_gradients_match(make_tree(kThreeLevels, shape));
  }
  expect_gradients_match(make_tree({{-1, 1025}}, {2, 1, 16}));
}

TEST(TreeAttentionBackward, SpansMayOverlapAndBeCutAnywhere) {
  // The second list continues the first 50 keys of the first; pages cut the third.
  Problem p{.shape = {3, 1, 16}};
  p.spans = {{10, 90}, {10, 50}, {100, 20}, {40, 32}, {10, 30}, {72, 8}, {120, 3}};
  for (int32_t i = 0; i < 90; ++i) p.queries.push_back({0, 1, i + 1, i});
  for (int32_t i = 0; i < 20; ++i) p.queries.push_back({1, 3, 51 + i, 50 + i});
  for (int32_t i = 0; i < 3; ++i) p.queries.push_back({3, 7, 71 + i, 70 + i});
  p.key_rows = 130;
  p.fill(9);
  expect_matches_reference(p);
  expect_gradients_match(p);
}

TEST(TreeAttentionBackward, AddsToKeyAndValueGradientsAndOverwritesQueryGradients) {
  const Problem p = make_tree({{-1, 20}, {0, 4}}, {2, 1, 8});
  const auto dout = random_floats(p.rows() * p.q_width(), 8);
  const Gradients once = run_backward(p, dout);
  Result r;
  const TreeAttentionArgs args = p.args(r.out, r.lse);
  tree_attention(args);
  Gradients g{std::vector<float>(p.q.size(), 7.0f), std::vector<float>(p.k.size(), 1.0f),
              std::vector<float>(p.v.size(), 2.0f)};
  tree_attention_backward({.forward = args,
                           .dout = dout.data(),
                           .dout_stride = p.q_width(),
                           .dq = g.dq.data(),
                           .dq_stride = p.q_width(),
                           .dk = g.dk.data(),
                           .dv = g.dv.data(),
                           .dkv_stride = p.kv_width()});
  EXPECT_TRUE(same_bits(g.dq, once.dq));
  for (size_t i = 0; i < g.dk.size(); ++i) EXPECT_EQ(g.dk[i], 1.0f + once.dk[i]);
  for (size_t i = 0; i < g.dv.size(); ++i) EXPECT_EQ(g.dv[i], 2.0f + once.dv[i]);
}

TEST(TreeAttentionBackward, SameBitsForAnyThreadsAndTarget) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 8}, Shape{9, 3, 128, 21}}) {
    const Problem p = make_tree(kThreeLevels, shape);
    const auto dout = random_floats(p.rows() * p.q_width(), 6);
    const auto everything = [&] {
      const Gradients g = run_backward(p, dout);
      std::vector<float> all = g.dq;
      all.insert(all.end(), g.dk.begin(), g.dk.end());
      all.insert(all.end(), g.dv.begin(), g.dv.end());
      return all;
    };
    const auto want = everything();
    for (const int threads : {1, 2, 3}) {
      const test::ThreadScope scope(threads);
      EXPECT_TRUE(same_bits(everything(), want)) << threads;
    }
    test::expect_same_bits_on_targets(everything);
  }
}

TEST(TreeAttentionBackward, NeedsTheLogSumExp) {
  const Problem p = make_tree({{-1, 2}}, {2, 1, 8});
  Result r;
  TreeAttentionBackwardArgs g{};
  g.forward = p.args(r.out, r.lse);
  g.forward.lse = nullptr;
  EXPECT_THROW(tree_attention_backward(g), Error);
}

TEST(TreeAttention, EmptyBatch) {
  Problem p{.shape = {2, 1, 8}};
  EXPECT_TRUE(run(p).out.empty());
}

TEST(TreeAttention, RefusesWhatItCannotRead) {
  Problem p = make_tree({{-1, 4}}, {2, 1, 8});
  std::vector<float> out, lse;
  TreeAttentionArgs a = p.args(out, lse);
  a.head_dim = 12;
  EXPECT_THROW(tree_attention(a), Error);
  a = p.args(out, lse);
  a.kv_heads = 3;
  EXPECT_THROW(tree_attention(a), Error);
  p.queries[3].visible = 5;
  EXPECT_THROW(tree_attention(p.args(out, lse)), Error);
  p.queries[3].visible = 0;
  EXPECT_THROW(tree_attention(p.args(out, lse)), Error);
  p.queries[3] = {0, 2, 1, 0};
  EXPECT_THROW(tree_attention(p.args(out, lse)), Error);
}

}  // namespace
}  // namespace temper::kernels
