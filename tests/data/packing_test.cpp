#include "temper/data/packing.h"

#include <gtest/gtest.h>

#include "temper/core/error.h"

namespace temper {
namespace {

using Ids = std::vector<int32_t>;

void expect_segment(const Segment& s, int32_t parent, int32_t start, int32_t length) {
  EXPECT_EQ(s.parent, parent);
  EXPECT_EQ(s.start, start);
  EXPECT_EQ(s.length, length);
  EXPECT_EQ(s.node, -1);
}

TEST(Packing, TwoGroupsByHand) {
  // Rows: 0 1 2 = prompt 5 6 7 | 3 4 = 10 11 (of 10 11 12) | 5 = 20 (of 20 21) | 6 = prompt 8 |
  // 7 = 30 (of 30 31).
  const Ids p0{5, 6, 7}, a{10, 11, 12}, b{20, 21}, p1{8}, c{30, 31};
  const std::vector<PackedGroup> groups{{p0, {a, b}}, {p1, {c}}};
  const CompletionBatch out = pack_completions(groups);
  EXPECT_EQ(out.tokens.ids, (Ids{5, 6, 7, 10, 11, 20, 8, 30}));
  EXPECT_EQ(out.tokens.positions, (Ids{0, 1, 2, 3, 4, 3, 0, 1}));
  ASSERT_EQ(out.tokens.segments.size(), 5u);
  expect_segment(out.tokens.segments[0], -1, 0, 3);
  expect_segment(out.tokens.segments[1], 0, 3, 2);
  expect_segment(out.tokens.segments[2], 0, 5, 1);
  expect_segment(out.tokens.segments[3], -1, 6, 1);
  expect_segment(out.tokens.segments[4], 3, 7, 1);
  EXPECT_EQ(out.targets, (Ids{10, 11, 12, 20, 21, 30, 31}));
  EXPECT_EQ(out.rows, (Ids{2, 3, 4, 2, 5, 6, 7}));
  EXPECT_EQ(out.sequence, (Ids{0, 0, 0, 1, 1, 2, 2}));
}

TEST(Packing, OneTokenCompletionsNeedNoRowOfTheirOwn) {
  const Ids prompt{1, 2}, a{9}, b{7}, c{4, 3};
  const std::vector<PackedGroup> groups{{prompt, {a, b, c}}};
  const CompletionBatch out = pack_completions(groups);
  EXPECT_EQ(out.tokens.ids, (Ids{1, 2, 4}));
  ASSERT_EQ(out.tokens.segments.size(), 2u);
  expect_segment(out.tokens.segments[1], 0, 2, 1);
  EXPECT_EQ(out.rows, (Ids{1, 1, 1, 2}));
  EXPECT_EQ(out.targets, (Ids{9, 7, 4, 3}));
  EXPECT_EQ(out.sequence, (Ids{0, 1, 2, 2}));
}

TEST(Packing, EmptyCompletionKeepsItsNumber) {
  const Ids prompt{1}, none{}, b{7};
  const std::vector<PackedGroup> groups{{prompt, {none, b}}};
  const CompletionBatch out = pack_completions(groups);
  EXPECT_EQ(out.sequence, (Ids{1}));
  EXPECT_EQ(out.rows, (Ids{0}));
}

TEST(Packing, EmptyPromptIsRefused) {
  const Ids none{}, a{9};
  const std::vector<PackedGroup> groups{{none, {a}}};
  EXPECT_THROW((void)pack_completions(groups), Error);
}

}  // namespace
}  // namespace temper
