#include "temper/trainer/plan.h"

#include <algorithm>
#include <map>

#include "plan_bill.h"
#include "plan_memory.h"
#include "temper/nn/kv_store.h"
#include "temper/rollout/kv_need.h"

namespace temper {
namespace {

using planning::Bill;
using planning::Rows;
using planning::scalar_head;
using planning::Weight;

uint64_t kv_bytes(const PlanInput& in) {
  const PlanBatch& b = in.batch;
  const ModelConfig& m = in.policy;
  const auto pages = [&](int64_t prompts, int64_t group_size) {
    if (prompts == 0) return int64_t{0};
    const std::vector<int64_t> tokens(static_cast<size_t>(prompts), b.prompt_tokens);
    return kv_pages(kv_need(tokens, group_size, in.rollout), in.rollout, m);
  };
  const int64_t most = std::max(pages(b.prompts, b.group_size), pages(b.held_out_prompts, 1));
  return static_cast<uint64_t>(most * KvStore::page_bytes(m.layers, m.kv_heads * m.head_dim));
}

/// Rows of a reward model's largest forward: a step's texts, prompts once, or as many as it takes.
int64_t reward_rows(const PlanInput& in, const PlannedReward& r) {
  const PlanBatch& step = in.batch;
  const int64_t tokens =
      step.prompts * (step.prompt_tokens + step.group_size * in.rollout.max_new_tokens);
  return std::min(tokens, r.batch_tokens);
}

void add_frozen_models(const PlanInput& in, const Rows& batch, Bill& bill) {
  Rows forward{0, batch.train, 0};
  for (const PlannedReward& r : in.rewards) {
    if (r.shares_backbone) forward.forward = std::max(forward.forward, reward_rows(in, r));
  }
  if (in.reference != ReferencePlacement::kNone) {
    const auto b = planning::weight_bytes(planning::weights_of(in.policy, true),
                                          in.reference_dtype.value_or(in.dtype), Trainable::kNo);
    const bool mapped = in.reference == ReferencePlacement::kMapped;
    if (in.adapter && !mapped) {  // The policy's own weights and workspace, and a result.
      bill.add("reference", "working memory",
               static_cast<uint64_t>(batch.train * in.policy.hidden_size) * sizeof(float));
    } else {
      bill.add("reference", mapped ? "weights, mapped" : "weights", b.masters + b.copies);
      bill.add_activations("reference", in.policy, forward, false);
    }
  }
  for (const PlannedReward& r : in.rewards) {
    if (!r.shares_backbone) {
      const auto b = planning::weight_bytes(planning::weights_of(r.model, false), r.dtype,
                                            Trainable::kNo);
      bill.add("reward", "weights", b.masters + b.copies);
      bill.add_activations("reward", r.model, {0, reward_rows(in, r), 0}, false);
    }
    bill.add_weights("reward", planning::weight_bytes(scalar_head(r.model), r.dtype,
                                                      Trainable::kNo));
  }
}

/// Gradients of a value model that lie in the policy's: one tensor in each of as many elements.
uint64_t lent_gradients(const PlanInput& in) {
  if (in.adapter) return 0;  // A frozen policy has none to lend.
  std::map<int64_t, int64_t> left;
  for (const Weight& w : planning::weights_of(in.policy, true)) left[w.elements()] += w.copies;
  int64_t lent = 0;
  for (const Weight& w : planning::weights_of(in.value_model, false)) {
    const int64_t tensors = std::min(w.copies, left[w.elements()]);
    left[w.elements()] -= tensors;
    lent += tensors * w.elements();
  }
  return static_cast<uint64_t>(lent) * sizeof(float);
}

void add_value(const PlanInput& in, const Rows& batch, Bill& bill) {
  if (in.value == ValuePlacement::kNone) return;
  const bool own = in.value == ValuePlacement::kOwn;
  const ModelConfig& model = own ? in.value_model : in.policy;
  std::vector<Weight> weights = scalar_head(model);
  if (own && in.value_adapter) {  // The policy's weights, tape and workspace.
    bill.add_weights("value", planning::weight_bytes(planning::adapter_weights(model, *in.adapter),
                                                     WeightDType::kFloat32, Trainable::kYes,
                                                     in.moment_bytes));
  } else if (own) {
    const auto backbone = planning::weights_of(model, false);
    weights.insert(weights.end(), backbone.begin(), backbone.end());
    const bool checkpoint = in.batch.gradient_checkpointing;
    const Rows rows{batch.train, batch.train, 0};
    const auto b = planning::activation_bytes(model, rows, checkpoint);
    const uint64_t lent = planning::activation_bytes(in.policy, rows, checkpoint).tape;
    bill.add("value", "activations", b.tape - std::min(b.tape, lent));
    bill.add("value", "working memory", b.working);
  }
  auto b = planning::weight_bytes(weights, in.dtype, Trainable::kYes, in.moment_bytes);
  if (own && !in.value_adapter) b.gradients -= lent_gradients(in);
  bill.add_weights("value", b);
}

/// A row for each id that an optimizer step sees, kept aside until its end: at most all of them.
uint64_t embedding_rows(const PlanInput& in) {
  const PlanBatch& b = in.batch;
  const int64_t prompts = (b.prompts + b.minibatches - 1) / b.minibatches;
  const int64_t tokens =
      prompts * (b.mean_prompt_tokens + b.group_size * in.rollout.max_new_tokens);
  const int64_t ids = std::min(in.policy.vocab_size, tokens);
  return static_cast<uint64_t>(ids * in.policy.hidden_size) * sizeof(float);
}

}  // namespace

uint64_t Plan::peak() const { return std::max({training, loading, saving}); }

uint64_t Plan::bytes(std::string_view owner, std::string_view name) const {
  uint64_t sum = 0;
  for (const PlanPart& p : parts) {
    if ((owner.empty() || p.owner == owner) && (name.empty() || p.name == name)) sum += p.bytes;
  }
  return sum;
}

Plan make_plan(const PlanInput& in) {
  if (in.pairs) return planning::plan_of_pairs(in);
  if (in.answers) return planning::plan_of_answers(in);
  in.rollout.validate();
  Plan plan;
  Bill bill(plan);
  Rows rows = planning::largest_micro_batch(in);
  rows.forward = planning::rollout_rows(in);
  // Values of a rollout are those of a forward over its micro-batches.
  const bool shared = in.adapter && in.reference == ReferencePlacement::kCopy;
  if (in.value == ValuePlacement::kSharedTrunk || shared) {
    rows.forward = std::max(rows.forward, rows.train);
  }
  plan.rows = rows.train;
  plan.scored = rows.scored;
  const auto weights = planning::weights_of(in.policy, true);
  for (const Weight& w : weights) plan.parameters += w.n * w.k * w.copies;
  const Trainable trainable = in.adapter ? Trainable::kNo : Trainable::kYes;
  const auto b = planning::weight_bytes(weights, in.dtype, trainable, in.moment_bytes);
  if (!in.adapter) {
    bill.add_weights("policy", b);
  } else {
    bill.add("policy", "weights", b.masters + b.copies);
    bill.add_weights("adapter",
                     planning::weight_bytes(planning::adapter_weights(in.policy, *in.adapter),
                                            WeightDType::kFloat32, Trainable::kYes, in.moment_bytes));
  }
  bill.add_activations("policy", in.policy, rows, in.batch.gradient_checkpointing);
  if (!in.adapter) bill.add("policy", "embedding rows", embedding_rows(in));
  bill.add("policy", "LM head tile", planning::head_bytes(in.policy, rows));
  if (in.dtype == WeightDType::kBfloat16Dot) {
    bill.add("policy", "packed operands", planning::word_bytes(in.policy, rows, true));
  }
  add_frozen_models(in, rows, bill);
  add_value(in, rows, bill);
  bill.add("rollout", "keys and values", kv_bytes(in));
  bill.add_program(in.policy);
  plan.loading = planning::loading_bytes(plan, b, weights);
  if (in.adapter) {  // The mapped file, which the masters say nothing of.
    plan.loading += 2 * static_cast<uint64_t>(plan.parameters) - b.masters / 2;
  }
  plan.saving = in.saves ? planning::saving_bytes(plan, weights) : 0;
  plan.phases = planning::phases(in);
  return plan;
}

}  // namespace temper
