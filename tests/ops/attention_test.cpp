// Attention and its gradients against LibTorch's scaled_dot_product_attention and explicit softmax.
#include "attention_case.h"

namespace temper::test_ops {
namespace {

/// What rounding is proportional to: scores are rounded at their own size before they are
/// exponentiated, so an error of the largest score is a relative error of each weight.
double magnitude(const AttentionCase& c) { return 4 + c.largest_score(); }

void expect_agreement(const AttentionCase& c, const std::string& what) {
  const auto cpu = c.forward(kernels::tree_attention);
  const auto want = c.forward(reference().tree_attention);
  expect_within(cpu.out, want.out, magnitude(c), 4, what + ", out");
  expect_within(cpu.lse, want.lse, magnitude(c), 4, what + ", lse");
  const auto got = c.backward(kernels::tree_attention_backward, want);
  const auto gradients = c.backward(reference().tree_attention_backward, want);
  const double rows = std::sqrt(static_cast<double>(c.queries.size()));
  expect_within(got.dq, gradients.dq, 2 * magnitude(c) * c.q_scale(), 8, what + ", dq");
  expect_within(got.dk, gradients.dk, 2 * magnitude(c) * c.q_scale() * rows, 8, what + ", dk");
  expect_within(got.dv, gradients.dv, magnitude(c) * rows, 8, what + ", dv");
}

TEST(Attention, OneTextOfOddLengths) {
  for (const int64_t rows : {1, 31, 33, 65}) {
    for (const int head_dim : {8, 64}) {
      expect_agreement(AttentionCase::causal(rows, 6, 2, head_dim), std::to_string(rows) + " rows");
    }
  }
  expect_agreement(AttentionCase::causal(1025, 1, 1, 8), "1025 rows");
}

TEST(Attention, WindowAndSingleVisibleKeys) {
  AttentionCase windowed = AttentionCase::causal(131, 2, 1, 16);
  for (const int64_t window : {1, 31, 33, 64}) {
    windowed.window = window;
    expect_agreement(windowed, "window " + std::to_string(window));
  }
  AttentionCase single = AttentionCase::causal(33, 2, 1, 16);
  for (auto& q : single.queries) q.visible = 1;
  const auto out = single.forward(kernels::tree_attention).out;
  for (size_t i = 0; i < out.size(); ++i) {
    // A softmax over one key is 1, so the value comes back exactly.
    ASSERT_EQ(out[i], single.v[i % 16]) << i;
  }
  expect_agreement(single, "one key");
}

TEST(Attention, ChildrenBehindASharedPromptInPieces) {
  expect_agreement(AttentionCase::tree(70, 3, 33, 4, 2, 16), "tree");
  expect_agreement(AttentionCase::tree(1, 5, 1, 4, 1, 8), "tiny tree");
}

TEST(Attention, ScoresFarFromZero) {
  for (const float offset : {1e4f, -1e4f}) {
    AttentionCase c = AttentionCase::causal(67, 2, 1, 16);
    c.shift_scores(offset);
    expect_agreement(c, "offset");
  }
}

}  // namespace
}  // namespace temper::test_ops
