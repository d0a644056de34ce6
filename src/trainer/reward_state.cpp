// What a checkpoint of a reward trainer holds, and how it comes back.
#include <nlohmann/json.hpp>

#include "state_file.h"
#include "temper/trainer/reward_trainer.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kOptimizerFile = "optimizer.safetensors";

}  // namespace

void RewardTrainer::save(const std::filesystem::path& folder) const {
  if (model_.backbone().adapter() != nullptr) {
    model_.save_adapter(folder / "adapter");
  } else {
    model_.save(folder / "model");
  }
  optimizer_.save(folder / kOptimizerFile);
  const PromptSampler::State sampler = sampler_.state();
  const Json state{{"step", state_.step},
                   {"num_tokens", state_.num_tokens},
                   {"optimizer_steps", optimizer_.steps()},
                   {"sampler_epoch", sampler.epoch},
                   {"sampler_position", sampler.position},
                   {"data_hash", parts_.data.hash},
                   {"seed", parts_.seed}};
  write_file_atomically(folder / kStateFile, state.dump(2) + "\n");
}

void RewardTrainer::load(const std::filesystem::path& folder) {
  const Json state = read_state(folder);
  TEMPER_CHECK(required<uint64_t>(state, "data_hash") == parts_.data.hash,
               "[resume] the training pairs are not those of the checkpoint: restore the data file "
               "and the data settings, or start a new run");
  TEMPER_CHECK(required<uint64_t>(state, "seed") == parts_.seed,
               "[resume] the seed is not that of the checkpoint");
  state_.step = required<int64_t>(state, "step");
  state_.num_tokens = required<double>(state, "num_tokens");
  optimizer_.load(folder / kOptimizerFile, required<int64_t>(state, "optimizer_steps"));
  sampler_.restore(
      {required<uint64_t>(state, "sampler_epoch"), required<uint64_t>(state, "sampler_position")});
}

uint64_t RewardTrainer::checkpoint_bytes() const {
  uint64_t weights = 0;
  for (const Parameter* p : model_.backbone().parameter_list()) {
    weights += static_cast<uint64_t>(p->elements()) * 4;
  }
  return weights + optimizer_.bytes() + (uint64_t{1} << 22);
}

}  // namespace temper
