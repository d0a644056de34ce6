#include <gtest/gtest.h>

#include "kernels/attention_case.h"
#include "temper/core/error.h"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels {
namespace {

using namespace attention_case;
using test::random_floats;
using test::same_bits;

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

}  // namespace
}  // namespace temper::kernels
