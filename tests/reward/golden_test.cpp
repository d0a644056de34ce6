// Vectors from trl.rewards (tests/golden/make_rewards.py) and real data where it lies beside the
// project.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "reward_test_util.h"
#include "temper/reward/builtin.h"
#include "temper/reward/number.h"

namespace temper {
namespace {

using Json = nlohmann::json;

Json cases(const std::string& name) {
  std::ifstream in(std::string(TEMPER_SOURCE_DIR) + "/tests/golden/rewards/" + name + ".json");
  return Json::parse(in)["cases"];
}

void expect_equal(const std::vector<float>& got, const Json& want, const std::string& where) {
  ASSERT_EQ(got.size(), want.size()) << where;
  for (size_t i = 0; i < got.size(); ++i) {
    if (want[i].is_null()) {
      EXPECT_TRUE(std::isnan(got[i])) << where << " row " << i;
    } else {
      EXPECT_FLOAT_EQ(got[i], want[i].get<float>()) << where << " row " << i;
    }
  }
}

Batch of_lengths(const Json& lengths) {
  Batch batch;
  for (const auto& n : lengths) batch.add("", "", n.get<size_t>());
  return batch;
}

TEST(Golden, SoftOverlong) {
  for (const auto& c : cases("soft_overlong")) {
    const RewardFn fn = soft_overlong(c["max_tokens"].get<int64_t>(), c["cache"].get<int64_t>());
    expect_equal(of_lengths(c["lengths"]).scored_by(fn), c["out"], c["max_tokens"].dump());
  }
}

TEST(Golden, Repetition) {
  for (const auto& c : cases("repetition")) {
    Batch batch;
    for (const auto& ids : c["ids"]) batch.add_ids(ids.get<std::vector<int32_t>>());
    const RewardFn fn = repetition(c["ngram"].get<int64_t>(), c["max_penalty"].get<double>());
    expect_equal(batch.scored_by(fn), c["out"], c["ngram"].dump());
  }
}

TEST(Golden, CosineScaled) {
  for (const auto& c : cases("cosine")) {
    const float correct = c["correct"].is_null() ? kNaN : c["correct"].get<bool>() ? 1.0f : 0.0f;
    const RewardFn fn =
        cosine_scaled(per_completion([correct](const Completion&) { return correct; }),
                      c["max_tokens"].get<int64_t>());
    expect_equal(of_lengths(c["lengths"]).scored_by(fn), c["out"], c.dump());
  }
}

TEST(Golden, ThinkFormat) {
  for (const auto& c : cases("think_format")) {
    Batch batch;
    for (const auto& text : c["texts"]) batch.add(text.get<std::string>());
    expect_equal(batch.scored_by(think_format()), c["out"], "think");
  }
}

TEST(RealData, EveryGsm8kAnswerParsesAndScoresOneAgainstItself) {
  const char* folder = std::getenv("TEMPER_SHARED_DATA");
  const auto path =
      (folder != nullptr ? std::filesystem::path(folder)
                         : std::filesystem::path(TEMPER_SOURCE_DIR) / "../shared/data") /
      "gsm8k/train.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << " (set TEMPER_SHARED_DATA)";
  const Dataset data = read_jsonl(path);
  ASSERT_EQ(data.examples.size(), 7473u);
  std::vector<Completion> own;
  std::vector<Completion> restated;
  std::vector<Completion> wrong;
  for (const auto& e : data.examples) {
    const std::string final = e.answer.substr(e.answer.rfind("####") + 4);
    ASSERT_TRUE(Number::parse(final)) << "an answer behind #### is no number";
    own.push_back({"", e.answer, {}, false, &e});
    restated.push_back({"", "The answer is" + final + ".", {}, false, &e});
    wrong.push_back({"", "The answer is" + final + "1.", {}, false, &e});
  }
  const std::vector<float> ones(7473, 1.0f);
  EXPECT_EQ(numeric_answer()(own), ones);
  EXPECT_EQ(numeric_answer()(restated), ones);
  EXPECT_EQ(numeric_answer()(wrong), std::vector<float>(7473, 0.0f));
}

}  // namespace
}  // namespace temper
