// Reward models as reward functions: what they read of a completion, whatever their batch, and
// hand-worked ensembles.
#include "temper/trainer/model_reward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "temper/core/file.h"
#include "temper/trainer/evaluation.h"
#include "tiny_model.h"

namespace temper {
namespace {

using namespace testing_trainer;

/// A model over the tiny policy's weights with a head that is not zero.
RewardModel with_head(RewardModel model, float first) {
  std::vector<float> weight;
  for (int64_t i = 0; i < model.head().width(); ++i) {
    weight.push_back(first + 0.25f * static_cast<float>(i % 5));
  }
  model.head().set(weight);
  return model;
}

std::shared_ptr<RewardModel> reward_over(const fs::path& folder, float first = -0.5f) {
  return std::make_shared<RewardModel>(
      with_head(RewardModel::from_language_model(folder.string(), WeightDType::kFloat32), first));
}

/// The tiny model with two characters' ids swapped, and with or without a chat template.
class OtherTokens {
 public:
  explicit OtherTokens(bool chat) {
    folder_ = fs::path(testing::TempDir()) /
              ("temper_other_tokens_" + std::to_string(getpid()) + (chat ? "c" : "p"));
    ModelSource source = tiny_source();
    auto json = nlohmann::json::parse(source.tokenizer.tokenizer_json);
    std::swap(json["model"]["vocab"]["a"], json["model"]["vocab"]["b"]);
    source.tokenizer.tokenizer_json = json.dump();
    if (!chat) source.chat_template.clear();
    write_hf_folder(folder_, source, tiny_tensors(), {});
  }
  ~OtherTokens() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return folder_; }

 private:
  fs::path folder_;
};

/// Completions of two chat prompts and of a plain one, some of them cut off.
struct Sampled {
  std::vector<Example> examples;
  std::vector<std::vector<int32_t>> ids;
  std::vector<Completion> completions;

  explicit Sampled(const ModelText& policy) {
    examples = {{.messages = {{"user", "add 2 and 3"}}},
                {.messages = {{"system", "be brief"}, {"user", "name a bird"}}},
                {.prompt = "once upon"}};
    const char* texts[] = {"5", "five, of course", "a bat", " a time"};
    const size_t rows[] = {0, 0, 1, 2};
    ids.resize(4);
    for (size_t i = 0; i < 4; ++i) {
      const Example& e = examples[rows[i]];
      ids[i] = policy.tokenizer().encode(texts[i]);
      const bool truncated = i == 1;
      if (!truncated) ids[i].push_back(kEos);
      completions.push_back({encode_prompt(e, policy).text, texts[i], ids[i], truncated, &e});
    }
  }
};

TEST(ModelReward, ReadsTheSampledIdsAndWhatTheTemplateWritesBehindThem) {
  const PolicyModel policy = tiny_policy();
  const auto model = reward_over(tiny_model());
  const Sampled s(policy.text());
  const auto got = reward_model_fn(model, policy.text())(s.completions);
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = 0; i < 4; ++i) {
    texts.push_back(encode_prompt(*s.completions[i].example, policy.text()).ids);
    texts.back().insert(texts.back().end(), s.ids[i].begin(), s.ids[i].end());
    // The template ends a turn with "<|im_end|>\n"; the line feed was not sampled. A plain prompt
    // has no turns, and the second completion was cut off before its end.
    if (i == 0 || i == 2) texts.back().push_back(2);
  }
  EXPECT_EQ(got, model->score(texts));
  // A finished conversation has the ids that training a reward model on it has.
  auto messages = nlohmann::ordered_json::array();
  messages.push_back({{"role", "user"}, {"content", "add 2 and 3"}});
  messages.push_back({{"role", "assistant"}, {"content", "5"}});
  EXPECT_EQ(texts[0], policy.text().encode_rendered(policy.text().render_finished(messages)));
}

// A stop text ends a completion without an end token: it is added, as training wrote it.
TEST(ModelReward, AddsTheEndTokenBehindAStopText) {
  const PolicyModel policy = tiny_policy();
  const auto model = reward_over(tiny_model());
  Sampled s(policy.text());
  const auto finished = reward_model_fn(model, policy.text())(s.completions);
  for (const size_t i : {size_t{0}, size_t{2}, size_t{3}}) {
    ASSERT_EQ(s.ids[i].back(), kEos);
    s.completions[i].ids = std::span(s.ids[i]).first(s.ids[i].size() - 1);
  }
  EXPECT_EQ(reward_model_fn(model, policy.text())(s.completions), finished);
}

TEST(ModelReward, WritesTheTextAnewForAModelWithOtherTokens) {
  const PolicyModel policy = tiny_policy();
  const Sampled s(policy.text());
  for (const bool chat : {true, false}) {
    const OtherTokens other(chat);
    const auto model = reward_over(other.path());
    EXPECT_FALSE(same_tokens(model->text().tokenizer(), policy.text().tokenizer()));
    const auto got = reward_model_fn(model, policy.text())(s.completions);
    std::vector<std::vector<int32_t>> texts;
    for (const Completion& c : s.completions) {
      const ModelText& t = model->text();
      if (chat) {
        auto messages = nlohmann::ordered_json::array();
        for (const auto& m : as_messages(*c.example)) {
          messages.push_back({{"role", m.role}, {"content", m.content}});
        }
        const std::string prompt = t.render(messages);
        texts.push_back(t.encode_rendered(prompt + c.text + (c.truncated ? "" : "<|im_end|>\n")));
      } else {
        texts.push_back(t.tokenizer().encode(c.prompt + c.text));
        if (!c.truncated) texts.back().push_back(kEos);
      }
    }
    EXPECT_EQ(got, model->score(texts)) << chat;
  }
}

TEST(ModelReward, SpecialTokensThatACompletionSpellsAreText) {
  const PolicyModel policy = tiny_policy();
  const OtherTokens other(true);
  const auto model = reward_over(other.path());
  Sampled s(policy.text());
  s.completions[0].text = "x<|im_end|>";  // Ten characters, from a policy that games it.
  const auto got = reward_model_fn(model, policy.text())(std::span(s.completions).first(1));
  std::vector<std::vector<int32_t>> texts(1);
  const ModelText& t = model->text();
  texts[0] = t.encode_rendered(t.render_user("add 2 and 3"));
  const auto ids = t.tokenizer().encode("x<|im_end|>");
  ASSERT_EQ(ids.size(), 11u);
  texts[0].insert(texts[0].end(), ids.begin(), ids.end());
  texts[0].insert(texts[0].end(), {kEos, 2});
  EXPECT_EQ(got, model->score(texts));
}

TEST(ModelReward, AScoreDependsOnItsCompletionAlone) {
  const PolicyModel policy = tiny_policy();
  const auto model = reward_over(tiny_model());
  const Sampled s(policy.text());
  const auto all = reward_model_fn(model, policy.text())(s.completions);
  for (const int64_t budget : {1, 40, 100000}) {
    const RewardFn fn = reward_model_fn(model, policy.text(), budget);
    EXPECT_EQ(fn(s.completions), all);
    for (size_t i = 0; i < s.completions.size(); ++i) {
      EXPECT_EQ(fn({&s.completions[i], 1})[0], all[i]);
    }
    std::vector<Completion> reversed(s.completions.rbegin(), s.completions.rend());
    auto back = fn(reversed);
    std::reverse(back.begin(), back.end());
    EXPECT_EQ(back, all);
  }
}

TEST(ModelReward, ATextBeyondTheContextExcludesItsRowAlone) {
  const PolicyModel policy = tiny_policy();
  const auto model = reward_over(tiny_model());
  Sampled s(policy.text());
  const std::vector<int32_t> endless(300, 40);
  s.completions[1].ids = endless;
  const RewardScores scores = score(
      std::vector<NamedReward>{{"model", reward_model_fn(model, policy.text())}}, s.completions);
  EXPECT_TRUE(std::isnan(scores.at(1, 0)));
  for (const size_t row : {0, 2, 3}) EXPECT_FALSE(std::isnan(scores.at(row, 0)));
  ASSERT_EQ(scores.problems.size(), 1u);
  EXPECT_NE(scores.problems[0].find("context of 256"), std::string::npos) << scores.problems[0];
}

TEST(ModelReward, EnsemblesByHand) {
  const std::vector<float> scores = {1, 3, 8};  // Mean 4, deviations -3 -1 4: variance 26/3.
  const auto by = [&](EnsembleRule rule, double weight) {
    return combine_scores(scores, {.rule = rule, .weight = weight});
  };
  EXPECT_EQ(by(EnsembleRule::kMean, 1), 4.0f);
  EXPECT_EQ(by(EnsembleRule::kMin, 1), 1.0f);
  EXPECT_FLOAT_EQ(by(EnsembleRule::kMeanMinusStd, 0.5), 4.0f - 0.5f * 2.9439203f);
  EXPECT_FLOAT_EQ(by(EnsembleRule::kMeanMinusVariance, 0.5), static_cast<float>(-1.0 / 3.0));
  EXPECT_EQ(by(EnsembleRule::kMeanMinusStd, 0), 4.0f);
  const std::vector<float> holes = {1, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_TRUE(std::isnan(combine_scores(holes, {.rule = EnsembleRule::kMin})));
  EXPECT_THROW((void)combine_scores({}, {}), Error);
}

TEST(ModelReward, AnEnsembleOverOneSharedBackboneCombinesItsHeads) {
  const PolicyModel policy = tiny_policy();
  std::vector<std::shared_ptr<RewardModel>> models = {reward_over(tiny_model(), -0.5f)};
  for (const float first : {0.0f, 0.75f}) {
    models.push_back(std::make_shared<RewardModel>(with_head(models[0]->with_new_head(), first)));
  }
  const Sampled s(policy.text());
  const EnsembleOptions options{.rule = EnsembleRule::kMeanMinusStd, .weight = 2};
  const auto got = ensemble_reward(models, policy.text(), options)(s.completions);
  for (size_t i = 0; i < got.size(); ++i) {
    std::vector<float> row;
    for (const auto& model : models) {
      row.push_back(reward_model_fn(model, policy.text())({&s.completions[i], 1})[0]);
    }
    EXPECT_NE(row[0], row[1]);
    EXPECT_EQ(got[i], combine_scores(row, options));
  }
  // The same rule over a backbone each gives the same bits.
  std::vector<std::shared_ptr<RewardModel>> apart = models;
  for (size_t m = 1; m < 3; ++m) apart[m] = reward_over(tiny_model(), m == 1 ? 0.0f : 0.75f);
  EXPECT_EQ(ensemble_reward(apart, policy.text(), options)(s.completions), got);
  EXPECT_THROW((void)ensemble_reward(std::vector<RewardFn>{}), Error);
  EXPECT_THROW((void)ensemble_reward(models, policy.text(), {.weight = -1}), Error);
  models.push_back(nullptr);
  EXPECT_THROW((void)ensemble_reward(models, policy.text(), options), Error);
}

TEST(ModelReward, ASavedPadTokenIsTheTokenizersTooAndEndsNoText) {
  const fs::path folder = fs::path(testing::TempDir()) / ("temper_pad_" + std::to_string(getpid()));
  const auto saved = [&](const std::string& tokenizer_config) {
    ModelSource source = tiny_source();
    source.tokenizer.tokenizer_config_json = tokenizer_config;
    write_hf_folder(folder / "in", source, tiny_tensors(), {});
    RewardModel::from_language_model((folder / "in").string(), WeightDType::kFloat32)
        .save(folder / "out");
    const auto read = [&](const char* name) {
      return nlohmann::json::parse(read_text_file(folder / "out" / name));
    };
    return std::pair(read("config.json")["pad_token_id"].get<int>(),
                     read("tokenizer_config.json")["pad_token"].get<std::string>());
  };
  // The pad token ends texts: the tokenizer's only other special token takes its place.
  EXPECT_EQ(saved(R"({"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"})"),
            std::pair(0, std::string("<|im_start|>")));
  EXPECT_EQ(saved(R"({"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "?"})"),
            std::pair(34, std::string("?")));
  EXPECT_EQ(saved(R"({"eos_token": "<|im_end|>", "pad_token": {"content": "~"}})"),
            std::pair(97, std::string("~")));
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

TEST(ReferenceModel, AMappedOneCannotMove) {
  const PolicyModel policy = tiny_policy();
  const fs::path file =
      fs::path(testing::TempDir()) / ("temper_panels_" + std::to_string(getpid()));
  policy.lm().write_panels(file);
  ReferenceModel reference = ReferenceModel::map(file);
  EXPECT_THROW(reference.sync(policy, 1.0), Error);
  fs::remove(file);
}

}  // namespace
}  // namespace temper
