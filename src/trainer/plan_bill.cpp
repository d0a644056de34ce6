#include "plan_bill.h"

#include <algorithm>

namespace temper::planning {
namespace {

/// Measured (docs/memory.md): the program with LibTorch before it opens a model, half of it code
/// that processes share; and what a tokenizer keeps for each id.
constexpr uint64_t kProgramBytes = uint64_t{131} << 20;
constexpr uint64_t kTokenizerBytesPerId = 540;

/// float32 values of the largest tensor of a file.
uint64_t largest_tensor(const std::vector<Weight>& weights) {
  int64_t largest = 0;
  for (const Weight& w : weights) largest = std::max(largest, w.part_rows * w.k);
  return static_cast<uint64_t>(largest) * sizeof(float);
}

}  // namespace

void Bill::add_program(const ModelConfig& config) {
  add("program", "tokenizer", static_cast<uint64_t>(config.vocab_size) * kTokenizerBytesPerId);
  add("program", "code and libraries", kProgramBytes);
}

std::vector<Weight> scalar_head(const ModelConfig& config) {
  return {{config.hidden_size + 1, 1, false, 1, config.hidden_size}};
}

uint64_t loading_bytes(const Plan& plan, const WeightBytes& b, const std::vector<Weight>& weights) {
  return plan.bytes("program") + b.masters + b.copies + b.gradients + largest_tensor(weights) +
         b.masters / 2;
}

uint64_t saving_bytes(const Plan& plan, const std::vector<Weight>& weights) {
  return plan.training - plan.bytes("rollout") + largest_tensor(weights);
}

int64_t pair_rows(const PlanInput& in) {
  const PlanPairs& p = *in.pairs;
  return std::max(std::min(in.batch.micro_batch_tokens, p.pairs_per_step * p.longest), p.longest);
}

Plan plan_of_pairs(const PlanInput& in) {
  const PlanPairs& p = *in.pairs;
  Plan plan;
  Bill bill(plan);
  const bool frozen = p.freeze_backbone || in.adapter;
  const Trainable trainable = frozen ? Trainable::kNo : Trainable::kYes;
  const std::vector<Weight> weights = weights_of(in.policy, false);
  for (const Weight& w : weights) plan.parameters += w.n * w.k * w.copies;
  plan.rows = pair_rows(in);
  const WeightBytes b = weight_bytes(weights, in.dtype, trainable, in.moment_bytes);
  bill.add_weights("model", b);
  if (in.adapter) {
    bill.add_weights("adapter", weight_bytes(adapter_weights(in.policy, *in.adapter),
                                             WeightDType::kFloat32, Trainable::kYes, in.moment_bytes));
  }
  // Held-out pairs go through a forward of as many rows.
  const Rows rows{p.freeze_backbone ? 0 : plan.rows, plan.rows, 0};
  bill.add_activations("model", in.policy, rows, in.batch.gradient_checkpointing);
  if (!frozen) {
    const int64_t ids = std::min(in.policy.vocab_size, p.pairs_per_step * p.mean);
    bill.add("model", "embedding rows",
             static_cast<uint64_t>(ids * in.policy.hidden_size) * sizeof(float));
  }
  if (in.dtype == WeightDType::kBfloat16Dot) {
    bill.add("model", "packed operands", word_bytes(in.policy, rows, false));
  }
  bill.add_weights("head", weight_bytes(scalar_head(in.policy), in.dtype, Trainable::kYes,
                                        in.moment_bytes));
  bill.add_program(in.policy);
  plan.loading = loading_bytes(plan, b, weights);
  plan.saving = in.saves ? saving_bytes(plan, weights) : 0;
  plan.phases = phases(in);
  return plan;
}

}  // namespace temper::planning
