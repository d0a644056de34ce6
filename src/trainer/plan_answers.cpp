// The bill of training on given answers: supervised, DPO and its family, KTO, ...
#include <algorithm>

#include "plan_bill.h"
#include "temper/core/error.h"
#include "temper/trainer/offline_run.h"

namespace temper {
namespace planning {

int64_t answer_rows(const PlanInput& in) {
  const PlanAnswers& a = *in.answers;
  return std::max(std::min(in.batch.micro_batch_tokens, a.rows_per_step * a.longest), a.longest);
}

namespace {

void add_policy(const PlanInput& in, const Rows& rows,
                const WeightBytes& b, Bill& bill) {
  if (in.adapter) {
    bill.add("policy", "weights", b.masters + b.copies);
    bill.add_weights("adapter", weight_bytes(adapter_weights(in.policy, *in.adapter),
                                             WeightDType::kFloat32, Trainable::kYes,
                                             in.moment_bytes));
  } else {
    bill.add_weights("policy", b);
    const int64_t ids =
        std::min(in.policy.vocab_size, in.answers->rows_per_step * in.answers->mean);
    bill.add("policy", "embedding rows",
             static_cast<uint64_t>(ids * in.policy.hidden_size) * sizeof(float));
  }
  bill.add_activations("policy", in.policy, rows, in.batch.gradient_checkpointing);
  bill.add("policy", "LM head tile", head_bytes(in.policy, rows));
  if (in.dtype == WeightDType::kBfloat16Dot) {
    bill.add("policy", "packed operands", word_bytes(in.policy, rows, true));
  }
}

void add_reference(const PlanInput& in, const Rows& rows, const WeightBytes& policy, Bill& bill) {
  if (in.reference == ReferencePlacement::kNone) return;
  if (in.adapter) {  // The policy's own weights and workspace, and a result.
    bill.add("reference", "working memory",
             static_cast<uint64_t>(rows.train * in.policy.hidden_size) * sizeof(float));
    return;
  }
  const auto weights = weights_of(in.policy, true);
  const WeightBytes b = weight_bytes(weights, in.dtype, Trainable::kNo);
  // A reference that moves needs the masters to move.
  bill.add("reference", "weights",
           b.copies + (in.answers->moves_reference ? policy.masters : b.masters));
  bill.add_activations("reference", in.policy, {0, rows.train, 0}, false);
}

}  // namespace

Plan plan_of_answers(const PlanInput& in) {
  Plan plan;
  Bill bill(plan);
  Rows rows{answer_rows(in), 0, 0};
  rows.forward = rows.train;  // Held-out rows, and sums of a step before its first gradient.
  rows.scored = static_cast<int64_t>(in.answers->scored_share * static_cast<double>(rows.train) + 0.5);
  plan.rows = rows.train;
  plan.scored = rows.scored;
  const auto weights = weights_of(in.policy, true);
  for (const Weight& w : weights) plan.parameters += w.n * w.k * w.copies;
  const Trainable trainable = in.adapter ? Trainable::kNo : Trainable::kYes;
  const WeightBytes b = weight_bytes(weights, in.dtype, trainable, in.moment_bytes);
  add_policy(in, rows, b, bill);
  add_reference(in, rows, b, bill);
  bill.add_program(in.policy);
  plan.loading = loading_bytes(plan, b, weights);
  if (in.adapter) {  // The mapped file, which the masters say nothing of.
    plan.loading += 2 * static_cast<uint64_t>(plan.parameters) - b.masters / 2;
  }
  plan.saving = in.saves ? saving_bytes(plan, weights) : 0;
  plan.phases = phases(in);
  return plan;
}

}  // namespace planning

PlanInput plan_input(const OfflineRunConfig& config, const ModelConfig& model,
                     std::span<const AnswerGroup> groups) {
  TEMPER_CHECK(!groups.empty(), "[plan] there is no row to plan for");
  PlanInput in;
  in.algorithm = "offline";
  in.policy = model;
  in.dtype = parse_weight_dtype(config.trainer.weights);
  in.moment_bytes = config.optimizer.moments == "bfloat16" ? 2 : 4;
  in.adapter = planned_adapter(config.adapter);
  in.batch.micro_batch_tokens = config.offline.micro_batch_tokens;
  in.batch.gradient_checkpointing = config.offline.gradient_checkpointing;
  in.saves = config.trainer.save_model || config.trainer.checkpoint_every > 0;
  const OfflineNeeds needs = config.loss.needs();
  if (needs.reference && config.offline.reference == "live") {
    in.reference = ReferencePlacement::kCopy;
    in.no_reference = "reference=cached";
  }
  double all = 0, scored = 0;
  PlanAnswers answers{.rows_per_step = config.offline.rows_per_step,
                      .longest = 0,
                      .moves_reference = config.offline.ref_sync_every > 0,
                      .sums_first = needs.sums || needs.baseline != OfflineNeeds::Baseline::kNone};
  for (const AnswerGroup& g : groups) {
    answers.longest = std::max(answers.longest, g.rows());
    all += static_cast<double>(g.rows());
    for (size_t a = 0; a < g.answers.size(); ++a) scored += static_cast<double>(g.predicted(a));
    if (needs.prompt_logprobs) scored += static_cast<double>(g.prompt.size());
  }
  answers.mean = std::max<int64_t>(1, static_cast<int64_t>(all / static_cast<double>(groups.size())));
  answers.scored_share = std::min(1.0, scored / all);
  in.answers = answers;
  return in;
}

}  // namespace temper
