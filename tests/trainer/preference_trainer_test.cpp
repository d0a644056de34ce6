// Learning from the policy's own answers: what may not change a bit of it, and what goes wrong.
#include "temper/trainer/preference_trainer.h"

#include <gtest/gtest.h>

#include "preference_util.h"
#include "temper/core/file.h"
#include "temporary_folder.h"

namespace temper::testing_trainer {
namespace {

/// The sum of the ids, mod 5: a spread in every group, and ties now and then.
Labeler id_sum_labeler() {
  Labeler labeler = reward_labeler(id_sum_reward());
  labeler.link = bradley_terry;
  return labeler;
}

TokenizedAnswers given_pairs() {
  TokenizedAnswers out;
  out.source = "given";
  for (int32_t i = 0; i < 6; ++i) {
    out.groups.push_back({.prompt = {40, 19 + i},
                          .answers = {{{20 + i, kEos}, {}}, {{19 + i, 19 + i, kEos}, {}}},
                          .line = static_cast<uint64_t>(i + 1)});
  }
  out.hash = 6;
  return out;
}

struct Method {
  std::string name;
  std::string loss = "dpo";
  std::vector<std::string> settings = {};
  bool round_reference = false;
  bool replay_and_file = false;
};

/// Every method; the rounds of some take several steps.
std::vector<Method> methods() {
  return {{"online_dpo"},
          {"iterative_dpo", "dpo", {"loss_type=sigmoid,sft"}, true},
          {"mixed", "dpo", {}, false, true},
          {"mixed_iterative", "dpo", {}, true, true},
          {"xpo", "xpo", {"alpha=0.01"}},
          {"nash_md", "nash_md"}};
}

Opponent opponent_of(const std::string& loss) {
  return loss == "xpo"       ? Opponent::kReference
         : loss == "nash_md" ? Opponent::kMixture
                             : Opponent::kPolicy;
}

struct Setup {
  Labeler labeler = id_sum_labeler();
  int64_t micro_batch_tokens = 2048;
  int64_t total_steps = 7;
};

PreferenceTrainer make_trainer(const Method& m, PolicyModel& policy, const ReferenceModel& reference,
                               const Setup& setup = {}) {
  OfflineLoss loss(m.loss, online_preference_objectives());
  for (const auto& s : m.settings) config_set(config_fields(loss), s);
  SampledPairs::Parts sampled = sampled_parts(setup.labeler, m.loss == "dpo" ? 3 : 2);
  sampled.opponent = opponent_of(m.loss);
  sampled.reference = reference;
  PreferenceTrainer::Parts p;
  p.config.sampling = sampled.config;
  p.config.reference = m.round_reference ? "round" : "initial";
  p.config.rows_per_step = 2;
  p.config.passes = m.round_reference ? 2 : 1;
  p.config.micro_batch_tokens = setup.micro_batch_tokens;
  p.objective = loss.build();
  p.needs = loss.needs();
  p.beta = loss.setting("beta");
  p.schedule = {.learning_rate = 5e-3};
  p.total_steps = setup.total_steps;
  p.seed = sampled.seed;
  p.source = std::make_unique<SampledPairs>(policy, std::move(sampled));
  if (m.replay_and_file) {
    std::vector<std::unique_ptr<PairSource>> parts;
    parts.push_back(
        std::make_unique<ReplayedPairs>(std::move(p.source), ReplayConfig{3, 6}, p.seed));
    parts.push_back(std::make_unique<FilePairs>(given_pairs(), 2, p.seed));
    p.source = std::make_unique<MixedPairs>(std::move(parts));
  }
  if (!m.round_reference) p.reference = reference;
  return {policy, std::move(p)};
}

using Trace = std::vector<std::map<std::string, uint64_t>>;

struct Trained {
  Trace metrics;
  std::vector<std::vector<float>> weights;
};

Trained run(const Method& m, const Setup& setup = {}) {
  PolicyModel policy = tiny_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  PreferenceTrainer trainer = make_trainer(m, policy, reference, setup);
  Trained out;
  for (int64_t i = 0; i < setup.total_steps; ++i) out.metrics.push_back(lasting(trainer.step()));
  out.weights = weights_of(policy);
  return out;
}

TEST(PreferenceTrainer, BeginsAtTheLossOfNoDifference) {
  for (const Method& m : methods()) {
    if (m.loss != "dpo" || m.name == "iterative_dpo") continue;
    PolicyModel policy = tiny_policy();
    PreferenceTrainer trainer = make_trainer(m, policy, ReferenceModel::copy_of(policy));
    const Metrics first = trainer.step();
    EXPECT_NEAR(first.at("loss"), std::log(2.0), 1e-7) << m.name;
    EXPECT_NEAR(first.at("objective/kl"), 0, 1e-6) << m.name;
    EXPECT_EQ(first.at("round"), 1);
    EXPECT_GT(first.at("objective/entropy"), 1) << m.name;
    EXPECT_EQ(trainer.samples().size(), size_t{12});
    EXPECT_EQ(trainer.samples()[0].step, 1);
  }
}

// The log-probs of a round's beginning stand for a copy of the policy at that moment.
TEST(PreferenceTrainer, ARoundsReferenceIsThePolicyAsItBegan) {
  PolicyModel policy = tiny_policy();
  Method m{"iterative", "dpo", {}, true};
  PreferenceTrainer trainer =
      make_trainer(m, policy, ReferenceModel::copy_of(policy), {.total_steps = 12});
  int64_t round = 0;
  for (int i = 0; i < 12; ++i) {
    const Metrics step = trainer.step();
    const bool begins = trainer.rounds_begun() != round;
    round = trainer.rounds_begun();
    if (begins) {
      EXPECT_NEAR(step.at("loss"), std::log(2.0), 1e-7) << i;
      EXPECT_EQ(step.at("rewards/margins"), 0) << i;
      EXPECT_TRUE(step.contains("objective/scores"));
    } else {
      EXPECT_NE(step.at("loss"), std::log(2.0)) << i;
      EXPECT_FALSE(step.contains("objective/scores"));
      EXPECT_TRUE(trainer.samples().empty());
    }
  }
  EXPECT_GE(round, 3);
}

TEST(PreferenceTrainer, MicroBatchesChangeNoWeight) {
  for (const Method& m : methods()) {
    const Trained whole = run(m), small = run(m, {.micro_batch_tokens = 1});
    EXPECT_EQ(whole.weights, small.weights) << m.name;
    EXPECT_NE(whole.weights, weights_of(tiny_policy())) << m.name;
  }
}

TEST(PreferenceTrainer, AResumedTrainerGoesOnWithTheSameBits) {
  for (const Method& m : methods()) {
    const Trained whole = run(m);
    for (const int64_t at : {1, 2, 5}) {  // In the middle of a round, and at its end.
      const TemporaryFolder folder;
      const ReferenceModel reference = ReferenceModel::copy_of(tiny_policy());
      {
        PolicyModel policy = tiny_policy();
        PreferenceTrainer trainer = make_trainer(m, policy, reference);
        for (int64_t i = 0; i < at; ++i) (void)trainer.step();
        trainer.save(folder.path());
      }
      PolicyModel policy =
          PolicyModel::load((folder.path() / "model").string(), WeightDType::kFloat32);
      PreferenceTrainer trainer = make_trainer(m, policy, reference);
      trainer.load(folder.path());
      EXPECT_EQ(trainer.steps_done(), at);
      for (int64_t i = at; i < 7; ++i) {
        EXPECT_EQ(lasting(trainer.step()), whole.metrics[static_cast<size_t>(i)])
            << m.name << " resumed at " << at << ", step " << i;
      }
      EXPECT_EQ(weights_of(policy), whole.weights) << m.name << " resumed at " << at;
    }
  }
}

TEST(PreferenceTrainer, ADamagedCheckpointIsRefused) {
  const TemporaryFolder folder;
  const Method m{"iterative", "dpo", {}, true};
  PolicyModel policy = tiny_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  PreferenceTrainer trainer = make_trainer(m, policy, reference);
  (void)trainer.step();
  trainer.save(folder.path());
  const auto expect = [&](const std::string& from, const std::string& to, const char* word) {
    const std::string good = read_text_file(folder.path() / "round.json");
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos) << from;
    bad.replace(bad.find(from), from.size(), to);
    write_file_atomically(folder.path() / "round.json", bad);
    const std::string error = error_of([&] { trainer.load(folder.path()); });
    EXPECT_NE(error.find(word), std::string::npos) << error;
    write_file_atomically(folder.path() / "round.json", good);
  };
  expect("{", "[", "round.json");
  expect("\"lists\":[[", "\"lists\":[[99,", "names row 99");
  expect("\"reference\":[[", "\"reference\":[[0.5,", "a log-prob too many");
  expect("\"rows\":[{", "\"rows\":[7,{", "cannot be read");
}

/// Fails, or gives no number, whenever `broken` says so.
Labeler moody(std::shared_ptr<std::string> mood) {
  Labeler inner = id_sum_labeler();
  return {.name = "moody",
          .scores = [inner, mood](std::span<const Completion> c) {
            if (*mood == "throws") fail("the judge is out");
            std::vector<float> out = inner.scores(c);
            for (size_t i = 0; i < out.size(); ++i) {
              if (*mood == "nan" || (*mood == "half" && i < out.size() / 2)) out[i] = std::nanf("");
              if (*mood == "ties") out[i] = 1;
            }
            return out;
          },
          .link = bradley_terry};
}

TEST(PreferenceTrainer, AFailedStepCanBeMadeAgain) {
  for (const Method& m : methods()) {
    if (m.replay_and_file) continue;
    const Trained whole = run(m);
    for (const char* mood : {"throws", "nan", "ties"}) {
      if (m.loss == "nash_md" && std::string(mood) == "ties") continue;  // 1/2 is a label.
      auto state = std::make_shared<std::string>("well");
      PolicyModel policy = tiny_policy();
      const ReferenceModel reference = ReferenceModel::copy_of(policy);
      PreferenceTrainer trainer = make_trainer(m, policy, reference, {.labeler = moody(state)});
      Trace metrics;
      while (trainer.steps_done() < 7) {
        // Every step fails once, where it has to make a round.
        const auto before = weights_of(policy);
        const int64_t steps = trainer.steps_done(), rounds = trainer.rounds_begun();
        *state = mood;
        try {
          metrics.push_back(lasting(trainer.step()));
        } catch (const Error& e) {
          EXPECT_NE(std::string(e.what()).find(*state == "throws" ? "the judge is out" : "10 rounds"),
                    std::string::npos)
              << e.what();
          EXPECT_EQ(weights_of(policy), before);
          EXPECT_EQ(trainer.steps_done(), steps);
          EXPECT_EQ(trainer.rounds_begun(), rounds);
          *state = "well";
          metrics.push_back(lasting(trainer.step()));
        }
      }
      EXPECT_EQ(metrics, whole.metrics) << m.name << " " << mood;
      EXPECT_EQ(weights_of(policy), whole.weights) << m.name << " " << mood;
    }
  }
}

TEST(PreferenceTrainer, AnswersWithoutAMarkAreLeftOutAndCounted) {
  PolicyModel policy = tiny_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  const auto mood = std::make_shared<std::string>("half");
  PreferenceTrainer trainer =
      make_trainer({"online_dpo"}, policy, reference, {.labeler = moody(mood)});
  const Metrics m = trainer.step();
  EXPECT_EQ(m.at("frac_reward_nan"), 0.5);
  EXPECT_EQ(m.at("pairs/unlabelled"), 2);
  EXPECT_LE(m.at("pairs/made"), 2);
  EXPECT_TRUE(std::isfinite(m.at("loss")));
}

TEST(PreferenceTrainer, SaysWhyARoundIsEmpty) {
  PolicyModel policy = tiny_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  const auto mood = std::make_shared<std::string>("ties");
  PreferenceTrainer trainer =
      make_trainer({"online_dpo"}, policy, reference, {.labeler = moody(mood)});
  const std::string error = error_of([&] { (void)trainer.step(); });
  EXPECT_NE(error.find("of the last one's groups 4 tied"), std::string::npos) << error;
  EXPECT_NE(error.find("preference.completions"), std::string::npos) << error;
}

TEST(PreferenceTrainer, WeightsThatLeaveTheFiniteNumbersMakeNoStep) {
  PolicyModel policy = tiny_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  PreferenceTrainer trainer = make_trainer({"iterative", "dpo", {}, true}, policy, reference);
  (void)trainer.step();
  Parameter& weight = *policy.lm().parameter_list()[0];
  const float kept = weight.data()[3];
  weight.data()[3] = std::nanf("");
  EXPECT_NE(error_of([&] { (void)trainer.step(); }).find("log-prob"), std::string::npos);
  EXPECT_EQ(trainer.steps_done(), 1);
  weight.data()[3] = kept;
  EXPECT_TRUE(std::isfinite(trainer.step().at("loss")));
}

TEST(PreferenceTrainer, AnAdaptersBaseIsTheReference) {
  AdapterConfig adapter;
  adapter.r = 4;
  for (const Method& m : methods()) {
    PolicyModel policy = PolicyModel::load_with_adapter(tiny_model().string(),
                                                        WeightDType::kFloat32, adapter, 3);
    const auto base = weights_of(policy);
    // The same run beside a second model: the bits are the adapter's base's.
    PolicyModel other = PolicyModel::load_with_adapter(tiny_model().string(),
                                                       WeightDType::kFloat32, adapter, 3);
    PreferenceTrainer off = make_trainer(m, policy, ReferenceModel::adapter_off(policy));
    PreferenceTrainer copy = make_trainer(
        m, other, ReferenceModel::load(tiny_model().string(), WeightDType::kFloat32));
    for (int i = 0; i < 4; ++i) EXPECT_EQ(lasting(off.step()), lasting(copy.step())) << m.name;
    EXPECT_EQ(weights_of(policy), base) << m.name;
  }
}

TEST(PreferenceTrainer, RefusesWhatItCannotDo) {
  PolicyModel policy = tiny_policy();
  const auto error = [&](const std::function<void(PreferenceTrainer::Parts&)>& change) {
    OfflineLoss loss("dpo", online_preference_objectives());
    PreferenceTrainer::Parts p;
    p.objective = loss.build();
    p.needs = loss.needs();
    p.source = std::make_unique<FilePairs>(given_pairs(), 2, 1);
    p.reference = ReferenceModel::copy_of(policy);
    change(p);
    return error_of([&] { PreferenceTrainer(policy, std::move(p)); });
  };
  EXPECT_EQ(error([](auto&) {}), "");
  EXPECT_NE(error([](auto& p) { p.reference.reset(); }).find("compares with a reference"),
            std::string::npos);
  EXPECT_EQ(error([](auto& p) {
              p.reference.reset();
              p.config.reference = "round";
            }),
            "");
  EXPECT_NE(error([](auto& p) { p.source.reset(); }).find("no source"), std::string::npos);
  EXPECT_NE(error([](auto& p) { p.config.passes = 0; }).find("preference.passes"),
            std::string::npos);
  EXPECT_NE(error([](auto& p) { p.config.file_share = 1.5; }).find("preference.file_share"),
            std::string::npos);
  EXPECT_NE(error([](auto& p) { p.config.sampling.completions = 1; }).find("completions"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::testing_trainer
