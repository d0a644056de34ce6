// The bill of training on given answers: lines against what the models and the optimizer hold, and
// the formulas of docs/memory.md.
#include <gtest/gtest.h>

#include <algorithm>

#include "temper/nn/models.h"
#include "temper/trainer/offline_run.h"
#include "temper/trainer/plan.h"
#include "temper/trainer/preference_run.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

/// Rows of a prompt of `prompt` tokens and answers of these lengths.
AnswerGroup row(size_t prompt, const std::vector<size_t>& answers) {
  AnswerGroup g;
  g.prompt.resize(prompt);
  for (const size_t n : answers) g.answers.push_back({std::vector<int32_t>(n), {}});
  return g;
}

PlanInput input(const std::string& method, const std::vector<std::string>& assignments) {
  const std::vector<AnswerGroup> rows{row(10, {5, 9}), row(4, {7, 3})};
  return plan_input(read_offline_config(method, "", "", assignments), tiny_source().config, rows);
}

TEST(PlanAnswers, RowsCountPromptsOnceAndNoLastToken) {
  const PlanInput in = input("dpo", {"offline.rows_per_step=3"});
  EXPECT_EQ(in.answers->longest, 10 + 4 + 8);
  EXPECT_EQ(in.answers->mean, (22 + 12) / 2);
  EXPECT_DOUBLE_EQ(in.answers->scored_share, 24.0 / 34.0);  // 5 + 9 + 7 + 3 of 22 + 12 rows.
  EXPECT_EQ(make_plan(in).rows, 3 * 22);
  EXPECT_EQ(make_plan(input("dpo", {"offline.micro_batch_tokens=30"})).rows, 30);
  EXPECT_EQ(make_plan(input("dpo", {"offline.micro_batch_tokens=7"})).rows, 22);
}

TEST(PlanAnswers, WeightsAreThoseOfTheModelAndACachedReferenceIsNone) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    const Plan plan = make_plan(input("dpo", {"trainer.weights=" + dtype}));
    const PolicyModel model =
        PolicyModel::load(tiny_model().string(), parse_weight_dtype(dtype), Trainable::kYes);
    const uint64_t kept = plan.bytes("policy", "float32 weights") +
                          plan.bytes("policy", "16-bit weights") + plan.bytes("policy", "gradients");
    EXPECT_EQ(kept, model.lm().weight_bytes()) << dtype;
    EXPECT_EQ(plan.bytes("reference"), 0u);
    const Plan live = make_plan(input("dpo", {"trainer.weights=" + dtype, "offline.reference=live"}));
    EXPECT_EQ(live.bytes("reference", "weights"),
              ReferenceModel::copy_of(model).lm().weight_bytes()) << dtype;
  }
  EXPECT_EQ(make_plan(input("sft", {"offline.reference=live"})).bytes("reference"), 0u);
}

TEST(PlanAnswers, AnAdapterFreezesThePolicy) {
  const Plan plan = make_plan(input("dpo", {"adapter.r=4", "offline.reference=live"}));
  EXPECT_EQ(plan.bytes("policy", "gradients"), 0u);
  EXPECT_EQ(plan.bytes("reference", "weights"), 0u);
  EXPECT_GT(plan.bytes("adapter", "gradients"), 0u);
  const Plan whole = make_plan(input("dpo", {}));
  EXPECT_LT(plan.bytes("", "optimizer"), whole.bytes("", "optimizer"));
}

TEST(PlanAnswers, LossesThatReadSumsCostAForwardMore) {
  const auto names = [](const PlanInput& in) {
    std::vector<std::string> out;
    for (const PlanPhase& p : make_plan(in).phases) out.push_back(p.name);
    return out;
  };
  EXPECT_EQ(names(input("sft", {})), (std::vector<std::string>{"update"}));
  EXPECT_EQ(names(input("kto", {"offline.reference=live"})),
            (std::vector<std::string>{"reference", "sums", "update"}));
  const Plan plan = make_plan(input("kto", {}));
  EXPECT_DOUBLE_EQ(plan.phases[1].trunk, 3 * plan.phases[0].trunk);
  EXPECT_DOUBLE_EQ(plan.phases[1].head, 4 * plan.phases[0].head);
}

TEST(PlanAnswers, ChangesAreThoseOfTheKeys) {
  const PlanInput in = input("dpo", {"offline.reference=live", "offline.rows_per_step=64"});
  uint64_t sum = 0;
  const Plan plan = make_plan(in);
  for (const PlanPart& part : plan.parts) sum += part.bytes;
  EXPECT_EQ(sum, plan.training);
  std::vector<std::string> settings;
  for (const PlanChange& c : plan_changes(in)) settings.push_back(c.setting);
  for (const char* wanted : {"offline.gradient_checkpointing=true", "offline.reference=cached",
                             "optimizer.moments=bfloat16", "offline.micro_batch_tokens=704"}) {
    EXPECT_NE(std::find(settings.begin(), settings.end(), wanted), settings.end()) << wanted;
  }
}

TEST(PlanPreference, AReferenceOfTheRoundIsNone) {
  const auto plan = [](const std::vector<std::string>& assignments) {
    PlanSources sources;
    sources.policy = tiny_source().config;
    sources.prompt_tokens = {6, 4};
    return make_plan(plan_input(read_preference_config("online-dpo", "", "", assignments), sources));
  };
  const Plan initial = plan({"preference.reference=initial", "rollout.max_new_tokens=8",
                             "preference.prompts_per_round=4", "preference.rows_per_step=2"});
  EXPECT_EQ(initial.rows, 2 * (6 + 2 * 7));  // Half of a round's prompts, two answers each.
  EXPECT_GT(initial.bytes("reference", "weights"), 0u);
  EXPECT_GT(initial.bytes("rollout"), 0u);
  EXPECT_EQ(plan({"preference.reference=round"}).bytes("reference"), 0u);
}

}  // namespace
}  // namespace temper::testing_trainer
