// The bill of training a reward model: lines against what the models and the optimizer hold, and the
// formulas of docs/memory.md.
#include <gtest/gtest.h>

#include <algorithm>

#include "temper/nn/scalar_model.h"
#include "temper/trainer/plan.h"
#include "temper/trainer/reward_run.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

PlanInput input(const std::vector<std::string>& assignments,
                const std::vector<int64_t>& rows = {10, 40, 16}) {
  return plan_input(read_reward_config("", "", assignments), tiny_source().config, rows);
}

TEST(PlanReward, WeightsAreThoseOfTheModel) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    const Plan plan = make_plan(input({"trainer.weights=" + dtype}));
    RewardModel model = RewardModel::from_language_model(tiny_model().string(), parse_weight_dtype(dtype));
    const uint64_t kept = plan.bytes("model", "float32 weights") + plan.bytes("model", "16-bit weights") +
                          plan.bytes("model", "gradients");
    EXPECT_EQ(kept, model.backbone().weight_bytes()) << dtype;
    const Optimizer optimizer(model.parameters(), {});
    const uint64_t planned = plan.bytes("model", "optimizer") + plan.bytes("head", "optimizer");
    EXPECT_EQ(planned, optimizer.bytes() + 8) << "a plan's head has a bias, a new one has none";
    const Optimizer rounded(model.parameters(), {.moments = "bfloat16"});
    const Plan half = make_plan(input({"optimizer.moments=bfloat16"}));
    EXPECT_EQ(half.bytes("model", "optimizer") + half.bytes("head", "optimizer"), rounded.bytes() + 4);
  }
}

TEST(PlanReward, RowsAreBoundedByTheLimitAndByTheStep) {
  EXPECT_EQ(make_plan(input({})).rows, 8 * 40);  // All pairs of a step, each as the longest.
  EXPECT_EQ(make_plan(input({"reward.micro_batch_tokens=100"})).rows, 100);
  EXPECT_EQ(make_plan(input({"reward.micro_batch_tokens=7"})).rows, 40);  // A long pair runs alone.
  EXPECT_EQ(make_plan(input({"reward.pairs_per_step=2"})).bytes("model", "embedding rows"),
            2u * 22 * 32 * 4);  // The mean of 10, 40 and 16.
}

TEST(PlanReward, AFrozenBackboneKeepsItsWeightsAlone) {
  const Plan plan = make_plan(input({"reward.freeze_backbone=true"}));
  for (const char* part : {"gradients", "optimizer", "activations", "embedding rows"}) {
    EXPECT_EQ(plan.bytes("model", part), 0u) << part;
  }
  EXPECT_EQ(plan.bytes("head", "gradients"), 33u * 4);
  const Plan trained = make_plan(input({}));
  EXPECT_DOUBLE_EQ(trained.phases[0].trunk, 3 * plan.phases[0].trunk);
}

TEST(PlanReward, PartsAddUpAndChangesAreThoseOfTheKeys) {
  const PlanInput in = input({"reward.pairs_per_step=64"});
  const Plan plan = make_plan(in);
  uint64_t sum = 0;
  for (const PlanPart& part : plan.parts) sum += part.bytes;
  EXPECT_EQ(sum, plan.training);
  EXPECT_EQ(plan.bytes("rollout"), 0u);
  std::vector<std::string> settings;
  for (const PlanChange& c : plan_changes(in)) settings.push_back(c.setting);
  for (const char* wanted : {"reward.gradient_checkpointing=true", "optimizer.moments=bfloat16",
                             "reward.micro_batch_tokens=1024"}) {
    EXPECT_NE(std::find(settings.begin(), settings.end(), wanted), settings.end()) << wanted;
  }
  EXPECT_NE(error_of([] { (void)input({}, {}); }).find("no pair"), std::string::npos);
}

}  // namespace
}  // namespace temper::testing_trainer
