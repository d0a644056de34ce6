// The first update evaluates its loss at the scores that sampling recorded; when the model is no
// longer the one that sampled, it must notice and evaluate the loss at the scores of now.
#include <gtest/gtest.h>

#include <cmath>

#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

struct Updated {
  Rollout rollout;
  double closed_form = 0;  // The loss where every ratio is 1: minus the mean weighted advantage.
};

Updated update_after(const std::function<void(PolicyModel&, Rollout&)>& change) {
  PolicyModel policy = tiny_policy();
  GrpoTrainer trainer(policy, tiny_grpo(), tiny_parts(1));
  Updated u{trainer.rollout()};
  trainer.score(u.rollout);
  trainer.estimate_advantages(u.rollout);
  double weighted = 0, tokens = 0;
  for (size_t i = 0; i < u.rollout.samples.size(); ++i) {
    const double n = static_cast<double>(u.rollout.samples[i].ids.size());
    weighted += u.rollout.advantages.values[i] * n;
    tokens += n;
  }
  u.closed_form = -weighted / tokens;
  change(policy, u.rollout);
  trainer.update(u.rollout);
  return u;
}

TEST(RecordedScores, HoldWhileTheWeightsDo) {
  const Updated u = update_after([](PolicyModel&, Rollout&) {});
  EXPECT_EQ(u.rollout.metrics.at("sampling/mismatched_tokens"), 0);
  EXPECT_NEAR(u.rollout.metrics.at("loss"), u.closed_form, 1e-6);
}

TEST(RecordedScores, ChangedWeightsAreNoticedAndTheLossIsThatOfNow) {
  const Updated u = update_after([](PolicyModel& policy, Rollout&) {
    for (const auto& p : policy.lm().parameters()) p->value.mul_(1.1);
  });
  const double compared = u.rollout.metrics.at("sampling/compared_tokens");
  EXPECT_GT(u.rollout.metrics.at("sampling/mismatched_tokens"), 0.9 * compared);
  EXPECT_GT(std::abs(u.rollout.metrics.at("loss") - u.closed_form), 1e-4);
}

TEST(RecordedScores, OneRecordedBitIsNoticed) {
  const Updated u = update_after([](PolicyModel&, Rollout& r) {
    for (size_t s = 0; s < r.samples.size(); ++s) {
      if (r.advantages.values[s] == 0) continue;
      float& recorded = r.samples[s].logprobs.back();
      recorded = std::nextafter(recorded, -1e9f);
      return;
    }
  });
  EXPECT_EQ(u.rollout.metrics.at("sampling/mismatched_tokens"), 1);
}

}  // namespace
}  // namespace temper::testing_trainer
