#include "temper/data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "data_test_util.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

Example plain(std::string prompt, std::string answer = "") {
  Example e;
  e.prompt = std::move(prompt);
  e.answer = std::move(answer);
  e.id = prompt_id(e);
  return e;
}

Dataset numbered(int count) {
  Dataset data;
  data.source = "made here";
  data.license = "none needed";
  data.content_hash = 77;
  for (int i = 0; i < count; ++i) data.examples.push_back(plain(concat("prompt ", i)));
  return data;
}

std::set<std::string> prompts(const Dataset& data) {
  std::set<std::string> out;
  for (const auto& e : data.examples) out.insert(e.prompt);
  return out;
}

// FNV-1a of "a" is 0xaf63dc4c8601ec8c (published test vector).
TEST(StableHash, MatchesFnvWithSplitMixFinish) {
  StableHash hash;
  hash.update("a");
  uint64_t h = 0xaf63dc4c8601ec8cu;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  EXPECT_EQ(hash.value(), h ^ (h >> 31));
  StableHash pieces;
  pieces.update("");
  StableHash whole;
  whole.update("hello");
  pieces.update("hel");
  pieces.update("lo");
  EXPECT_EQ(pieces.value(), whole.value());
}

TEST(PromptId, DependsOnPromptAloneAndOnTurnBorders) {
  EXPECT_EQ(plain("p", "1").id, plain("p", "2").id);
  EXPECT_NE(plain("p").id, plain("q").id);
  Example a;
  a.messages = {{"user", "ab"}, {"user", "c"}};
  Example b;
  b.messages = {{"user", "a"}, {"user", "bc"}};
  EXPECT_NE(prompt_id(a), prompt_id(b));
  Example spelled;  // The same bytes in one turn.
  spelled.messages = {{"user", "abuserc"}};
  EXPECT_NE(prompt_id(a), prompt_id(spelled));
}

TEST(Example, PlainPromptBecomesAUserTurn) {
  EXPECT_EQ(as_messages(plain("hi")), (std::vector<ChatMessage>{{"user", "hi"}}));
  Example chat;
  chat.messages = {{"system", "s"}, {"user", "u"}};
  EXPECT_EQ(as_messages(chat), chat.messages);
}

TEST(SplitByHash, NeverOverlapsCoversAllAndIgnoresOrder) {
  Dataset data = numbered(2000);
  const auto [train, held_out] = split_by_hash(data, 0.25, 3);
  EXPECT_EQ(train.examples.size() + held_out.examples.size(), 2000u);
  for (const auto& p : prompts(held_out)) EXPECT_FALSE(prompts(train).contains(p)) << p;
  // Binomial(2000, 0.25): mean 500, standard deviation 19.4.
  EXPECT_NEAR(static_cast<double>(held_out.examples.size()), 500, 4 * 19.4);

  std::reverse(data.examples.begin(), data.examples.end());
  data.examples.resize(1500);  // Other rows do not matter either.
  const auto [train2, held_out2] = split_by_hash(data, 0.25, 3);
  const auto before = prompts(held_out);
  for (const auto& p : prompts(held_out2)) EXPECT_TRUE(before.contains(p)) << p;
  for (const auto& p : prompts(train2)) EXPECT_FALSE(before.contains(p)) << p;
}

TEST(SplitByHash, KeepsDuplicatesTogetherAndProvenance) {
  Dataset data = numbered(300);
  for (int i = 0; i < 300; ++i) data.examples.push_back(plain(concat("prompt ", i), "again"));
  const auto [train, held_out] = split_by_hash(data, 0.5, 1);
  for (const auto& p : prompts(held_out)) EXPECT_FALSE(prompts(train).contains(p)) << p;
  EXPECT_EQ(train.examples.size(), 2 * prompts(train).size());
  for (const Dataset* part : {&train, &held_out}) {
    EXPECT_EQ(part->source, "made here");
    EXPECT_EQ(part->license, "none needed");
    EXPECT_EQ(part->content_hash, 77u);
  }
}

TEST(SplitByHash, SeedsDifferAndEndsAreExact) {
  const Dataset data = numbered(400);
  EXPECT_NE(prompts(split_by_hash(data, 0.5, 1).second),
            prompts(split_by_hash(data, 0.5, 2).second));
  EXPECT_TRUE(split_by_hash(data, 0, 1).second.examples.empty());
  EXPECT_TRUE(split_by_hash(data, 1, 1).first.examples.empty());
  EXPECT_EQ(error_of([&] { (void)split_by_hash(data, 1.5, 1); }),
            "[split_by_hash] held_out_fraction must be in [0, 1], got 1.5");
}

TEST(PromptSampler, EveryEpochIsAPermutation) {
  for (const size_t count : {size_t{1}, size_t{2}, size_t{31}, size_t{32}, size_t{1025}}) {
    PromptSampler sampler(count, 9);
    std::vector<size_t> previous;
    for (int epoch = 0; epoch < 3; ++epoch) {
      EXPECT_EQ(sampler.state(), (PromptSampler::State{static_cast<uint64_t>(epoch), 0}));
      std::vector<size_t> rows = sampler.next(count);
      if (count > 2) {
        EXPECT_NE(rows, previous) << "epochs must differ";
      }
      previous = rows;
      std::sort(rows.begin(), rows.end());
      std::vector<size_t> all(count);
      std::iota(all.begin(), all.end(), size_t{0});
      EXPECT_EQ(rows, all);
    }
  }
}

TEST(PromptSampler, IsFisherYatesOverTheEpochStream) {
  std::vector<size_t> want = {0, 1, 2, 3, 4};
  RngStream rng(4, RngPurpose::kShuffle, 0);
  for (size_t i = 4; i > 0; --i) std::swap(want[i], want[rng.next_below(i + 1)]);
  EXPECT_EQ(PromptSampler(5, 4).next(5), want);
}

TEST(PromptSampler, RestoreReproducesFromEveryState) {
  PromptSampler reference(7, 5);
  const std::vector<size_t> whole = reference.next(30);
  for (size_t cut = 0; cut <= 30; ++cut) {
    PromptSampler first(7, 5);
    (void)first.next(cut);
    PromptSampler second(7, 5);
    (void)second.next(11);  // A sampler in some other place.
    second.restore(first.state());
    std::vector<size_t> rest = second.next(30 - cut);
    EXPECT_EQ(rest, std::vector<size_t>(whole.begin() + static_cast<ptrdiff_t>(cut), whole.end()))
        << "cut " << cut;
    EXPECT_EQ(second.state(), reference.state());
  }
}

TEST(PromptSampler, SplitsOfADrawDoNotMatterAndFileOrderIsKept) {
  PromptSampler one(10, 2);
  PromptSampler many(10, 2);
  std::vector<size_t> joined;
  for (size_t n : {3u, 0u, 11u, 6u}) {
    const auto part = many.next(n);
    joined.insert(joined.end(), part.begin(), part.end());
  }
  EXPECT_EQ(joined, one.next(20));
  EXPECT_EQ(PromptSampler(3, 2, false).next(5), (std::vector<size_t>{0, 1, 2, 0, 1}));
}

TEST(PromptSampler, RefusesBadCountsAndForeignStates) {
  EXPECT_EQ(error_of([] { PromptSampler(0, 1); }),
            "[PromptSampler] count must be in [1, 2^32), got 0");
  EXPECT_EQ(error_of([] { PromptSampler(size_t{1} << 32, 1); }),
            "[PromptSampler] count must be in [1, 2^32), got 4294967296");
  PromptSampler sampler(4, 1);
  EXPECT_EQ(error_of([&] {
              sampler.restore({0, 4});
            }),
            "[PromptSampler] the saved position is 4 but there are 4 rows: the state belongs to "
            "another dataset");
}

}  // namespace
}  // namespace temper
