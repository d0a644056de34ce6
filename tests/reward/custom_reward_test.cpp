// The code of docs/add_a_reward.md. The page quotes what stands between the [docs] marks, and a
// test at the end holds the two together.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "reward_test_util.h"

// [docs: custom]
#include "temper/reward/builtin.h"
#include "temper/reward/combinators.h"

using namespace temper;

// In (0, 1]: 1 for one sentence, 1/2 for two, and so on.
float brevity(const Completion& completion) {
  const auto stops = std::count(completion.text.begin(), completion.text.end(), '.');
  return 1.0f / static_cast<float>(std::max<ptrdiff_t>(stops, 1));
}

std::vector<NamedReward> my_rewards() {
  return {
      named("correct", numeric_answer()),
      named("brevity", per_completion(brevity), 0.2),
  };
}
// [docs: end]

// [docs: batch]
// 1 for the shortest completion of the batch, 0 for the rest.
std::vector<float> shortest(std::span<const Completion> completions) {
  size_t best = 0;
  for (size_t i = 1; i < completions.size(); ++i) {
    if (completions[i].ids.size() < completions[best].ids.size()) best = i;
  }
  std::vector<float> scores(completions.size(), 0.0f);
  if (!scores.empty()) scores[best] = 1.0f;
  return scores;
}
// [docs: end]

// [docs: combine]
// Correctness counts only in the asked format; a penalty keeps the length in bounds.
RewardFn formatted_math(int64_t max_tokens) {
  const RewardFn format = regex_format("(?s)\\A<think>.*</think>.*\\\\boxed\\{");
  return weighted({
      {1.0, gated(format, after_mark("</think>", numeric_answer()))},
      {0.5, soft_overlong(max_tokens, max_tokens / 8)},
  });
}
// [docs: end]

// [docs: missing]
// Rows without a reference are not scored: NaN leaves them out, 0 would punish the model.
float keeps_the_keyword(const Completion& completion) {
  if (completion.example == nullptr || completion.example->answer.empty()) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return completion.text.find(completion.example->answer) != std::string::npos ? 1.0f : 0.0f;
}
// [docs: end]

namespace {

TEST(CustomReward, OwnFunctionBesideABuiltin) {
  const RewardScores s = score(my_rewards(), Batch().add("One. Two. It is 4.", "4").rows());
  EXPECT_EQ(s.names, (std::vector<std::string>{"correct", "brevity"}));
  EXPECT_EQ(s.at(0, 0), 1);
  EXPECT_FLOAT_EQ(s.at(0, 1), 1.0f / 3);
}

TEST(CustomReward, WholeBatch) {
  EXPECT_EQ(Batch().add("", "", 5).add("", "", 2).add("", "", 3).scored_by(shortest),
            (std::vector<float>{0, 1, 0}));
  EXPECT_TRUE(shortest({}).empty());
}

TEST(CustomReward, Combined) {
  const RewardFn fn = formatted_math(80);
  EXPECT_EQ(score_text(fn, "<think>9</think>\\boxed{4}", "4", 10), 1);
  EXPECT_EQ(score_text(fn, "<think>9</think>\\boxed{4}", "4", 75), 0.75);  // 1 - 0.5 * 0.5
  EXPECT_EQ(score_text(fn, "\\boxed{4}", "4", 10), 0);
}

TEST(CustomReward, MissingReference) {
  EXPECT_EQ(score_text(per_completion(keeps_the_keyword), "a fox", "fox"), 1);
  EXPECT_TRUE(std::isnan(score_text(per_completion(keeps_the_keyword), "a fox")));
}

std::string read_all(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(CustomReward, TheDocsPageQuotesThisFile) {
  const std::string page = read_all(std::string(TEMPER_SOURCE_DIR) + "/docs/add_a_reward.md");
  const std::string code =
      read_all(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/custom_reward_test.cpp");
  size_t quoted = 0;
  const std::string mark = "\n// [docs: ";
  const std::string stop = mark + "end]";
  for (size_t at = code.find(mark); at != std::string::npos; at = code.find(mark, at)) {
    const size_t begin = code.find('\n', at + 1) + 1;
    const size_t end = code.find(stop, begin);
    ASSERT_NE(end, std::string::npos);
    EXPECT_NE(page.find(code.substr(begin, end - begin)), std::string::npos)
        << "the page lacks: " << code.substr(begin, end - begin);
    ++quoted;
    at = end + stop.size();
  }
  EXPECT_EQ(quoted, 4u);
}

}  // namespace
