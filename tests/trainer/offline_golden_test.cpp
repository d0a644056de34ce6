// Runs of TRL's SFT, DPO and KTO trainers, followed step by step.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "temper/formats/safetensors.h"
#include "temper/trainer/offline.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Ids = std::vector<int32_t>;

class Golden {
 public:
  template <class T>
  std::vector<T> read(const std::string& name) const {
    const TensorView& t = file_.at(name);
    std::vector<T> out(static_cast<size_t>(t.numel()));
    EXPECT_EQ(t.data.size(), out.size() * sizeof(T)) << name;
    std::memcpy(out.data(), t.data.data(), t.data.size());
    return out;
  }
  Ids part(const std::string& name, size_t i) const {
    const auto ids = read<int64_t>("in." + name);
    const auto offsets = read<int64_t>("in." + name + "_offsets");
    return Ids(ids.begin() + offsets[i], ids.begin() + offsets[i + 1]);
  }
  /// Both answers of a row, or the ones that tests/golden/make_offline.py gave the method.
  std::vector<AnswerGroup> rows(const std::string& method) const {
    std::vector<AnswerGroup> out;
    const size_t count = read<int64_t>("in.prompt_offsets").size() - 1;
    for (size_t i = 0; i < count; ++i) {
      AnswerGroup g{.prompt = part("prompt", i), .line = i + 1};
      const TokenAnswer chosen{part("chosen", i), {}}, rejected{part("rejected", i), {}};
      if (method == "dpo") g.answers = {chosen, rejected};
      if (method == "sft") g.answers = {chosen};
      if (method == "kto") {
        g.answers = {i % 2 == 0 ? chosen : rejected};
        g.label = i % 2 == 0 ? 1 : 0;
      }
      out.push_back(std::move(g));
    }
    return out;
  }

 private:
  SafetensorsFile file_ = SafetensorsFile::open(fs::path(TEMPER_SOURCE_DIR) /
                                                "tests/golden/offline/trajectory.safetensors");
};

/// The model of the run, under a tokenizer that nothing is asked of.
PolicyModel golden_policy(const fs::path& folder) {
  fs::copy(fs::path(TEMPER_SOURCE_DIR) / "tests/golden/models/llama", folder / "llama");
  std::ofstream(folder / "llama/tokenizer.json") << tiny_tokenizer_json();
  return PolicyModel::load((folder / "llama").string(), WeightDType::kFloat32);
}

/// All 50 steps, to 1e-3 of each value: both are fp32 and add in other orders.
void follow(const std::string& method, const std::vector<std::string>& names) {
  const Golden golden;
  const TemporaryFolder folder;
  PolicyModel policy = golden_policy(folder.path());
  const OfflineLoss loss(method);
  OfflineTrainer::Parts parts;
  parts.config.rows_per_step = 4;
  parts.config.shuffle = false;
  parts.objective = loss.build();
  parts.needs = loss.needs();
  parts.schedule = {.shape = "linear", .learning_rate = 1e-3};
  parts.data.groups = golden.rows(method);
  parts.total_steps = 50;
  OfflineTrainer trainer(policy, std::move(parts));
  if (trainer.wants_reference()) trainer.cache_reference(policy.lm(), nullptr);
  for (size_t step = 0; step < 50; ++step) {
    const Metrics m = trainer.step();
    for (const std::string& name : names) {
      const double want = golden.read<double>(method + "." + name)[step];
      EXPECT_NEAR(m.at(name), want, 1e-3 * std::max(std::abs(want), 0.1)) << name << " " << step;
    }
  }
}

TEST(OfflineGolden, FollowsTrlsSupervisedTrainer) { 
  follow("sft", {"loss", "grad_norm", "entropy", "mean_token_accuracy"});
}

TEST(OfflineGolden, FollowsTrlsDpoTrainer) {
  follow("dpo", {"loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/accuracies",
                 "rewards/margins", "logps/chosen", "logps/rejected", "mean_token_accuracy"});
}

TEST(OfflineGolden, FollowsTrlsKtoTrainer) {
  follow("kto", {"loss", "grad_norm", "rewards/chosen", "rewards/rejected", "logps/chosen",
                 "logps/rejected"});
}

}  // namespace
}  // namespace temper::testing_trainer
