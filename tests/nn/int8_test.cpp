// Frozen models in int8. Expectations: the float32 model, and bounds of the quantization.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "nn/reward_test_util.h"
#include "temper/core/error.h"
#include "temper/kernels/embedding.h"
#include "temper/nn/causal_lm.h"

namespace temper {
namespace {

using namespace testing_nn;

const char* const kFamilies[] = {"llama", "qwen2", "qwen3"};

ModelSource tiny(const std::string& family = "llama") {
  return open_model((golden_folder() / family).string());
}

TokenBatch some_texts() {
  return packed({{5, 1, 9, 4, 11, 3}, {7, 7, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}});
}

double root_mean_square(const std::vector<float>& v) {
  double sum = 0;
  for (const float x : v) sum += double{x} * x;
  return std::sqrt(sum / static_cast<double>(v.size()));
}

/// Makes a float32 model's matrices what an int8 model's products read.
void widen_into(const CausalLM& from, CausalLM& to) {
  for (size_t i = 0; i < from.parameters().size(); ++i) {
    const Parameter& p = *from.parameters()[i];
    if (!p.matrix) continue;
    std::vector<int32_t> all(static_cast<size_t>(p.n));
    std::iota(all.begin(), all.end(), 0);
    std::vector<float> rows(static_cast<size_t>(p.n * p.k));
    kernels::embedding(p.packed(), all, rows.data());
    kernels::pack_rows(rows.data(), p.n, p.k, 0, to.parameters()[i]->data());
  }
}

bool same_weights(const CausalLM& a, const CausalLM& b) {
  const auto equal = [](const at::Tensor& x, const at::Tensor& y) {
    return x.defined() == y.defined() && (!x.defined() || x.equal(y));
  };
  bool same = a.parameters().size() == b.parameters().size();
  for (size_t i = 0; same && i < a.parameters().size(); ++i) {
    const Parameter &p = *a.parameters()[i], &q = *b.parameters()[i];
    same = equal(p.value, q.value) && equal(p.half, q.half) && equal(p.int8, q.int8) &&
           equal(p.scales, q.scales);
  }
  return same;
}

TEST(Int8, LogitsAreThoseOfTheWidenedWeightsAndNearThoseOfTheFile) {
  for (const char* family : kFamilies) {
    CausalLM exact(tiny(family), WeightDType::kFloat32, Trainable::kNo);
    CausalLM lm(tiny(family), WeightDType::kInt8, Trainable::kNo);
    const auto got = logits(lm, lm.forward(some_texts()));
    const auto want = logits(exact, exact.forward(some_texts()));
    std::vector<float> difference(got.size());
    for (size_t i = 0; i < got.size(); ++i) difference[i] = got[i] - want[i];
    // A weight moves by about 0.6% of a row's spread, every product again by as much.
    EXPECT_LT(root_mean_square(difference), 0.03 * root_mean_square(want)) << family;
    EXPECT_GT(root_mean_square(difference), 0.0) << family;
    widen_into(lm, exact);
    const auto widened = logits(exact, exact.forward(some_texts()));
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], widened[i], 2e-5) << family << i;
  }
}

TEST(Int8, TakesAboutAQuarterOfTheBytesOfFloat32) {
  const CausalLM exact(tiny(), WeightDType::kFloat32, Trainable::kNo);
  const CausalLM lm(tiny(), WeightDType::kInt8, Trainable::kNo);
  for (size_t i = 0; i < lm.parameters().size(); ++i) {
    const Parameter& p = *lm.parameters()[i];
    const size_t whole = exact.parameters()[i]->bytes();
    if (!p.matrix) {
      EXPECT_EQ(p.bytes(), whole) << p.name;
      continue;
    }
    // Rows of a few dozen: a scale for each weighs more here than in a model of use.
    const auto scales = static_cast<size_t>(kernels::scale_elements(p.n, p.k)) * 4;
    EXPECT_EQ(p.bytes(), whole / 4 + scales) << p.name;
    EXPECT_FALSE(p.value.defined() || p.half.defined()) << p.name;
  }
  EXPECT_LT(static_cast<double>(kernels::scale_elements(576, 576) * 4), 0.025 * 576 * 576);
}

TEST(Int8, ATrainableModelIsRefusedAndTheSettingNamed) {
  const std::string error =
      error_of([] { CausalLM(tiny(), WeightDType::kInt8, Trainable::kYes); });
  EXPECT_NE(error.find("trainer.weights"), std::string::npos) << error;
  EXPECT_NE(error.find("frozen models"), std::string::npos) << error;
  EXPECT_EQ(std::ranges::count(weight_dtype_names(), "int8"), 1);
  EXPECT_EQ(parse_weight_dtype("int8"), WeightDType::kInt8);
}

TEST(Int8, NumbersThatHaveNoScaleAreRefusedByTheTensorsName) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto load = [](const std::string& name, float value) {
    ModelSource source = tiny();
    source.weights = std::make_shared<OneReplaced>(source.weights, name, value);
    return error_of([&] { CausalLM(source, WeightDType::kInt8, Trainable::kNo); });
  };
  const std::string matrix = "model.layers.1.self_attn.k_proj.weight";
  EXPECT_EQ(load(matrix, kInfinity),
            "[load] " + matrix + " holds inf, which int8 cannot; use another weight type");
  EXPECT_NE(load(matrix, std::nanf("")).find("nan, which int8"), std::string::npos);
  EXPECT_EQ(load(matrix, 1e30f), "");
  EXPECT_EQ(load("model.norm.weight", kInfinity), "");  // Stays float32.
}

TEST(Int8, ACopyOfMastersIsTheModelOfTheFile) {
  const CausalLM lm(tiny(), WeightDType::kInt8, Trainable::kNo);
  for (const auto dtype : {WeightDType::kFloat32, WeightDType::kBfloat16, WeightDType::kFloat16}) {
    const CausalLM policy(tiny(), dtype, Trainable::kYes);
    EXPECT_TRUE(same_weights(*CausalLM::frozen_copy(policy, WeightDType::kInt8), lm));
    const CausalLM exact(tiny(), WeightDType::kFloat32, Trainable::kNo);
    EXPECT_TRUE(same_weights(*CausalLM::frozen_copy(policy, WeightDType::kFloat32), exact));
  }
  EXPECT_TRUE(same_weights(*CausalLM::frozen_copy(lm), lm));
  EXPECT_EQ(CausalLM::frozen_copy(lm)->dtype(), WeightDType::kInt8);
}

TEST(Int8, ACopyNeedsMastersAndNumbersThatHaveAScale) {
  const CausalLM frozen(tiny(), WeightDType::kBfloat16, Trainable::kNo);
  EXPECT_EQ(error_of([&] { (void)CausalLM::frozen_copy(frozen, WeightDType::kInt8); }),
            "[copy] embed_tokens is frozen in bfloat16: it cannot be copied in int8");
  const CausalLM policy(tiny(), WeightDType::kFloat32, Trainable::kYes);
  policy.head().data()[3] = std::nanf("");
  EXPECT_NE(error_of([&] { (void)CausalLM::frozen_copy(policy, WeightDType::kInt8); }).find("nan"),
            std::string::npos);
}

TEST(Int8, ACopyFollowsItsModel) {
  const CausalLM policy(tiny(), WeightDType::kBfloat16, Trainable::kYes);
  const auto copy = CausalLM::frozen_copy(policy, WeightDType::kInt8);
  for (const auto& p : policy.parameters()) p->value.mul_(1.5);
  const auto moved = CausalLM::frozen_copy(policy, WeightDType::kInt8);
  EXPECT_FALSE(same_weights(*copy, *moved));
  copy->copy_weights(policy);
  EXPECT_TRUE(same_weights(*copy, *moved));
}

TEST(Int8, NothingIsSavedOfIt) {
  const CausalLM lm(tiny(), WeightDType::kInt8, Trainable::kNo);
  EXPECT_EQ(error_of([&] { (void)lm.write_tensors(); }),
            "[save] embed_tokens is frozen and keeps no float32 values; save the policy instead");
}

TEST(Int8, ARewardModelScoresNearItsFloat32Self) {
  const Texts texts = {{5, 1, 9, 4}, {7, 7, 2}, {1, 2, 3, 4, 5, 6, 7}, {3}, {12, 11, 10}};
  const auto load = [](WeightDType dtype, Trainable trainable) {
    return RewardModel::load(reward_folder("llama").string(), dtype, trainable);
  };
  RewardModel reward = load(WeightDType::kInt8, Trainable::kNo);
  const auto want = load(WeightDType::kFloat32, Trainable::kNo).score(texts);
  const auto got = reward.score(texts);
  ASSERT_EQ(got.size(), texts.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], 0.03) << i;
    EXPECT_EQ(got[i], reward.score(std::span(&texts[i], 1))[0]) << "alone and in a batch";
  }
  EXPECT_NE(got, want);
  const std::string error = error_of([&] { (void)load(WeightDType::kInt8, Trainable::kYes); });
  EXPECT_NE(error.find("trainer.weights"), std::string::npos) << error;
  const TempFolder folder;
  EXPECT_NE(error_of([&] { reward.save(folder.path() / "r"); }).find("frozen"), std::string::npos);
}

}  // namespace
}  // namespace temper
