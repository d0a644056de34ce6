// Online training of an adapter: what moves, what the sampler's log-probs are, what a resume gives.
#include "temper/trainer/adapter_run.h"

#include <gtest/gtest.h>

#include <set>

#include "temper/core/config.h"
#include "temper/core/file.h"
#include "temper/nn/adapter.h"
#include "temper/trainer/plan.h"
#include "temper/trainer/ppo.h"
#include "temper/trainer/run.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

AdapterConfig small_adapter() {
  AdapterConfig c;
  c.r = 4;
  c.alpha = 32;
  c.rank_pattern = {{"down_proj", 3}};
  return c;
}

PolicyModel adapted(WeightDType dtype) {
  return PolicyModel::load_with_adapter(tiny_model().string(), dtype, small_adapter(), 3);
}

/// All that a model's products read, as bytes.
std::vector<char> base_bytes(const CausalLM& lm) {
  std::vector<char> out;
  for (const auto& p : lm.parameters()) {
    for (const auto* t : {&p->value, &p->half, &p->int8, &p->scales}) {
      if (!t->defined()) continue;
      const auto* from = static_cast<const char*>(t->const_data_ptr());
      out.insert(out.end(), from, from + t->numel() * static_cast<int64_t>(t->element_size()));
    }
  }
  return out;
}

std::vector<std::vector<float>> adapter_weights(const PolicyModel& policy) {
  std::vector<std::vector<float>> out;
  for (const Parameter* p : policy.lm().parameter_list()) {
    out.emplace_back(p->data(), p->data() + p->elements());
  }
  return out;
}

GrpoConfig grpo_with_kl() {
  GrpoConfig grpo = tiny_grpo();
  config_set(config_fields(grpo), "loss.kl_coef=0.1");
  grpo.online.gradient_checkpointing = true;
  return grpo;
}

class BaseType : public testing::TestWithParam<WeightDType> {};

/// Four steps whose sampled and trained bits agree, away from a reference that they begin at.
void expect_sampled_bits(PolicyModel& policy) {
  GrpoTrainer trainer(policy, grpo_with_kl(), tiny_parts(4));
  for (int step = 0; step < 4; ++step) {
    const Rollout r = trainer.step();
    EXPECT_EQ(r.metrics.at("sampling/mismatched_tokens"), 0) << step;
    EXPECT_GT(r.metrics.at("sampling/compared_tokens"), 0) << step;
    if (step == 0) {
      EXPECT_EQ(r.metrics.at("kl"), 0) << "B is 0: the policy is its reference";
    } else {
      EXPECT_GT(r.metrics.at("kl"), 0) << step;
    }
  }
}

TEST_P(BaseType, TrainsTheAdapterAlone) {
  PolicyModel policy = adapted(GetParam());
  const auto base = base_bytes(policy.lm());
  const auto before = adapter_weights(policy);
  expect_sampled_bits(policy);
  EXPECT_EQ(base_bytes(policy.lm()), base);
  const auto after = adapter_weights(policy);
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) EXPECT_NE(after[i], before[i]) << i;
}

// Training forwards drop out; what was sampled is not compared with them.
TEST(Dropout, TrainsWithoutComparingBits) {
  AdapterConfig c = small_adapter();
  c.dropout = 0.2;
  c.use_dora = true;
  PolicyModel policy = PolicyModel::load_with_adapter(tiny_model().string(), WeightDType::kFloat32, c, 3);
  const auto before = adapter_weights(policy);
  GrpoTrainer trainer(policy, grpo_with_kl(), tiny_parts(4));
  for (int step = 0; step < 4; ++step) {
    EXPECT_FALSE(trainer.step().metrics.contains("sampling/mismatched_tokens"));
  }
  const auto after = adapter_weights(policy);
  for (size_t i = 0; i < after.size(); ++i) EXPECT_NE(after[i], before[i]) << i;
}

TEST_P(BaseType, DoraKeepsTheSamplersBits) {
  AdapterConfig c = small_adapter();
  c.use_dora = true;
  PolicyModel policy = PolicyModel::load_with_adapter(tiny_model().string(), GetParam(), c, 3);
  const auto before = adapter_weights(policy);
  expect_sampled_bits(policy);
  const auto after = adapter_weights(policy);
  for (size_t i = 0; i < after.size(); ++i) EXPECT_NE(after[i], before[i]) << i;
}

TEST_P(BaseType, ContinuesWithTheSameBits) {
  const TemporaryFolder folder;
  PolicyModel policy = adapted(GetParam());
  GrpoTrainer whole(policy, grpo_with_kl(), tiny_parts(6));
  for (int i = 0; i < 3; ++i) (void)whole.step();
  whole.save(folder.path());
  EXPECT_FALSE(fs::exists(folder.path() / "model"));
  PolicyModel restored = PolicyModel::load_with_adapter(tiny_model().string(), GetParam(),
                                                        folder.path() / "adapter");
  EXPECT_EQ(adapter_weights(restored), adapter_weights(policy));
  GrpoTrainer resumed(restored, grpo_with_kl(), tiny_parts(6));
  resumed.load(folder.path());
  for (int i = 3; i < 6; ++i) {
    const Rollout a = whole.step(), b = resumed.step();
    EXPECT_EQ(a.rows, b.rows) << i;
    EXPECT_EQ(lasting(a.metrics), lasting(b.metrics)) << i;
  }
  EXPECT_EQ(adapter_weights(restored), adapter_weights(policy));
}

INSTANTIATE_TEST_SUITE_P(Types, BaseType,
                         testing::Values(WeightDType::kFloat32, WeightDType::kBfloat16,
                                         WeightDType::kBfloat16Dot, WeightDType::kFloat16,
                                         WeightDType::kInt8, WeightDType::kQ4),
                         [](const auto& type) { return std::string(weight_dtype_name(type.param)); });

std::vector<std::string> settings(const std::string& algorithm, std::vector<std::string> more = {}) {
  std::vector<std::string> out{"model=" + tiny_model().string(),
                               "task.prompt_template={question}=",
                               "task.train_size=20",
                               "task.held_out_size=6",
                               "reward.functions=length_penalty",
                               "rollout.max_new_tokens=10",
                               "rollout.stop=[\"a\",\"e\",\"i\",\"0\",\"5\",\"7\",\"T\",\"?\"]",
                               algorithm + ".group_size=3",
                               algorithm + ".prompts_per_step=2",
                               "schedule.learning_rate=0.005",
                               "adapter.r=4",
                               "adapter.rank_pattern=down_proj=3",
                               "adapter.use_rslora=true",
                               "trainer.weights=int8",
                               "trainer.checkpoint_every=2",
                               "trainer.steps=5",
                               "trainer.threads=1"};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

RunResult run(const std::string& algorithm, const std::vector<std::string>& assignments,
              const RunOptions& options) {
  if (algorithm == "grpo") return train_grpo(read_grpo_config("", "", assignments), options);
  return train_ppo(read_ppo_config("", "", assignments), options);
}

RunOptions options(const fs::path& output, bool resume = false, std::function<bool()> stop = {}) {
  RunOptions o;
  o.output = output;
  o.resume = resume;
  o.stop_requested = std::move(stop);
  return o;
}

class RunOf : public testing::TestWithParam<const char*> {};

TEST_P(RunOf, AnAdapterThatStoppedEndsAsOneThatDidNot) {
  const TemporaryFolder folder;
  const std::string name = GetParam(), algorithm = name.substr(0, name.find('_'));
  std::vector<std::string> more{"grpo.loss.kl_coef=0.05"};
  if (algorithm == "ppo") more = {name == "ppo_own" ? "ppo.value.model=own" : "ppo.value.model=trunk"};
  // DoRA and dropout resume too: what is dropped is keyed by the optimizer's step.
  if (name != "ppo_trunk") more.insert(more.end(), {"adapter.use_dora=true", "adapter.dropout=0.1"});
  const auto words = settings(algorithm, more);
  const RunResult whole = run(algorithm, words, options(folder.path() / "whole"));
  EXPECT_TRUE(whole.completed);
  int steps = 0;
  const auto stopped = run(algorithm, words,
                           options(folder.path() / "parts", false, [&] { return ++steps == 3; }));
  EXPECT_EQ(stopped.steps, 3);
  const auto last = list_checkpoints(folder.path() / "parts").back().folder;
  EXPECT_TRUE(fs::exists(last / "adapter/adapter_model.safetensors"));
  EXPECT_FALSE(fs::exists(last / "model"));
  const RunResult resumed = run(algorithm, words, options(folder.path() / "parts", true));
  EXPECT_EQ(resumed.steps, 5);
  for (const char* file : {"adapter/adapter_model.safetensors", "adapter/adapter_config.json",
                           "model/model.safetensors"}) {
    EXPECT_EQ(read_text_file(folder.path() / "parts" / file),
              read_text_file(folder.path() / "whole" / file)) << file;
  }
}
INSTANTIATE_TEST_SUITE_P(Algorithms, RunOf, testing::Values("grpo", "ppo_trunk", "ppo_own"),
                         [](const auto& a) { return std::string(a.param); });

TEST(AdapterRun, WritesAnAdapterAndTheModelThatItMakes) {
  const TemporaryFolder folder;
  const RunResult r = run("grpo", settings("grpo"), options(folder.path() / "run"));
  EXPECT_EQ(r.model, folder.path() / "run/model");
  const PolicyModel merged = PolicyModel::load(r.model.string(), WeightDType::kFloat32, Trainable::kNo);
  const PolicyModel apart = PolicyModel::load_with_adapter(
      tiny_model().string(), WeightDType::kInt8, folder.path() / "run/adapter", Trainable::kNo);
  TokenBatch text;
  for (int32_t i = 0; i < 20; ++i) {
    text.ids.push_back((7 * i + 5) % kVocabulary);
    text.positions.push_back(i);
  }
  text.segments = {{-1, 0, 20, -1}};
  const at::Tensor a = merged.lm().forward(text), b = apart.lm().forward(text);
  EXPECT_LT((a - b).abs().max().item<float>(), 1e-4f) << "the merged model is that of the int8 base";
  EXPECT_EQ(apart.lm().adapter()->config().rank_of("model.layers.0.mlp.down_proj"), 3);

  const RunResult alone = run("grpo", settings("grpo", {"adapter.save_merged=false", "trainer.steps=1"}),
                              options(folder.path() / "alone"));
  EXPECT_EQ(alone.model, folder.path() / "alone/adapter");
  EXPECT_FALSE(fs::exists(folder.path() / "alone/model"));
  // A further run goes on from it.
  const RunResult further =
      run("grpo", settings("grpo", {"adapter.r=0", "adapter.path=" + alone.model.string(), "trainer.steps=1"}),
          options(folder.path() / "further"));
  EXPECT_TRUE(further.completed);
  EXPECT_NE(read_text_file(folder.path() / "further/adapter/adapter_model.safetensors"),
            read_text_file(folder.path() / "alone/adapter/adapter_model.safetensors"));
}

// The bill's weights are the allocations, matrix by matrix.
TEST(AdapterPlan, CountsWhatAModelUnderAnAdapterHas) {
  for (const char* weights : {"int8", "bfloat16", "float32"}) {
    const GrpoRunConfig config = read_grpo_config(
        "", "", settings("grpo", {concat("trainer.weights=", weights), "grpo.loss.kl_coef=0.1"}));
    PlanSources sources;
    sources.policy = tiny_source().config;
    const Plan plan = make_plan(plan_input(config, sources));
    const PolicyModel policy = PolicyModel::load_with_adapter(
        tiny_model().string(), parse_weight_dtype(weights), config.adapter.settings(), 1);
    const uint64_t adapter = policy.lm().adapter()->bytes();
    EXPECT_EQ(plan.bytes("adapter"), 2 * adapter) << "two moments beside values and gradients";
    uint64_t base = 0;
    for (const auto& p : policy.lm().parameters()) base += p->bytes();
    EXPECT_EQ(plan.bytes("policy", "float32 weights") + plan.bytes("policy", "weights"), base) << weights;
    EXPECT_EQ(plan.bytes("policy", "gradients"), 0u);
    EXPECT_EQ(plan.bytes("policy", "embedding rows"), 0u);
    EXPECT_EQ(plan.bytes("reference"), static_cast<uint64_t>(plan.rows) * 32 * 4) << "its result alone";
  }
}

// Of a value model over the policy's weights only the adapter and the head are counted.
TEST(AdapterPlan, CountsAValueAdapterAndAReward) {
  const PpoRunConfig config = read_ppo_config(
      "", "", settings("ppo", {"ppo.value.model=own", "trainer.weights=q4", "adapter.use_dora=true"}));
  PlanSources sources;
  sources.policy = tiny_source().config;
  const Plan plan = make_plan(plan_input(config, sources));
  const PolicyModel policy = PolicyModel::load_with_adapter(tiny_model().string(), WeightDType::kQ4,
                                                            config.adapter.settings(), 1);
  const uint64_t adapter = policy.lm().adapter()->bytes();
  EXPECT_EQ(plan.bytes("adapter"), 2 * adapter);
  const auto width = static_cast<uint64_t>(sources.policy.hidden_size);
  EXPECT_EQ(plan.bytes("value"), 2 * adapter + 16 * (width + 1)) << "and a head with a bias";
  uint64_t base = 0;
  for (const auto& p : policy.lm().parameters()) base += p->bytes();
  EXPECT_EQ(plan.bytes("policy", "weights"), base);
}

// A value model of its own is a second adapter over the policy's weights, and has no gradients of the
// policy's to borrow.
TEST(AdapterRun, PpoWithAValueModelOfItsOwn) {
  const TemporaryFolder folder;
  const RunResult r = run("ppo", settings("ppo", {"ppo.value.model=own", "trainer.weights=bfloat16",
                                                  "ppo.kl.reward_coef=0.05", "trainer.steps=2"}),
                          options(folder.path() / "run"));
  EXPECT_TRUE(r.completed);
  EXPECT_TRUE(fs::exists(folder.path() / "run/adapter/adapter_config.json"));
  const auto last = list_checkpoints(folder.path() / "run").back().folder;
  EXPECT_TRUE(fs::exists(last / "value/adapter_model.safetensors"));
  EXPECT_FALSE(fs::exists(last / "value/model.safetensors"));
  // From a scoring adapter's folder, and from a whole model, which is loaded and trained whole.
  PolicyModel policy = adapted(WeightDType::kBfloat16);
  ValueModel first = ValueModel::over(policy, small_adapter(), 5);
  first.save_adapter(folder.path() / "value");
  CriticConfig config;
  config.init = (folder.path() / "value").string();
  ASSERT_TRUE(make_value_adapter(config, policy, 1));
  EXPECT_EQ(make_value_adapter(config, policy, 1)->backbone().parameters()[0]->half.data_ptr(),
            policy.lm().parameters()[0]->half.data_ptr());
  config.init = tiny_model().string();
  EXPECT_FALSE(make_value_adapter(config, policy, 1));
}

TEST(AdapterRun, WhatDoesNotFitIsRefusedByItsKey) {
  const TemporaryFolder folder;
  const auto error = [&](const std::vector<std::string>& more, const char* output, bool resume = false) {
    return error_of([&] { (void)run("grpo", settings("grpo", more), options(folder.path() / output, resume)); });
  };
  EXPECT_EQ(error({"trainer.steps=2"}, "run"), "");
  EXPECT_NE(error({"adapter.r=5"}, "run", true).find("adapter.r is not that of the checkpoint"), std::string::npos);
  EXPECT_NE(error({"adapter.r=0", "trainer.weights=float32"}, "run", true).find("is one of an adapter"),
            std::string::npos);
  EXPECT_NE(error({"adapter.r=0"}, "a").find("trainer.weights=int8"), std::string::npos);
  EXPECT_NE(error({"adapter.r=-1"}, "a").find("adapter.r must be at least 0"), std::string::npos);
  EXPECT_NE(error({"adapter.rank_pattern=down_proj"}, "a").find("is no module=number"), std::string::npos);
  EXPECT_NE(error({"grpo.loss.kl_coef=0.1", "grpo.ref_sync_every=2"}, "a").find("leave it at 0"),
            std::string::npos);
  EXPECT_NE(error({"grpo.loss.kl_coef=0.1", "trainer.reference_weights=float32"}, "a")
                .find("leave trainer.reference_weights at same"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::testing_trainer
