// Invariants: gradients that go through the head with the forward are those that go through it
// afterwards, and scores that are not the expected ones cost no gradient its value.
#include "temper/nn/scoring.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nn/nn_test_util.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using namespace testing_nn;

/// Texts with more scored tokens than a tile of the head has rows.
class OnePass : public testing::TestWithParam<WeightDType> {
 protected:
  OnePass() : source(open_model((golden_folder() / "llama_tied").string())) {
    std::vector<std::vector<int32_t>> texts(16);
    for (int32_t t = 0; t < 16; ++t) {
      for (int32_t i = 0; i < 20 + t; ++i) {
        texts[static_cast<size_t>(t)].push_back((7 * t + 11 * i) % 64);
      }
    }
    batch = packed(texts);
    for (const auto& s : batch.segments) {
      for (int32_t i = 0; i + 1 < s.length; ++i) {
        request.rows.push_back(s.start + i);
        request.targets.push_back(batch.ids[static_cast<size_t>(s.start + i + 1)]);
      }
    }
  }

  [[nodiscard]] int64_t tokens() const { return std::ssize(request.rows); }

  /// What a loss might give; rows without a gradient among them.
  [[nodiscard]] ScoreGradients some_gradients(float scale) const {
    ScoreGradients g{at::empty({tokens()}), at::empty({tokens()})};
    for (int64_t i = 0; i < tokens(); ++i) {
      g.logprobs.data_ptr<float>()[i] = i % 5 == 0 ? 0 : scale * static_cast<float>(i % 7 - 3);
      g.entropy.data_ptr<float>()[i] = i % 5 == 0 ? 0 : 0.01f * static_cast<float>(i % 3);
    }
    return g;
  }

  [[nodiscard]] CausalLM model() const { return {source, GetParam(), Trainable::kYes}; }

  static std::vector<float> gradients(CausalLM& lm) {
    lm.finish_gradients();
    std::vector<float> all;
    for (const auto& p : lm.parameters()) {
      const auto part = floats(p->grad);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }

  struct Result {
    TokenScores scores;
    std::vector<float> gradients;
  };
  [[nodiscard]] Result two_passes(const ScoreGradients& g) const {
    CausalLM lm = model();
    ScoringTape tape;
    const TokenScores s = score_train(lm, batch, request, 0.9, tape);
    EXPECT_FALSE(tape.as_expected);
    score_backward(lm, tape, g.logprobs, g.entropy);
    return {s, gradients(lm)};
  }

  ModelSource source;
  TokenBatch batch;
  ScoreRequest request;
};

TEST_P(OnePass, HasTheBitsOfTwo) {
  const ScoreGradients g = some_gradients(0.1f);
  const Result want = two_passes(g);
  CausalLM lm = model();
  ScoringTape tape;
  const TokenScores s = score_train(lm, batch, request, 0.9, {want.scores, g}, tape);
  EXPECT_TRUE(tape.as_expected);
  EXPECT_EQ(floats(s.logprobs), floats(want.scores.logprobs));
  EXPECT_EQ(floats(s.entropy), floats(want.scores.entropy));
  score_backward(lm, tape, g.logprobs, g.entropy);
  EXPECT_EQ(gradients(lm), want.gradients);
}

TEST_P(OnePass, OtherScoresTakeOtherGradients) {
  const ScoreGradients believed = some_gradients(0.3f), right = some_gradients(-0.1f);
  const Result want = two_passes(right);
  for (const bool entropy : {false, true}) {
    for (const int64_t at : {int64_t{3}, tokens() - 1}) {  // In the first tile, and in the last.
      TokenScores expected{want.scores.logprobs.clone(), want.scores.entropy.clone()};
      float& moved = (entropy ? expected.entropy : expected.logprobs).data_ptr<float>()[at];
      moved = std::nextafter(moved, 1e9f);
      CausalLM lm = model();
      ScoringTape tape;
      (void)score_train(lm, batch, request, 0.9, {expected, believed}, tape);
      EXPECT_FALSE(tape.as_expected);
      score_backward(lm, tape, right.logprobs, right.entropy);
      const std::vector<float> got = gradients(lm);
      if (at == 3) {
        EXPECT_EQ(got, want.gradients);
        continue;
      }
      double largest = 0;
      for (const float v : want.gradients) largest = std::max(largest, std::abs(double{v}));
      // Weights in bf16 on both sides of a product round each row's dz to three digits.
      const double bound = GetParam() == WeightDType::kBfloat16Dot ? 2e-2 : 1e-5;
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], want.gradients[i], bound * largest);
      }
    }
  }
}

TEST_P(OnePass, AnotherNumberOfScoresIsRefused) {
  CausalLM lm = model();
  ScoringTape tape;
  const at::Tensor few = at::zeros({tokens() - 1});
  EXPECT_THROW((void)score_train(lm, batch, request, 0.9, {{few, few}, {few, few}}, tape), Error);
}

INSTANTIATE_TEST_SUITE_P(Weights, OnePass,
                         testing::Values(WeightDType::kFloat32, WeightDType::kBfloat16,
                                         WeightDType::kBfloat16Dot, WeightDType::kFloat16));

}  // namespace
}  // namespace temper
