// Work that is the same for every algorithm and for a peer: given prompts, completions of a given
// length, a reward model. Made by `peers/ppo_peer.py prepare`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "temper/nn/models.h"
#include "temper/nn/scalar_model.h"
#include "temper/trainer/online.h"

namespace temper::benchmarks {

/// A folder with policy/, reward/, value/ (Hugging Face folders whose policy has no id that ends a
/// text, so that every completion is as long as it may be) and work.json.
struct ForcedWork {
  std::string folder;
  std::vector<std::string> prompts;                ///< Texts.
  std::vector<std::vector<int32_t>> prompt_ids;    ///< What every program must make of them.
  std::vector<std::vector<int32_t>> response_ids;  ///< Given completions, to compare scores on.

  [[nodiscard]] static ForcedWork read(const std::string& folder);
  [[nodiscard]] int64_t prompt_tokens() const { return std::ssize(prompt_ids.front()); }
  [[nodiscard]] int64_t response_tokens() const { return std::ssize(response_ids.front()); }
};

/// How a trainer is made from the work.
struct ForcedRun {
  std::string algorithm = "ppo";  ///< ppo, ppo_trunk, ppo_joint, grpo, grpo_no_reference, rloo.
  WeightDType weights = WeightDType::kBfloat16Dot;
  int64_t prompts = 16;
  int64_t group_size = 1;
  int64_t passes = 4;
  int64_t micro_batch_tokens = 2048;
  std::string moments = "float32";  ///< See OptimizerConfig.
};

/// A trainer with its models: policy, frozen reward model, and what the algorithm needs besides.
struct ForcedTrainer {
  std::unique_ptr<PolicyModel> policy;
  std::shared_ptr<RewardModel> reward;
  std::unique_ptr<OnlineTrainer> trainer;
};
[[nodiscard]] ForcedTrainer make_forced_trainer(const ForcedWork& work, const ForcedRun& run);

/// Weights of matrices: of the trunk, and of the LM head.
struct MatrixWeights {
  double trunk = 0;
  double head = 0;
};
[[nodiscard]] MatrixWeights count_weights(const CausalLM& lm);

/// Operations of the matrix products that one step of PPO with a value model of its own cannot do
/// without: 2 a weight and row forward, 4 backward. Attention and everything else count nothing.
[[nodiscard]] double ppo_step_flops(const MatrixWeights& w, const ForcedWork& work, int64_t passes);

}  // namespace temper::benchmarks
