// The gradient memory that policy and value model share, and what an optimizer step leaves behind
// when one of the two cannot be made.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "temper/trainer/ppo.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Weights = std::vector<std::vector<float>>;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// A policy, a value model of its own and their trainer.
struct OwnCritic {
  PolicyModel policy = tiny_policy();
  PpoTrainer trainer;

  explicit OwnCritic(OnlineTrainer::Parts parts = tiny_parts(3))
      : trainer(policy, config(), std::move(parts),
                make_value_model(config().value, tiny_model().string(), nullptr,
                                 WeightDType::kFloat32)) {}

  static PpoConfig config() {
    PpoConfig p;
    p.online.group_size = 2;
    p.online.prompts_per_step = 3;
    p.value.coef = 0.5;
    return p;
  }
  [[nodiscard]] Critic& critic() const { return *trainer.parts().critic; }
  [[nodiscard]] Weights value_weights() const {
    Weights out;
    for (const Parameter* p : critic().parameters()) {
      out.emplace_back(p->data(), p->data() + p->elements());
    }
    return out;
  }
  [[nodiscard]] Rollout sampled() {
    Rollout r = trainer.rollout();
    trainer.score(r);
    trainer.estimate_advantages(r);
    return r;
  }
};

TEST(PpoMemory, TheValueModelAddsItsGradientsUpInThePolicys) {
  const OwnCritic run;
  std::set<const float*> policy;
  for (const auto& p : run.policy.lm().parameters()) policy.insert(p->grad_data());
  size_t shared = 0;
  std::set<const float*> value;
  for (const Parameter* p : run.critic().parameters()) {
    EXPECT_TRUE(value.insert(p->grad_data()).second) << p->name << " shares with another of its own";
    shared += policy.count(p->grad_data());
  }
  EXPECT_EQ(shared, policy.size()) << "the models have one shape, their heads apart";
  EXPECT_EQ(value.size(), shared + 2) << "the value head and its bias have memory apart";
}

TEST(PpoMemory, GradientsAreZeroBetweenSteps) {
  OwnCritic run;
  (void)run.trainer.step();
  for (const Parameter* p : run.critic().parameters()) {
    EXPECT_TRUE(std::all_of(p->grad_data(), p->grad_data() + p->elements(),
                            [](float g) { return g == 0; })) << p->name;
  }
}

TEST(PpoMemory, AnAdvantageThatIsNotFiniteStopsBeforeAnythingMoves) {
  OwnCritic run;
  Rollout r = run.sampled();
  r.advantages.tokens[1] = kNan;
  const Weights policy = weights_of(run.policy), value = run.value_weights();
  const std::string error = error_of([&] { run.trainer.update(r); });
  EXPECT_NE(error.find("the advantage of token 1 of the rollout is nan"), std::string::npos) << error;
  EXPECT_EQ(weights_of(run.policy), policy);
  EXPECT_EQ(run.value_weights(), value);
  (void)run.trainer.step();  // The trainer itself is whole.
}

TEST(PpoMemory, AStepThatOnlyTheValueModelMadeIsTheLast) {
  const TemporaryFolder folder;
  OwnCritic run;
  Rollout r = run.sampled();
  const Weights value = run.value_weights();
  for (const auto& p : run.policy.lm().parameters()) {
    if (p->name == "model.layers.1.down") p->data()[0] = kNan;
  }
  const std::string error = error_of([&] { run.trainer.update(r); });
  EXPECT_NE(error.find("layer 1 gives numbers that are not finite"), std::string::npos) << error;
  EXPECT_NE(error.find("The value model had made its own step by then"), std::string::npos) << error;
  EXPECT_NE(run.value_weights(), value);
  const char* refusal = "the value model has made an optimizer step that the policy could not";
  EXPECT_NE(error_of([&] { run.trainer.update(r); }).find(refusal), std::string::npos);
  EXPECT_NE(error_of([&] { run.trainer.save(folder.path()); }).find(refusal), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "model")) << "nothing half made is written";
}

// Everything that a resumed run needs, with moments in bfloat16.
TEST(PpoMemory, Bfloat16MomentsContinueWithTheSameBits) {
  const TemporaryFolder folder;
  OnlineTrainer::Parts parts = tiny_parts(4);
  parts.optimizer.moments = "bfloat16";
  OwnCritic whole(parts);
  for (int i = 0; i < 2; ++i) (void)whole.trainer.step();
  whole.trainer.save(folder.path());

  PolicyModel policy =
      PolicyModel::load((folder.path() / "model").string(), WeightDType::kFloat32);
  PpoTrainer resumed(policy, OwnCritic::config(), parts,
                     make_value_model(OwnCritic::config().value, tiny_model().string(), nullptr,
                                      WeightDType::kFloat32));
  resumed.set_reference(ReferenceModel::load(tiny_model().string(), WeightDType::kFloat32));
  resumed.load(folder.path());
  for (int i = 2; i < 4; ++i) {
    EXPECT_EQ(lasting(whole.trainer.step().metrics), lasting(resumed.step().metrics)) << i;
  }
  EXPECT_EQ(weights_of(policy), weights_of(whole.policy));
}

}  // namespace
}  // namespace temper::testing_trainer
