// A reference in another weight type than the policy's.
#include <gtest/gtest.h>

#include <cmath>

#include "temper/trainer/adapter_run.h"
#include "temper/trainer/run_config.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

GrpoConfig with_kl() {
  GrpoConfig grpo = tiny_grpo();
  config_set(config_fields(grpo), "loss.kl_coef=0.1");
  return grpo;
}

OnlineTrainer::Parts in_type(WeightDType dtype, int64_t steps = 8) {
  OnlineTrainer::Parts parts = tiny_parts(steps);
  parts.reference_weights = dtype;
  return parts;
}

// The policy has the reference's masters, so all of the KL is the rounding of the reference.
TEST(ReferenceWeights, TheKlBeginsAtTheRoundingOfTheirType) {
  const auto first_kl = [](std::optional<WeightDType> dtype) {
    OnlineTrainer::Parts parts = tiny_parts();
    parts.reference_weights = dtype;
    PolicyModel policy = tiny_policy();
    GrpoTrainer trainer(policy, with_kl(), parts);
    const Metrics metrics = trainer.step().metrics;
    EXPECT_EQ(metrics.at("sampling/mismatched_tokens"), 0);
    return metrics.at("kl");
  };
  EXPECT_EQ(first_kl(std::nullopt), 0);
  EXPECT_EQ(first_kl(WeightDType::kFloat32), 0);
  EXPECT_GT(first_kl(WeightDType::kFloat16), 0);
  EXPECT_GT(first_kl(WeightDType::kInt8), first_kl(WeightDType::kFloat16));
  EXPECT_LT(first_kl(WeightDType::kInt8), 1e-3);
}

TEST(ReferenceWeights, ASavedRunGoesOnWithAnInt8Reference) {
  const TemporaryFolder folder;
  PolicyModel policy = tiny_policy(WeightDType::kBfloat16);
  GrpoTrainer whole(policy, with_kl(), in_type(WeightDType::kInt8));
  for (int i = 0; i < 2; ++i) (void)whole.step();
  whole.save(folder.path());
  PolicyModel restored =
      PolicyModel::load((folder.path() / "model").string(), WeightDType::kBfloat16);
  GrpoTrainer resumed(restored, with_kl(), in_type(WeightDType::kInt8));
  resumed.set_reference(ReferenceModel::load(tiny_model().string(), WeightDType::kInt8));
  resumed.load(folder.path());
  for (int i = 2; i < 4; ++i) {
    EXPECT_EQ(lasting(whole.step().metrics), lasting(resumed.step().metrics)) << i;
  }
  EXPECT_EQ(weights_of(restored), weights_of(policy));
}

TEST(ReferenceWeights, AMovingReferenceOfARoundedPolicyMayBeFloat32) {
  const TemporaryFolder folder;
  GrpoConfig grpo = with_kl();
  grpo.online.ref_sync_every = 1;
  PolicyModel policy = tiny_policy(WeightDType::kBfloat16);
  GrpoTrainer whole(policy, grpo, in_type(WeightDType::kFloat32));
  for (int i = 0; i < 2; ++i) (void)whole.step();
  whole.save(folder.path());
  PolicyModel restored =
      PolicyModel::load((folder.path() / "model").string(), WeightDType::kBfloat16);
  GrpoTrainer resumed(restored, grpo, in_type(WeightDType::kFloat32));
  resumed.load(folder.path());
  for (int i = 2; i < 4; ++i) {
    EXPECT_EQ(lasting(whole.step().metrics), lasting(resumed.step().metrics)) << i;
  }
  EXPECT_EQ(weights_of(restored), weights_of(policy));
  const std::string error =
      error_of([&] { GrpoTrainer(policy, grpo, in_type(WeightDType::kInt8)); });
  EXPECT_NE(error.find("trainer.reference_weights=float32"), std::string::npos) << error;
}

TEST(ReferenceWeights, AnInt8ReferenceMovesWhollyOrNotAtAll) {
  PolicyModel policy = tiny_policy(WeightDType::kBfloat16);
  ReferenceModel reference = ReferenceModel::copy_of(policy, WeightDType::kInt8);
  EXPECT_EQ(reference.lm().dtype(), WeightDType::kInt8);
  EXPECT_LT(reference.bytes(), ReferenceModel::copy_of(policy).bytes());
  for (const auto& p : policy.lm().parameters()) p->value.mul_(1.5);
  reference.sync(policy, 1.0);
  const ReferenceModel moved = ReferenceModel::copy_of(policy, WeightDType::kInt8);
  for (size_t i = 0; i < moved.lm().parameters().size(); ++i) {
    const Parameter &got = *reference.lm().parameters()[i], &want = *moved.lm().parameters()[i];
    if (!want.matrix) continue;
    EXPECT_TRUE(got.int8.equal(want.int8) && got.scales.equal(want.scales)) << want.name;
  }
  EXPECT_NE(error_of([&] { reference.sync(policy, 0.5); }).find("float32"), std::string::npos);
}

TEST(ReferenceWeights, OnlyFrozenModelsMayBeInt8) {
  const auto read = [](const std::string& assignment) {
    return error_of([&] { (void)read_grpo_config("", "test", {assignment}); });
  };
  EXPECT_EQ(read("trainer.reference_weights=int8"), "");
  EXPECT_EQ(read("trainer.reference_weights=same"), "");
  EXPECT_EQ(read("reward_model.weights=int8"), "");
  const auto load = [](int64_t rank) {
    return error_of([&] {
      (void)load_run_policy(tiny_model().string(), WeightDType::kInt8, {.r = rank}, 1, std::nullopt);
    });
  };
  EXPECT_NE(load(0).find("trainer.weights"), std::string::npos) << load(0);
  EXPECT_EQ(load(2), "");
  const std::string unknown = read("trainer.reference_weights=int4");
  EXPECT_NE(unknown.find("trainer.reference_weights"), std::string::npos) << unknown;
}

}  // namespace
}  // namespace temper::testing_trainer
