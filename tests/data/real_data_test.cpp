#include <gtest/gtest.h>

#include <set>

#include "data_test_util.h"
#include "temper/data/dataset.h"

namespace temper {
namespace {

// Row contents are never printed: counts and hashes only.

TEST(RealData, Gsm8kReadsWhole) {
  const auto path = shared_data("gsm8k/train.jsonl");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << " (set TEMPER_SHARED_DATA)";
  const Dataset data = read_jsonl(path);
  ASSERT_EQ(data.examples.size(), 7473u);
  std::set<uint64_t> ids;
  size_t longest = 0;
  for (const auto& e : data.examples) {
    ids.insert(e.id);
    longest = std::max(longest, e.answer.size());
    EXPECT_TRUE(e.extra_json.empty());
    EXPECT_NE(e.answer.find("\n#### "), std::string::npos);
  }
  EXPECT_EQ(ids.size(), 7473u) << "the questions are distinct";
  EXPECT_GE(longest, 1228u);
  const auto [train, held_out] = split_by_hash(data, 0.1, 42);
  EXPECT_EQ(train.examples.size() + held_out.examples.size(), 7473u);
  EXPECT_NEAR(static_cast<double>(held_out.examples.size()), 747.3, 4 * 25.9);  // 4 sigma
}

TEST(RealData, HelpfulHarmlessOpensAsGzip) {
  const auto path = shared_data("hh_rlhf/harmless_test.jsonl.gz");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << " (set TEMPER_SHARED_DATA)";
  ReadOptions options;
  options.prompt_key = "chosen";
  const Dataset data = read_jsonl(path, options);
  EXPECT_EQ(data.examples.size(), 2312u);
  size_t rejected = 0;
  for (const auto& e : data.examples) rejected += e.extra_json.starts_with("{\"rejected\":");
  EXPECT_EQ(rejected, 2312u);
}

TEST(RealData, StrategyQaIsAnArrayWithBooleanAnswers) {
  const auto path = shared_data("strategyqa/train.json");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << " (set TEMPER_SHARED_DATA)";
  const Dataset data = read_jsonl(path);
  EXPECT_EQ(data.examples.size(), 2061u);
  size_t yes = 0;
  for (const auto& e : data.examples) yes += e.answer == "true";
  EXPECT_EQ(yes, 964u);
}

}  // namespace
}  // namespace temper
