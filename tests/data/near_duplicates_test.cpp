#include "temper/data/near_duplicates.h"

#include <cmath>

#include "data_test_util.h"

namespace temper {
namespace {

TEST(FoldText, KeepsLettersAndDigits) {
  EXPECT_EQ(fold_text("  Hello,\n\tWORLD!! 42 "), "hello world 42");
  EXPECT_EQ(fold_text("\u00c9t\u00e9 \ufb01n"), "\u00e9t\u00e9 fin");  // Compatibility forms.
  EXPECT_EQ(fold_text("e\u0301"), fold_text("\u00e9"));
  EXPECT_EQ(fold_text("\ud55c\uad6d\uc5b4."), "\ud55c\uad6d\uc5b4");
  EXPECT_EQ(fold_text("!?"), "");
  EXPECT_NE(error_of([] { (void)fold_text("\xff"); }), "");
}

TEST(Shingles, AreASetOfRuns) {
  EXPECT_EQ(shingles("abcd", 2).size(), 3u);    // ab bc cd
  EXPECT_EQ(shingles("ababab", 2).size(), 2u);  // ab ba
  EXPECT_EQ(shingles("ab", 5).size(), 1u);
  EXPECT_EQ(shingles("Ab", 5), shingles("aB!", 5));
  EXPECT_NE(shingles("!", 5), shingles("?", 5)) << "texts of signs differ, too";
  EXPECT_EQ(shingles("\u00e9\u00e8\u00e9", 2).size(), 2u) << "characters, not bytes";
}

/// {ab bc cd} and {ab bc ce}: 2 of 4. {ab bc cd} and {bc cd}: 2 of 3.
TEST(Jaccard, ByHand) {
  const auto j = [](const char* a, const char* b) {
    return jaccard(shingles(a, 2), shingles(b, 2));
  };
  EXPECT_DOUBLE_EQ(j("abcd", "abce"), 0.5);
  EXPECT_DOUBLE_EQ(j("abcd", "bcd"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(j("abcd", "wxyz"), 0);
  EXPECT_DOUBLE_EQ(j("abcd", "ABCD"), 1);
  EXPECT_DOUBLE_EQ(jaccard({}, {}), 1);
}

/// The estimate is a mean of draws that are 1 with probability J: within 4.5 standard deviations.
TEST(MinHash, EstimatesTheExactJaccard) {
  SimilarityConfig c;
  c.gram = 1;
  c.hashes = 4096;
  const MinHash hash(c);
  const std::string letters = "abcdefghijklmnopqrstuvwxyz0123456789";
  for (size_t shift = 0; shift <= 18; shift += 3) {  // 18 letters each, 18 - shift in common.
    const std::string a = letters.substr(0, 18), b = letters.substr(shift, 18);
    const double j = (18.0 - static_cast<double>(shift)) / (18.0 + static_cast<double>(shift));
    ASSERT_DOUBLE_EQ(jaccard(shingles(a, 1), shingles(b, 1)), j);
    EXPECT_NEAR(MinHash::estimate(hash.signature(a), hash.signature(b)), j,
                4.5 * std::sqrt(j * (1 - j) / 4096))
        << shift;
  }
  c.seed = 7;
  EXPECT_NE(MinHash(c).signature("abc"), hash.signature("abc"));
  EXPECT_EQ(MinHash(c).signature("abc"), MinHash(c).signature("ABC."));
}

std::string sentence(int from, int count) {
  std::string text;
  for (int i = from; i < from + count; ++i) text += concat("word", i * i + 17, " ");
  return text;
}

TEST(NearDuplicateIndex, FindsWhatIsNearOnly) {
  NearDuplicateIndex index(SimilarityConfig{});
  const auto add = [&](const std::string& t) { return index.add(index.signature(t)); };
  EXPECT_EQ(add(sentence(0, 40)), 0u);
  EXPECT_EQ(add(sentence(100, 40)), 1u);
  EXPECT_EQ(add(sentence(1, 40)), 2u);
  // A text from 0 to 39 and one from 1 to 40 share all but two words' shingles.
  EXPECT_EQ(index.matches(index.signature(sentence(0, 40))), (std::vector<size_t>{0, 2}));
  EXPECT_EQ(index.matches(index.signature(sentence(100, 40))), std::vector<size_t>{1});
  EXPECT_TRUE(index.matches(index.signature(sentence(200, 40))).empty());
  EXPECT_TRUE(index.matches(index.signature(sentence(20, 40))).empty());
}

TEST(NearClusters, ChainsAreOneCluster) {
  std::vector<std::string> texts;
  for (int i = 0; i < 9; ++i) texts.push_back(sentence(i, 40));  // Each near the next only.
  texts.push_back(sentence(500, 40));
  texts.push_back(texts[2]);
  texts.push_back(sentence(500, 40));
  EXPECT_EQ(near_clusters(texts, {}), (std::vector<size_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 9}));
  EXPECT_LT(jaccard(shingles(texts[0], 5), shingles(texts[8], 5)), 0.8);
}

TEST(SimilarityConfig, IsChecked) {
  const auto refuse = [](auto change) {
    SimilarityConfig c;
    change(c);
    return error_of([&] { (void)MinHash(c); });
  };
  EXPECT_NE(refuse([](auto& c) { c.gram = 0; }), "");
  EXPECT_NE(refuse([](auto& c) { c.hashes = 130; }), "");
  EXPECT_NE(refuse([](auto& c) { c.rows = 0; }), "");
  EXPECT_NE(refuse([](auto& c) { c.similarity = 0; }), "");
  EXPECT_NE(refuse([](auto& c) { c.similarity = 1.1; }), "");
}

TEST(OverlapIndex, ThirteenWordsOrFiftyCharactersOrTheWhole) {
  OverlapIndex index;
  EXPECT_TRUE(index.empty());
  index.add("a b c d e f g h i j k l m n");  // 14 short words, 27 characters.
  index.add("unquestionably internationalisation notwithstanding characteristically");
  index.add("Short question?");
  EXPECT_TRUE(index.overlaps("Well: B C D E F G H I J K L M N!"));
  EXPECT_FALSE(index.overlaps("x c d e f g h i j k l m n")) << "12 words";
  EXPECT_TRUE(index.overlaps("so internationalisation, notwithstanding characteristically"))
      << "52";
  EXPECT_FALSE(index.overlaps("so notwithstanding characteristically")) << "34";
  EXPECT_TRUE(index.overlaps("short QUESTION"));
  EXPECT_FALSE(index.overlaps("a short question"));
  EXPECT_FALSE(index.overlaps("?!"));
}

}  // namespace
}  // namespace temper
