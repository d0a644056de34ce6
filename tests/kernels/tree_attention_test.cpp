#include "temper/kernels/tree_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/attention_case.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using namespace attention_case;
using test::same_bits;

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
