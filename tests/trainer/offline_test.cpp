// The offline trainer: what it learns, and what may not change a bit of it.
#include "temper/trainer/offline.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

/// Pairs in which the preferred answer says the larger digit, of several lengths.
TokenizedAnswers pairs(int64_t count) {
  TokenizedAnswers out;
  RngStream rng(3, RngPurpose::kTest, 0);
  for (int64_t i = 0; i < count; ++i) {
    const auto low = static_cast<int32_t>(rng.next_below(5));
    std::vector<int32_t> prompt(1 + rng.next_below(5), 40);
    prompt.push_back(19 + low);
    out.groups.push_back(
        {.prompt = std::move(prompt),
         .answers = {{{20 + low, kEos}, {}}, {{19 + low, 19 + low, kEos}, {}}},
         .line = static_cast<uint64_t>(i + 1)});
  }
  out.hash = static_cast<uint64_t>(count);
  return out;
}

/// The preferred answers as desirable and the others as undesirable, in turn.
TokenizedAnswers singles(int64_t count) {
  TokenizedAnswers out = pairs(count);
  for (size_t i = 0; i < out.groups.size(); ++i) {
    AnswerGroup& g = out.groups[i];
    g.label = i % 2 == 0 ? 1 : 0;
    g.answers = {g.answers[i % 2]};
  }
  return out;
}

struct Trained {
  std::vector<std::vector<float>> weights;
  Metrics first, last;
};

OfflineTrainer::Parts parts_of(const OfflineLoss& loss, int64_t rows = 16) {
  OfflineTrainer::Parts p;
  p.objective = loss.build();
  p.needs = loss.needs();
  p.data = p.needs.pairs ? pairs(rows) : singles(rows);
  p.schedule = {.learning_rate = 5e-3};
  p.total_steps = 4;
  p.baseline_scale = loss.setting("beta");
  return p;
}

void give_reference(OfflineTrainer& t, const PolicyModel& policy) {
  if (!t.wants_reference()) return;
  if (t.parts().config.reference == "live") {
    t.set_reference(ReferenceModel::copy_of(policy));
  } else {
    t.cache_reference(policy.lm(), nullptr);
  }
}

Trained run(OfflineTrainer::Parts parts, int64_t steps) {
  PolicyModel policy = tiny_policy();
  OfflineTrainer trainer(policy, std::move(parts));
  give_reference(trainer, policy);
  Trained out;
  for (int64_t i = 0; i < steps; ++i) {
    out.last = trainer.step();
    if (i == 0) out.first = out.last;
  }
  out.weights = weights_of(policy);
  return out;
}

OfflineLoss loss_of(const std::string& name, const std::vector<std::string>& settings = {}) {
  OfflineLoss loss(name);
  for (const auto& s : settings) config_set(config_fields(loss), s);
  return loss;
}

/// Every loss of the table, and those of DPO that need more than log-probs.
std::vector<OfflineLoss> losses() {
  std::vector<OfflineLoss> out;
  for (const auto& entry : offline_objectives()) {
    if (entry.name == "xpo" || entry.name == "nash_md") continue;  // Of sampled answers.
    out.push_back(loss_of(entry.name));
  }
  out.push_back(loss_of("dpo", {"loss_type=aot"}));
  out.push_back(loss_of("dpo", {"use_weighting=true"}));
  return out;
}

TEST(Offline, MicroBatchesAndTheReferencesPlaceChangeNoBit) {
  for (const OfflineLoss& loss : losses()) {
    auto whole = parts_of(loss), small = parts_of(loss), live = parts_of(loss);
    small.config.micro_batch_tokens = 1;
    live.config.reference = "live";
    const Trained a = run(std::move(whole), 3), b = run(std::move(small), 3),
                  c = run(std::move(live), 3);
    EXPECT_EQ(a.weights, c.weights) << loss.name();
    // Losses that weigh a row by others of its micro-batch sum in float64 in another order.
    EXPECT_LT(largest_difference(a.weights, b.weights), 1e-6) << loss.name();
    EXPECT_NEAR(a.last.at("loss"), b.last.at("loss"), 1e-6) << loss.name();
    EXPECT_NE(a.weights, weights_of(tiny_policy())) << loss.name();
  }
}

TEST(Offline, BeginsAtTheLossesOfNoDifference) {
  const auto first = [](const OfflineLoss& loss) { return run(parts_of(loss), 1).first; };
  const Metrics dpo = first(loss_of("dpo"));
  EXPECT_NEAR(dpo.at("loss"), std::log(2.0), 1e-7);
  EXPECT_EQ(dpo.at("rewards/accuracies"), 0);  // A tie is no preference.
  EXPECT_EQ(dpo.at("rewards/margins"), 0);
  EXPECT_NEAR(first(loss_of("dpo", {"loss_type=hinge"})).at("loss"), 1.0, 1e-7);
  EXPECT_NEAR(first(loss_of("kto")).at("loss"), 0.5, 1e-7);
  EXPECT_NEAR(first(loss_of("bco")).at("loss"), std::log(2.0), 1e-7);
}

TEST(Offline, SupervisedTrainingLearnsTheAnswers) {
  auto parts = parts_of(loss_of("sft"));
  for (AnswerGroup& g : parts.data.groups) g.answers[0].ids = {20, kEos};
  parts.total_steps = 60;
  const Trained t = run(std::move(parts), 60);
  EXPECT_GT(t.first.at("loss"), 3);
  EXPECT_LT(t.last.at("loss"), 0.05);
  EXPECT_LT(t.last.at("entropy"), 0.2);
}

TEST(Offline, PreferencesPullTheSidesApart) {
  for (const char* name : {"dpo", "simpo", "orpo", "cpo"}) {
    auto parts = parts_of(loss_of(name));
    parts.total_steps = 40;
    const Trained t = run(std::move(parts), 40);
    EXPECT_EQ(t.last.at("rewards/accuracies"), 1) << name;
    EXPECT_LT(t.last.at("loss"), t.first.at("loss")) << name;
    EXPECT_GT(t.last.at("logps/chosen"), t.last.at("logps/rejected")) << name;
  }
}

TEST(Offline, AResumedTrainerGoesOnWithTheSameBits) {
  for (const char* name : {"sft", "dpo", "kto", "bco"}) {
    const TemporaryFolder folder;
    const OfflineLoss loss = loss_of(name);
    const Trained whole = run(parts_of(loss), 4);
    {
      PolicyModel policy = tiny_policy();
      OfflineTrainer trainer(policy, parts_of(loss));
      give_reference(trainer, policy);
      if (loss.needs().reference) trainer.save_cache(folder.path() / "cache.safetensors", 7);
      (void)trainer.step();
      (void)trainer.step();
      fs::create_directories(folder.path() / "c");
      trainer.save(folder.path() / "c");
    }
    PolicyModel policy = PolicyModel::load((folder.path() / "c/model").string(), WeightDType::kFloat32);
    OfflineTrainer trainer(policy, parts_of(loss));
    if (loss.needs().reference) {
      EXPECT_FALSE(trainer.load_cache(folder.path() / "cache.safetensors", 8));  // Another model's.
      EXPECT_TRUE(trainer.load_cache(folder.path() / "cache.safetensors",
                                     OfflineTrainer::cached_model(folder.path() / "c")));
    }
    trainer.load(folder.path() / "c");
    (void)trainer.step();
    const Metrics last = trainer.step();
    EXPECT_EQ(weights_of(policy), whole.weights) << name;
    EXPECT_EQ(lasting(last), lasting(whole.last)) << name;
  }
}

TEST(Offline, AMovingReferenceIsKept) {
  auto parts = parts_of(loss_of("dpo"));
  parts.config.reference = "live";
  parts.config.ref_sync_every = 1;
  parts.config.ref_sync_mix = 1;  // The reference is the policy again after every step.
  const Trained t = run(std::move(parts), 3);
  EXPECT_NEAR(t.last.at("loss"), std::log(2.0), 1e-7);
}

TEST(Offline, HeldOutRowsAreScoredByTheSameLoss) {
  auto parts = parts_of(loss_of("dpo"));
  parts.held_out = pairs(16).groups;  // The training rows again.
  PolicyModel policy = tiny_policy();
  OfflineTrainer trainer(policy, std::move(parts));
  give_reference(trainer, policy);
  EXPECT_NEAR(trainer.evaluate().at("eval/loss"), std::log(2.0), 1e-7);
  for (int i = 0; i < 3; ++i) (void)trainer.step();
  const Metrics m = trainer.evaluate();
  EXPECT_LT(m.at("eval/loss"), std::log(2.0));
  EXPECT_GT(m.at("eval/rewards/margins"), 0);
}

TEST(Offline, TheHashOfAModelCountsAnAdapterThatIsApplied) {
  const auto adapted = [](uint64_t seed) {
    AdapterConfig config;
    config.r = 2;
    return PolicyModel::load_with_adapter(tiny_model().string(), WeightDType::kFloat32, config, seed);
  };
  const PolicyModel one = adapted(1), again = adapted(1), other = adapted(2);
  EXPECT_EQ(weights_hash(one.lm()), weights_hash(again.lm()));
  EXPECT_NE(weights_hash(one.lm()), weights_hash(other.lm()));
  EXPECT_EQ(weights_hash(ReferenceModel::adapter_off(one).lm()), weights_hash(tiny_policy().lm()));
}

TEST(Offline, RefusesWhatItCannotUse) {
  PolicyModel policy = tiny_policy();
  const auto error = [&](OfflineTrainer::Parts parts) {
    return error_of([&] { OfflineTrainer(policy, std::move(parts)); });
  };
  auto mixed = parts_of(loss_of("dpo"));
  mixed.data.groups[3].answers.pop_back();
  EXPECT_NE(error(std::move(mixed)).find("line 4"), std::string::npos);
  auto alone = parts_of(loss_of("kto"));
  alone.config.rows_per_step = 1;
  EXPECT_NE(error(std::move(alone)).find("rows_per_step"), std::string::npos);
  auto moving = parts_of(loss_of("dpo"));
  moving.config.ref_sync_every = 4;
  EXPECT_NE(error(std::move(moving)).find("offline.reference=live"), std::string::npos);
  OfflineTrainer lonely(policy, parts_of(loss_of("dpo")));
  EXPECT_NE(error_of([&] { (void)lonely.step(); }).find("reference"), std::string::npos);
}

TEST(Offline, ABrokenStepLeavesEverythingAsItWas) {
  PolicyModel policy = tiny_policy();
  OfflineTrainer trainer(policy, parts_of(loss_of("sft")));
  (void)trainer.step();
  const auto before = weights_of(policy);
  float* norm = policy.lm().parameters()[1]->data();
  const float kept = norm[0];
  norm[0] = std::numeric_limits<float>::quiet_NaN();
  const std::string error = error_of([&] { (void)trainer.step(); });
  EXPECT_NE(error.find("line"), std::string::npos) << error;
  norm[0] = kept;
  EXPECT_EQ(weights_of(policy), before);
  EXPECT_EQ(trainer.steps_done(), 1);
  const Metrics m = trainer.step();
  EXPECT_TRUE(std::isfinite(m.at("loss")));
}

}  // namespace
}  // namespace temper::testing_trainer
