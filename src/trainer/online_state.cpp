// What a checkpoint of an online trainer holds, and how it comes back.
#include <nlohmann/json.hpp>

#include "state_file.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/online.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kReferenceFolder = "reference";

}  // namespace

void OnlineTrainer::save(const std::filesystem::path& folder) const {
  check_whole();
  save_run_policy(policy_, folder);
  optimizer_.save(folder / kOptimizerFile);
  if (reference_ && parts_.config.ref_sync_every > 0) {
    write_hf_folder(folder / kReferenceFolder, policy_.source(), reference_->lm().write_tensors(), {});
  }
  if (parts_.critic) parts_.critic->save(folder);
  const PromptSampler::State sampler = sampler_.state();
  const Json state{{"step", state_.step},
                   {"num_tokens", state_.num_tokens},
                   {"optimizer_steps", optimizer_.steps()},
                   {"sampler_epoch", sampler.epoch},
                   {"sampler_position", sampler.position},
                   {"data_hash", parts_.prompts.content_hash},
                   {"seed", parts_.seed},
                   {"kl_coef", kl_.state().coef},
                   {"kl_updates", kl_.state().updates},
                   {"reward_count", state_.reward_scale.count},
                   {"reward_mean", state_.reward_scale.mean},
                   {"reward_m2", state_.reward_scale.m2}};
  write_file_atomically(folder / kStateFile, state.dump(2) + "\n");
}

void OnlineTrainer::load(const std::filesystem::path& folder) {
  const Json state = read_state(folder);
  TEMPER_CHECK(required<uint64_t>(state, "data_hash") == parts_.prompts.content_hash,
               "[resume] the training prompts are not those of the checkpoint: restore the data file "
               "or the task settings, or start a new run");
  TEMPER_CHECK(required<uint64_t>(state, "seed") == parts_.seed,
               "[resume] the seed is not that of the checkpoint");
  const bool reference_moves = reference_ && parts_.config.ref_sync_every > 0;
  TEMPER_CHECK(!reference_ || reference_moves || reference_given_,
               "[resume] call set_reference with the model that the run began with before load: a "
               "copy of the trained policy is not its reference");
  state_.step = required<int64_t>(state, "step");
  state_.num_tokens = required<double>(state, "num_tokens");
  optimizer_.load(folder / kOptimizerFile, required<int64_t>(state, "optimizer_steps"));
  sampler_.restore({required<uint64_t>(state, "sampler_epoch"),
                    required<uint64_t>(state, "sampler_position")});
  kl_.restore({required<double>(state, "kl_coef"), required<int64_t>(state, "kl_updates")});
  state_.reward_scale = {required<int64_t>(state, "reward_count"), required<double>(state, "reward_mean"),
                         required<double>(state, "reward_m2")};
  if (parts_.critic) parts_.critic->load(folder);
  if (reference_moves) {
    reference_ = ReferenceModel::load((folder / kReferenceFolder).string(), reference_dtype());
  }
}

void OnlineTrainer::set_reference(ReferenceModel reference) {
  reference_ = std::move(reference);
  reference_given_ = true;
}

uint64_t OnlineTrainer::checkpoint_bytes() const {
  const uint64_t weights = run_policy_bytes(policy_);
  const uint64_t copies = reference_ && parts_.config.ref_sync_every > 0 ? 2 : 1;
  const uint64_t critic = parts_.critic ? parts_.critic->bytes() : 0;
  return copies * weights + optimizer_.bytes() + critic + (uint64_t{1} << 22);
}

}  // namespace temper
