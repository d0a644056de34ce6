#include "temper/data/pairs.h"

#include "data_test_util.h"

namespace temper {
namespace {

using Ids = std::vector<int32_t>;

TEST(TokenPair, CutsWhereTheSidesPart) {
  const TokenPair p = token_pair(Ids{1, 2, 3, 4}, Ids{1, 2, 5});
  EXPECT_EQ(p.shared, (Ids{1, 2}));
  EXPECT_EQ(p.chosen, (Ids{3, 4}));
  EXPECT_EQ(p.rejected, (Ids{5}));
  EXPECT_EQ(p.rows(), 5);
  EXPECT_EQ(p.tokens(), 7);
}

TEST(TokenPair, OneSideMayBeTheOthersBeginning) {
  const TokenPair p = token_pair(Ids{1, 2}, Ids{1, 2, 9});
  EXPECT_EQ(p.shared, (Ids{1, 2}));
  EXPECT_TRUE(p.chosen.empty());
  EXPECT_EQ(p.rejected, (Ids{9}));
}

TEST(TokenPair, RefusesWhatIsNoPair) {
  EXPECT_NE(error_of([] { (void)token_pair(Ids{}, Ids{1}); }).find("no tokens"), std::string::npos);
  EXPECT_NE(error_of([] {
              (void)token_pair(Ids{1, 2}, Ids{1, 2});
            }).find("the same tokens"),
            std::string::npos);
}

TEST(PackPairs, SidesAreChildrenOfWhatTheyShare) {
  const TokenPair a = token_pair(Ids{1, 2, 3, 4}, Ids{1, 2, 5});
  const TokenPair b = token_pair(Ids{7, 8}, Ids{9});  // Nothing shared: two roots.
  const TokenPair c =
      token_pair(Ids{6, 6}, Ids{6});  // A side that ends where the shared part does.
  const PairBatch batch = pack_pairs(std::vector<const TokenPair*>{&a, &b, &c});
  EXPECT_EQ(batch.tokens.ids, (Ids{1, 2, 3, 4, 5, 7, 8, 9, 6, 6}));
  EXPECT_EQ(batch.tokens.positions, (Ids{0, 1, 2, 3, 2, 0, 1, 0, 0, 1}));
  EXPECT_EQ(batch.rows, (Ids{3, 4, 6, 7, 9, 8}));
  Ids parents, starts, lengths;
  for (const Segment& s : batch.tokens.segments) {
    parents.push_back(s.parent);
    starts.push_back(s.start);
    lengths.push_back(s.length);
  }
  EXPECT_EQ(parents, (Ids{-1, 0, 0, -1, -1, -1, 5}));
  EXPECT_EQ(starts, (Ids{0, 2, 4, 5, 7, 8, 9}));
  EXPECT_EQ(lengths, (Ids{2, 2, 1, 2, 1, 1, 1}));
}

}  // namespace
}  // namespace temper
