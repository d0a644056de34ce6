// A run of TRL's RewardTrainer, followed step by step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "temper/formats/safetensors.h"
#include "temper/trainer/reward_trainer.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Ids = std::vector<int32_t>;

struct Trajectory {
  SafetensorsFile file = SafetensorsFile::open(fs::path(TEMPER_SOURCE_DIR) /
                                               "tests/golden/reward/trajectory.safetensors");

  template <class T>
  std::vector<T> read(const std::string& name) const {
    const TensorView& t = file.at(name);
    std::vector<T> out(static_cast<size_t>(t.numel()));
    EXPECT_EQ(t.data.size(), out.size() * sizeof(T)) << name;
    std::memcpy(out.data(), t.data.data(), t.data.size());
    return out;
  }
  Ids side(const std::string& name, size_t i) const {
    const auto ids = read<int64_t>("in." + name);
    const auto offsets = read<int64_t>("in." + name + "_offsets");
    return Ids(ids.begin() + offsets[i], ids.begin() + offsets[i + 1]);
  }
  TokenizedPairs pairs() const {
    TokenizedPairs out;
    const auto margins = read<float>("in.margin");
    for (size_t i = 0; i < margins.size(); ++i) {
      out.pairs.push_back(token_pair(side("chosen", i), side("rejected", i)));
      out.pairs.back().margin = double{margins[i]};
    }
    return out;
  }
};

/// Follows the run that tests/golden/make_reward.py made with TRL 1.16.0 in fp32. Both are fp32 and
/// add in other orders, and Adam's first steps make the most of small differences.
void follow(const std::string& prefix, bool frozen) {
  const Trajectory golden;
  RewardModel model = RewardModel::from_language_model(
      (fs::path(TEMPER_SOURCE_DIR) / "tests/golden/models/llama").string(), WeightDType::kFloat32,
      frozen ? Trainable::kNo : Trainable::kYes);
  model.head().set(golden.read<float>("in.head"));
  RewardTrainer::Parts parts;
  parts.config.pairs_per_step = 4;
  parts.config.shuffle = false;
  parts.config.freeze_backbone = frozen;
  parts.config.loss.center_coef = 0.01;
  parts.schedule = {.shape = "linear", .learning_rate = 1e-2};
  parts.data = golden.pairs();
  parts.total_steps = 12;
  RewardTrainer trainer(model, parts);
  for (size_t step = 0; step < 12; ++step) {
    const Metrics m = trainer.step();
    for (const char* name : {"loss", "grad_norm", "learning_rate", "accuracy", "margin",
                             "min_reward", "mean_reward", "max_reward"}) {
      const double want = golden.read<double>(prefix + "out." + name)[step];
      EXPECT_NEAR(m.at(name), want, 1e-4 * std::max(1.0, std::abs(want))) << name << " " << step;
    }
    if (frozen) continue;
    EXPECT_EQ(m.at("num_tokens"), golden.read<double>("out.num_tokens")[step]);
  }
  const auto head = golden.read<float>(prefix + "out.head");
  for (size_t i = 0; i < head.size(); ++i) {
    EXPECT_NEAR(model.head().weight()[i], head[i], 1e-4) << i;
  }
  const PairEvaluation e = trainer.evaluate(parts.data.pairs);
  const auto chosen = golden.read<float>(prefix + "out.chosen");
  const auto rejected = golden.read<float>(prefix + "out.rejected");
  for (size_t i = 0; i < chosen.size(); ++i) {
    EXPECT_NEAR(e.rewards[2 * i], chosen[i], 5e-4) << i;
    EXPECT_NEAR(e.rewards[2 * i + 1], rejected[i], 5e-4) << i;
  }
}

TEST(RewardGolden, FollowsTrl) { follow("", false); }
TEST(RewardGolden, FollowsTrlWithAFrozenBackbone) { follow("score_only.", true); }

}  // namespace
}  // namespace temper::testing_trainer
