// From a run's configuration to the input of its plan.
#include <algorithm>
#include <numeric>

#include "temper/trainer/plan.h"
#include "temper/trainer/run_config.h"

namespace temper {

PlanInput plan_input(const GrpoRunConfig& config, const ModelConfig& model,
                     const std::vector<int64_t>& prompt_tokens, int64_t held_out) {
  const OnlineConfig& o = config.grpo.online;
  PlanInput in;
  in.policy = model;
  in.dtype = parse_weight_dtype(config.trainer.weights);
  if (grpo(config.grpo).needs_reference) in.reference = ReferencePlacement::kCopy;
  in.rollout = config.rollout;
  PlanBatch& b = in.batch;
  b.prompts = o.prompts_per_step;
  b.group_size = o.group_size;
  if (!prompt_tokens.empty()) {
    b.prompt_tokens = *std::max_element(prompt_tokens.begin(), prompt_tokens.end());
    const auto sum = std::accumulate(prompt_tokens.begin(), prompt_tokens.end(), int64_t{0});
    b.mean_prompt_tokens = std::max<int64_t>(1, sum / std::ssize(prompt_tokens));
  }
  b.mean_completion_tokens = config.rollout.max_new_tokens;
  b.iterations = o.iterations;
  b.minibatches = o.minibatches;
  b.micro_batch_tokens = o.micro_batch_tokens;
  b.gradient_checkpointing = o.gradient_checkpointing;
  if (config.eval.every >= 0) {
    b.held_out_prompts =
        config.eval.prompts > 0 ? std::min(held_out, config.eval.prompts) : held_out;
  }
  in.saves = config.trainer.save_model || config.trainer.checkpoint_every > 0;
  return in;
}

}  // namespace temper
