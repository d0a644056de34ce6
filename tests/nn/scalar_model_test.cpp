// Golden vectors: tests/golden/make_reward_models.py (transformers 5.23). Hand-worked heads, and
// the bits of a value.
#include "temper/nn/scalar_model.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "nn/reward_test_util.h"
#include "temper/core/threads.h"

namespace temper {
namespace {

using namespace testing_nn;
TEST(ScalarHead, ValuesAreSummedInDoubleAndRoundedOnce) {
  ScalarHead head(3, true);
  head.set(std::vector<float>{1e8f, 0.5f, -1e8f}, 0.25f);
  std::vector<float> rows = {1, 3, 1, /**/ 0, -2, 0, /**/ 9, 9, 9};
  const at::Tensor hidden = at::from_blob(rows.data(), {3, 3}, at::kFloat);
  // 1e8 + 1.5 - 1e8 + 0.25: a float32 sum would lose the middle.
  EXPECT_EQ(floats(head.values(hidden, std::vector<int32_t>{1, 0, 1})),
            (std::vector<float>{-0.75f, 1.75f, -0.75f}));
  EXPECT_NE(error_of([&] { (void)head.values(hidden, std::vector<int32_t>{3}); }).find("row 3"),
            std::string::npos);
}

TEST(ScalarHead, BackwardAddsToWeightBiasAndHidden) {
  ScalarHead head(2, true);
  head.set(std::vector<float>{2, -1}, 5);
  std::vector<float> rows = {1, 2, /**/ 3, 4};
  const at::Tensor hidden = at::from_blob(rows.data(), {2, 2}, at::kFloat);
  std::vector<float> dv = {0.5f, -1, 2};
  std::vector<float> dh = {100, 100, 100, 100};
  at::Tensor dhidden = at::from_blob(dh.data(), {2, 2}, at::kFloat);
  head.backward(hidden, std::vector<int32_t>{0, 1, 0}, tensor(dv), &dhidden);
  // dw = 0.5 (1,2) - (3,4) + 2 (1,2); rows 0 and 1 get 2.5 w and -1 w.
  EXPECT_EQ(floats(head.parameters()[0]->grad), (std::vector<float>{-0.5f, 1}));
  EXPECT_EQ(floats(head.parameters()[1]->grad), (std::vector<float>{1.5f}));
  EXPECT_EQ(dh, (std::vector<float>{105, 97.5f, 98, 101}));
  head.zero_gradients();
  EXPECT_EQ(floats(head.parameters()[0]->grad), (std::vector<float>{0, 0}));
}

class RewardFamilies : public testing::TestWithParam<const char*> {
 protected:
  RewardFamilies()
      : golden(SafetensorsFile::open(reward_folder(GetParam()) / "golden.safetensors")) {}
  Texts texts() const { return split(ids(golden, "in.ids"), ids(golden, "in.offsets")); }
  RewardModel load(Trainable trainable = Trainable::kNo) const {
    return RewardModel::load(reward_folder(GetParam()).string(), WeightDType::kFloat32, trainable);
  }
  SafetensorsFile golden;
};

TEST_P(RewardFamilies, ScoresAndValuesAreTransformers) {
  RewardModel model = load();
  const auto scores = model.score(texts());
  const auto expected = numbers(golden, "out.scores"),
             padded = numbers(golden, "out.scores_padded");
  ASSERT_EQ(scores.size(), expected.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    EXPECT_NEAR(scores[i], expected[i], 1e-5);
    EXPECT_NEAR(scores[i], padded[i], 1e-5);
  }
  const TokenBatch b = packed(texts());
  const auto values = floats(model.values(b, every_row(b)));
  const auto wanted = numbers(golden, "out.values");
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], wanted[i], 1e-5) << i;
}

TEST_P(RewardFamilies, GradientsAreTransformers) {
  for (const bool checkpoint : {false, true}) {
    RewardModel model = load(Trainable::kYes);
    ScalarTape tape;
    tape.forward.checkpoint = checkpoint;
    const TokenBatch b = packed(texts());
    std::vector<int32_t> last;
    for (const Segment& s : b.segments) last.push_back(s.start + s.length - 1);
    const auto values = floats(model.values_train(b, last, tape));
    EXPECT_EQ(values, model.score(texts())) << "training sees other values";
    std::vector<float> c;
    for (const double v : numbers(golden, "in.c")) c.push_back(static_cast<float>(v));
    model.values_backward(tape, tensor(c));
    model.finish_gradients();
    for (const Parameter* p : model.parameters()) {
      for (const auto& part : p->parts) {
        const auto expected = numbers(golden, "grad." + part.name);
        std::vector<float> got(expected.size());
        p->get_part(part, p->grad, got.data());
        double largest = 1e-3;
        for (const double v : expected) largest = std::max(largest, std::abs(v));
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(got[i], expected[i], 1e-4 * largest) << part.name << " " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, RewardFamilies, testing::Values("llama", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

TEST(RewardModel, AScoreHasItsOwnBitsWhateverItsBatch) {
  for (const auto dtype : {WeightDType::kFloat32, WeightDType::kBfloat16Dot}) {
    RewardModel model = llama(Trainable::kNo, dtype);
    const Texts texts = some_texts(9);
    std::vector<float> alone;
    for (const auto& text : texts) alone.push_back(model.score(Texts{text})[0]);
    std::vector<PromptedText> halves;
    for (const auto& text : texts) {
      const std::span<const int32_t> all(text);
      halves.push_back({all.first(text.size() / 2), all.subspan(text.size() / 2)});
    }
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      EXPECT_EQ(model.score(texts), alone);
      EXPECT_EQ(model.score(halves), alone);
      EXPECT_EQ(model.score(halves, 13), alone);
      EXPECT_EQ(model.score(halves, 1), alone);
    }
    set_num_threads(2);
  }
}

TEST(RewardModel, SharedPromptsChangeNoBit) {
  RewardModel model = llama();
  const std::vector<int32_t> prompt = {5, 9, 30, 12, 7};
  const Texts tails = {{8}, {11, 40, 3}, {}, {11, 40, 4}};
  std::vector<PromptedText> shared;
  Texts whole;
  for (const auto& tail : tails) {
    shared.push_back({prompt, tail});
    whole.push_back(prompt);
    whole.back().insert(whole.back().end(), tail.begin(), tail.end());
  }
  EXPECT_EQ(model.score(shared), model.score(whole));
  EXPECT_EQ(model.score(shared, 7), model.score(whole));
  shared.push_back({{}, {}});
  EXPECT_NE(error_of([&] { (void)model.score(shared); }).find("text 4 is empty"),
            std::string::npos);
}

TEST(RewardModel, MicroBatchesInOrderGiveTheGradientBitsOfOneBatch) {
  const Texts texts = some_texts(8);
  const auto run = [&](long per_batch, int threads) {
    set_num_threads(threads);
    RewardModel model = llama(Trainable::kYes);
    ScalarTape tape;
    for (long at = 0; at < 8; at += per_batch) {
      const TokenBatch b = packed({texts.begin() + at, texts.begin() + at + per_batch});
      std::vector<float> d;
      for (const int32_t position : b.positions)
        d.push_back(0.3f - 0.1f * static_cast<float>(position % 5));
      (void)model.values_train(b, every_row(b), tape);
      model.values_backward(tape, tensor(d));
    }
    model.finish_gradients();
    set_num_threads(2);
    return gradients(model.parameters());
  };
  const auto whole = run(8, 2);
  EXPECT_EQ(run(1, 2), whole);
  EXPECT_EQ(run(2, 1), whole);
  EXPECT_EQ(run(4, 3), whole);
}

TEST(RewardModel, AHeadOverAFrozenSharedBackboneTrainsAlone) {
  for (const auto dtype : {WeightDType::kFloat32, WeightDType::kBfloat16}) {
    RewardModel first = llama(Trainable::kNo, dtype);
    RewardModel second = first.with_new_head();
    EXPECT_EQ(&first.backbone(), &second.backbone());
    const Texts texts = some_texts(4);
    EXPECT_EQ(second.score(texts), std::vector<float>(4, 0.0f));
    const auto parameters = second.parameters();
    ASSERT_EQ(parameters.size(), 1u);
    ScalarTape tape;
    const TokenBatch b = packed(texts);
    std::vector<int32_t> last;
    for (const Segment& s : b.segments) last.push_back(s.start + s.length - 1);
    (void)second.values_train(b, last, tape);
    const auto before = first.score(texts);  // Uses the backbone between forward and backward.
    std::vector<float> d(4, 1.0f);
    second.values_backward(tape, tensor(d));
    second.finish_gradients();
    // The score of a head whose weights are the gradient is |sum of hidden rows|^2 in sum.
    std::vector<float> step = floats(parameters[0]->grad);
    double square = 0;
    for (const float v : step) square += double{v} * double{v};
    second.head().set(step);
    double sum = 0;
    for (const float v : second.score(texts)) sum += double{v};
    EXPECT_GT(square, 1);
    EXPECT_NEAR(sum, square, 1e-5 * square);
    EXPECT_EQ(first.score(texts), before);
  }
}

TEST(RewardModel, HeadsOverOneBackboneScoreTogetherWithTheirOwnBits) {
  RewardModel first = llama();
  RewardModel second = first.with_new_head();
  second.head().set(std::vector<float>(16, 0.5f));
  const Texts texts = some_texts(6);
  std::vector<PromptedText> spans;
  for (const auto& text : texts) spans.push_back({{}, text});
  const std::vector<RewardModel*> both = {&first, &second};
  EXPECT_EQ(RewardModel::score_together(both, spans, 9),
            (std::vector<std::vector<float>>{first.score(texts), second.score(texts)}));
  RewardModel other = llama();
  const std::vector<RewardModel*> strangers = {&first, &other};
  EXPECT_NE(error_of([&] {
              (void)RewardModel::score_together(strangers, spans);
            }).find("different backbones"),
            std::string::npos);
}

TEST(ValueModel, ACopyStartsWithTheBitsOfTheRewardAndGoesItsOwnWay) {
  for (const auto dtype : {WeightDType::kFloat32, WeightDType::kBfloat16, WeightDType::kBfloat16Dot,
                           WeightDType::kFloat16}) {
    RewardModel reward = llama(Trainable::kNo, dtype);
    const auto before = reward.score(some_texts(4));
    ValueModel critic = ValueModel::copy_of(reward);
    EXPECT_TRUE(critic.backbone().trainable());
    const TokenBatch b = packed(some_texts(4));
    EXPECT_EQ(floats(critic.values(b, every_row(b))), floats(reward.values(b, every_row(b))));
    for (Parameter* p : critic.parameters()) {
      p->value.add_(0.1);
      p->refresh_half();
    }
    EXPECT_NE(floats(critic.values(b, every_row(b))), floats(reward.values(b, every_row(b))));
    EXPECT_EQ(reward.score(some_texts(4)), before);
  }
}

TEST(ValueModel, ACopyMayHaveAnotherWeightType) {
  // Each bf16 number is a float32 one: the copy's float32 weights are the rounded ones, exactly.
  for (const auto dtype : {WeightDType::kBfloat16, WeightDType::kFloat16}) {
    RewardModel reward = llama(Trainable::kNo, dtype);
    ValueModel critic = ValueModel::copy_of(reward, Trainable::kYes, WeightDType::kFloat32);
    EXPECT_EQ(critic.backbone().dtype(), WeightDType::kFloat32);
    const TokenBatch b = packed(some_texts(4));
    EXPECT_EQ(floats(critic.values(b, every_row(b))), floats(reward.values(b, every_row(b))));
  }
  RewardModel reward = llama(Trainable::kNo, WeightDType::kInt8);
  EXPECT_NE(error_of([&] { (void)ValueModel::copy_of(reward); }).find("int8"), std::string::npos);
  ValueModel critic = ValueModel::copy_of(reward, Trainable::kYes, WeightDType::kFloat32);
  const TokenBatch b = packed(some_texts(4));
  const auto got = floats(critic.values(b, every_row(b)));
  const auto expected = floats(reward.values(b, every_row(b)));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-5);
}

// A value head on the policy's own trunk: both losses' gradients go through one backward.
TEST(ScoreBackward, AddsWhatOtherHeadsGiveTheHiddenRows) {
  const ModelSource source = open_model((golden_folder() / "qwen2").string());
  const TokenBatch b = packed(some_texts(4));
  ScoreRequest request;
  for (int32_t r = 0; r < b.rows(); r += 2) {
    request.rows.push_back(r);
    request.targets.push_back(5);
  }
  std::vector<float> dlogprobs(request.rows.size(), 0.25f),
      dvalues(static_cast<size_t>(b.rows()), -0.5f);
  const auto run = [&](bool scores, bool values) {
    CausalLM lm(source, WeightDType::kFloat32, Trainable::kYes);
    ScalarHead head(lm.config().hidden_size, true, "value_head");
    head.set(std::vector<float>(static_cast<size_t>(head.width()), 0.125f), 1);
    ScoringTape tape;
    (void)score_train(lm, b, request, 1.0, tape);
    const at::Tensor hidden = taped_hidden(lm, tape);
    at::Tensor dhidden = float_zeros(hidden.numel()).reshape(hidden.sizes());
    if (values) head.backward(hidden, every_row(b), tensor(dvalues), &dhidden);
    score_backward(lm, tape, scores ? tensor(dlogprobs) : at::Tensor(), {}, dhidden);
    lm.finish_gradients();
    auto parameters = lm.parameter_list();
    for (Parameter* p : head.parameters()) parameters.push_back(p);
    return gradients(parameters);
  };
  const auto both = run(true, true), scores = run(true, false), values = run(false, true);
  for (size_t p = 0; p < both.size(); ++p) {
    for (size_t i = 0; i < both[p].size(); ++i) {
      const double sum = double{scores[p][i]} + double{values[p][i]};
      ASSERT_NEAR(both[p][i], sum, 2e-5 * (1 + std::abs(sum))) << p << " " << i;
    }
  }
  // The trunk's share alone is the gradient of a value model with the same head.
  auto trunk = std::make_shared<CausalLM>(source, WeightDType::kFloat32, Trainable::kYes);
  ScalarHead head(trunk->config().hidden_size, true, "value_head");
  head.set(std::vector<float>(static_cast<size_t>(head.width()), 0.125f), 1);
  ValueModel model(trunk, std::move(head), std::make_shared<ModelSource>(source));
  ScalarTape tape;
  (void)model.values_train(b, every_row(b), tape);
  model.values_backward(tape, tensor(dvalues));
  model.finish_gradients();
  EXPECT_EQ(gradients(model.parameters()), values);
}

}  // namespace
}  // namespace temper
