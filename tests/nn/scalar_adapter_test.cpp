// Scoring models that are an adapter and a head. Golden vectors: tests/golden/make_adapters.py (peft
// 0.21). Invariants: what models over one base share, and what they do not.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "nn/adapter_case.h"
#include "nn/reward_test_util.h"

namespace temper {
namespace {

using namespace testing_nn;

const std::string kBase = reward_folder("llama").string();

RewardModel scored(Trainable trainable = Trainable::kNo, WeightDType dtype = WeightDType::kFloat32) {
  return RewardModel::load_with_adapter(kBase, dtype, adapter_folder("scored"), trainable);
}

struct ScoredGolden {
  SafetensorsFile base = SafetensorsFile::open(reward_folder("llama") / "golden.safetensors");
  SafetensorsFile file = SafetensorsFile::open(adapter_folder("scored") / "golden.safetensors");
  Texts texts = split(ids(base, "in.ids"), ids(base, "in.offsets"));
};

TEST(ScoredAdapter, ScoresAndGradientsArePefts) {
  const ScoredGolden golden;
  RewardModel model = scored(Trainable::kYes);
  const auto expected = numbers(golden.file, "out.scores");
  const auto got = model.score(golden.texts);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(got[i], expected[i], 2e-5) << i;
  const TokenBatch batch = packed(golden.texts);
  std::vector<int32_t> last;
  for (const Segment& s : batch.segments) last.push_back(s.start + s.length - 1);
  ScalarTape tape;
  (void)model.values_train(batch, last, tape);
  auto c = as_floats(numbers(golden.base, "in.c"));
  model.values_backward(tape, tensor(c));
  model.finish_gradients();
  size_t checked = 0;
  for (const Parameter* p : model.parameters()) {
    for (const auto& part : p->parts) {
      const std::string name = part.name == "score.weight" ? peft_name_score() : part.name;
      const auto want = numbers(golden.file, "grad." + name);
      std::vector<float> rows(static_cast<size_t>(part.rows * p->k));
      p->get_part(part, p->grad, rows.data());
      double largest = 1e-3;
      for (const double v : want) largest = std::max(largest, std::abs(v));
      ASSERT_EQ(rows.size(), want.size()) << name;
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(rows[i], want[i], 1e-4 * largest) << name << i;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 13u);  // Three modules of two layers, and the head.
}

// The folder is what `make_adapters.py --check` gives to PEFT.
TEST(ScoredAdapter, ComesBackFromItsFolder) {
  const ScoredGolden golden;
  RewardModel model = scored();
  const OwnFolder own;
  const char* kept = std::getenv("TEMPER_ADAPTER_FOLDER");
  const fs::path folder = (kept != nullptr ? fs::path(kept) : own.path) / "scored";
  model.save_adapter(folder);
  const Json config = read_json(folder / "adapter_config.json");
  EXPECT_EQ(config["task_type"], "SEQ_CLS");
  EXPECT_EQ(config["modules_to_save"], Json({"classifier", "score"}));
  RewardModel back = RewardModel::load_with_adapter(kBase, WeightDType::kFloat32, folder, Trainable::kNo);
  EXPECT_EQ(back.score(golden.texts), model.score(golden.texts));
  // By the folder alone, where it names its base.
  Json named = config;
  named["base_model_name_or_path"] = kBase;
  std::ofstream(folder / "adapter_config.json") << named.dump();
  RewardModel alone = RewardModel::load(folder.string(), WeightDType::kFloat32);
  EXPECT_EQ(alone.score(golden.texts), model.score(golden.texts));
  std::ofstream(folder / "adapter_config.json") << config.dump();
  // Merged into a folder that needs no adapter.
  const TempFolder merged;
  model.save(merged.path());
  RewardModel whole = RewardModel::load(merged.path().string(), WeightDType::kFloat32);
  const auto a = whole.score(golden.texts), b = model.score(golden.texts);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
  const ValueModel copy = ValueModel::copy_of(model, Trainable::kNo);
  EXPECT_EQ(copy.backbone().adapter(), nullptr);
}

TEST(ScoredAdapter, ANewOneBeginsWithItsBasesHead) {
  AdapterConfig config;
  config.r = 2;
  RewardModel base = RewardModel::load(kBase, WeightDType::kFloat32);
  RewardModel model = RewardModel::load_with_adapter(kBase, WeightDType::kFloat32, config, 3);
  EXPECT_EQ(model.score(some_texts(4)), base.score(some_texts(4)));
  EXPECT_TRUE(model.backbone().trainable());
  RewardModel bare = RewardModel::load_with_adapter((golden_folder() / "llama").string(), WeightDType::kQ4, config, 3);
  EXPECT_EQ(bare.score(some_texts(2)), std::vector<float>(2, 0.0f));
}

// Policy, value model and reference over one set of weights.
TEST(SharedBase, EveryModelHasItsOwnAdapterAndOneCopyOfTheWeights) {
  AdapterConfig config;
  config.r = 3;
  const std::string spec = (golden_folder() / "llama").string();
  for (const WeightDType dtype : {WeightDType::kFloat32, WeightDType::kInt8, WeightDType::kQ4}) {
    const CausalLM base(open_model(spec), dtype, Trainable::kNo);
    CausalLM policy(open_model(spec), dtype, Trainable::kNo);
    policy.add_adapter(config, 1);
    std::shared_ptr<CausalLM> second = policy.without_adapter();
    second->add_adapter(config, 2);
    ValueModel value(second, ScalarHead(32), std::make_shared<ModelSource>(open_model(spec)));
    const auto reference = policy.without_adapter();
    for (size_t i = 0; i < base.parameters().size(); ++i) {
      const auto a = policy.parameters()[i]->packed(), b = value.backbone().parameters()[i]->packed();
      EXPECT_TRUE(a.f32 == b.f32 && a.i8 == b.i8 && a.codes4 == b.codes4 && a.codes8 == b.codes8);
    }
    const TokenBatch text = packed({{5, 9, 60, 3}});
    const auto before = floats(policy.forward(text));
    // The value model learns; policy and reference stay where they are.
    for (Parameter* p : value.parameters()) {
      if (!p->matrix || p->k != 3) continue;
      std::vector<float> rows(static_cast<size_t>(p->n * p->k), 0.1f);
      p->set_part({"", 0, p->n}, rows.data());
    }
    EXPECT_NE(floats(value.backbone().forward(text)), before);
    EXPECT_EQ(floats(policy.forward(text)), before);
    EXPECT_EQ(floats(reference->forward(text)), before) << "B of the policy is 0";
    EXPECT_EQ(value.parameters().size(), policy.parameter_list().size() + 1);
  }
}

TEST(ScoredAdapter, WhatHasNoHeadOrABiasIsRefused) {
  EXPECT_NE(error_of([] {
              (void)RewardModel::load_with_adapter((golden_folder() / "llama").string(), WeightDType::kFloat32,
                                                   adapter_folder("lora"), Trainable::kNo);
            }).find("task_type is not SEQ_CLS"),
            std::string::npos);
  EXPECT_NE(error_of([] { scored().backbone().load_adapter(adapter_folder("scored"), Trainable::kNo); })
                .find("has one already"),
            std::string::npos);
  RewardModel plain = RewardModel::load(kBase, WeightDType::kFloat32);
  EXPECT_NE(error_of([&] { plain.save_adapter("x"); }).find("none to save"), std::string::npos);
  RewardModel model = scored();
  const RewardModel biased(model.shared_backbone(), ScalarHead(16, true), model.shared_source());
  EXPECT_NE(error_of([&] { biased.save_adapter("x"); }).find("has a bias"), std::string::npos);
}

}  // namespace
}  // namespace temper
