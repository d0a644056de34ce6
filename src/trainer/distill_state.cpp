// What a checkpoint of a distillation holds, and how it comes back.
#include <nlohmann/json.hpp>

#include "state_file.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/distill.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
constexpr const char* kOptimizerFile = "optimizer.safetensors";

}  // namespace

void DistillTrainer::save(const fs::path& folder) const {
  save_run_policy(student_, folder);
  optimizer_.save(folder / kOptimizerFile);
  const PromptSampler::State sampler = sampler_.state();
  const nlohmann::ordered_json state{{"step", step_},
                                     {"num_tokens", num_tokens_},
                                     {"optimizer_steps", optimizer_.steps()},
                                     {"sampler_epoch", sampler.epoch},
                                     {"sampler_position", sampler.position},
                                     {"teacher", teacher_hash_},
                                     {"data_hash", parts_.data.hash},
                                     {"seed", parts_.seed}};
  write_file_atomically(folder / kStateFile, state.dump(2) + "\n");
}

void DistillTrainer::load(const fs::path& folder) {
  const auto state = read_state(folder);
  TEMPER_CHECK(required<uint64_t>(state, "data_hash") == parts_.data.hash,
               "[resume] the training rows are not those of the checkpoint: restore the data file, "
               "the teacher's system prompt and the data settings, or start a new run");
  TEMPER_CHECK(required<uint64_t>(state, "seed") == parts_.seed,
               "[resume] the seed is not that of the checkpoint");
  TEMPER_CHECK(required<uint64_t>(state, "teacher") == teacher_hash_,
               "[resume] the teacher's weights are not those that the run began with");
  step_ = required<int64_t>(state, "step");
  num_tokens_ = required<double>(state, "num_tokens");
  optimizer_.load(folder / kOptimizerFile, required<int64_t>(state, "optimizer_steps"));
  sampler_.restore(
      {required<uint64_t>(state, "sampler_epoch"), required<uint64_t>(state, "sampler_position")});
}

uint64_t DistillTrainer::checkpoint_bytes() const {
  return run_policy_bytes(student_) + optimizer_.bytes() + (uint64_t{1} << 22);
}

}  // namespace temper
