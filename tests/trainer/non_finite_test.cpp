// Invariant: an error about numbers that are not finite names the layer and the text of the planted
// one.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Rollout sampled(OnlineTrainer& trainer) {
  Rollout r = trainer.rollout();
  trainer.score(r);
  trainer.estimate_advantages(r);
  return r;
}

std::string error_of_update(OnlineTrainer& trainer, Rollout& r) {
  try {
    trainer.update(r);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(NonFinite, TheLayerIsNamed) {
  for (const bool half : {false, true}) {  // A finite master may be beyond its float16 copy.
    PolicyModel policy = tiny_policy(half ? WeightDType::kFloat16 : WeightDType::kFloat32);
    GrpoTrainer trainer(policy, tiny_grpo(), tiny_parts());
    Rollout r = sampled(trainer);
    for (const auto& p : policy.lm().parameters()) {
      if (p->name != "model.layers.1.down") continue;
      p->data()[0] = half ? 65520.0f : kNan;
      p->refresh_half();
    }
    const std::string error = error_of_update(trainer, r);
    EXPECT_NE(error.find("layer 1 gives numbers that are not finite"), std::string::npos) << error;
    EXPECT_EQ(trainer.steps_done(), 0);
  }
}

TEST(NonFinite, TheCompletionIsNamed) {
  PolicyModel policy = tiny_policy();
  GrpoConfig grpo = tiny_grpo();
  grpo.online.skip_dead_groups = false;
  GrpoTrainer trainer(policy, grpo, tiny_parts());
  Rollout r = sampled(trainer);
  // An id that is fed as part of a completion, and of no prompt: the first in the order of the
  // batch.
  for (size_t s = 0; s < r.samples.size(); ++s) {
    const auto& ids = r.samples[s].ids;
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      const bool in_prompt = std::any_of(
          r.request.prompts.begin(), r.request.prompts.end(),
          [&](const auto& p) { return std::find(p.begin(), p.end(), ids[t]) != p.end(); });
      if (in_prompt) continue;
      policy.lm()
          .parameters()[0]
          ->data()[ids[t] / 32 * 32 * policy.lm().config().hidden_size + ids[t] % 32] = kNan;
      const std::string error = error_of_update(trainer, r);
      EXPECT_NE(
          error.find("the embedding gives numbers that are not finite, first for completion " +
                     std::to_string(s) + " "),
          std::string::npos)
          << error;
      return;
    }
  }
  FAIL() << "every sampled id stands in a prompt";
}

}  // namespace
}  // namespace temper::testing_trainer
