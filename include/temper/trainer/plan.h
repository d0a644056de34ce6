#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/nn/causal_lm.h"
#include "temper/rollout/engine.h"

namespace temper {

struct AdapterRunConfig;
struct AnswerGroup;
struct GrpoRunConfig;
struct OfflineRunConfig;
struct PpoRunConfig;
struct PreferenceRunConfig;
struct RewardRunConfig;

/// Where the frozen model comes from that KL is measured against.
enum class ReferencePlacement {
  kNone,    ///< No KL, no reference.
  kCopy,    ///< A frozen copy of what the policy's products read.
  kMapped,  ///< The same bytes in a file that several processes map.
};

/// Where values come from.
enum class ValuePlacement {
  kNone,         ///< The algorithm has no critic.
  kOwn,          ///< A backbone of its own, trained: weights and moments once more. Its gradients
                 ///< and activations take the policy's memory, whose own come later.
  kSharedTrunk,  ///< A scalar head on the policy's hidden rows.
};

/// A model that scores completions.
struct PlannedReward {
  ModelConfig model;
  WeightDType dtype = WeightDType::kBfloat16Dot;
  bool shares_backbone = false;  ///< A head on the reference's backbone: no weights of its own, and
                                 ///< one forward for all that share it.
  int64_t batch_tokens = 2048;   ///< Most tokens of one of its forwards.
};

/// How a step is cut.
struct PlanBatch {
  int64_t prompts = 8;            ///< Of one rollout.
  int64_t group_size = 8;         ///< Completions a prompt.
  int64_t prompt_tokens = 128;    ///< Longest prompt.
  int64_t mean_prompt_tokens = 128;
  int64_t mean_completion_tokens = 64;  ///< At most rollout.max_new_tokens; only for operations.
  int64_t iterations = 1;               ///< Passes over a rollout.
  int64_t minibatches = 1;              ///< Optimizer steps a pass.
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  int64_t held_out_prompts = 0;  ///< Sampled at a time by an evaluation; 0: there is none.
};

/// The work of training a reward model.
struct PlanPairs {
  int64_t pairs_per_step = 8;
  int64_t longest = 1024;        ///< Rows of the longest pair: what both sides share counts once.
  int64_t mean = 512;            ///< The same in the mean.
  bool freeze_backbone = false;  ///< The head alone is trained.
};

/// The work of training on given answers.
struct PlanAnswers {
  int64_t rows_per_step = 8;
  int64_t longest = 1024;         ///< Batch rows of the longest row: its prompt counts once.
  int64_t mean = 512;             ///< The same in the mean.
  double scored_share = 0.5;      ///< Of the batch rows, those that the LM head sees.
  bool moves_reference = false;   ///< A live reference keeps what it needs to move.
  bool sums_first = false;        ///< The loss reads sums of the whole step: a forward more.
};

/// All that a bill depends on, of any algorithm. Nothing here needs a weight to be read.
struct PlanInput {
  std::string algorithm = "grpo";  ///< The section of its settings, as `PlanChange` names them.
  std::string no_reference = "loss.kl_coef=0";  ///< The setting without which there is none.
  ModelConfig policy;
  WeightDType dtype = WeightDType::kFloat32;
  ReferencePlacement reference = ReferencePlacement::kNone;
  std::optional<WeightDType> reference_dtype;  ///< None: the policy's.
  std::vector<PlannedReward> rewards;
  ValuePlacement value = ValuePlacement::kNone;
  ModelConfig value_model;  ///< Of a value model of its own.
  bool value_adapter = false;  ///< That one is an adapter over the policy's weights, as `adapter`.
  std::optional<AdapterConfig> adapter;  ///< The policy is frozen under it: a reference is its base.
  int64_t moment_bytes = 4;  ///< Of each of Adam's two moments of a weight: 4, or 2 in bfloat16.
  RolloutConfig rollout;
  PlanBatch batch;
  bool saves = true;  ///< Checkpoints or a model at the end are written.
  std::optional<PlanPairs> pairs;  ///< A reward model is trained: of the rest `policy` (its backbone),
                                   ///< `dtype`, `moment_bytes`, `saves` and micro-batches are read.
  std::optional<PlanAnswers> answers;  ///< The policy learns given answers: there is no rollout, and
                                       ///< `reference` is one that stays in memory.
};

/// What a configuration names, without its weights.
struct PlanSources {
  ModelConfig policy;
  std::vector<ModelConfig> rewards;      ///< Of reward_model.models.
  std::optional<ModelConfig> value;      ///< Of ppo.value.init, where that is set.
  std::vector<int64_t> prompt_tokens;    ///< Of (some of) the prompts.
  int64_t held_out = 0;                  ///< Prompts of the held-out part.
};
/// The plan's input for a run by GRPO or its kin, or by PPO.
[[nodiscard]] PlanInput plan_input(const GrpoRunConfig& config, const PlanSources& sources);
[[nodiscard]] PlanInput plan_input(const PpoRunConfig& config, const PlanSources& sources);
/// The same for preferences over the policy's own answers, as if all of a round's were trained on; a
/// judge is not counted.
[[nodiscard]] PlanInput plan_input(const PreferenceRunConfig& config, const PlanSources& sources);
/// The same for the training of a reward model. @param pair_rows  of (some of) its pairs; not empty.
[[nodiscard]] PlanInput plan_input(const RewardRunConfig& config, const ModelConfig& model,
                                   std::span<const int64_t> pair_rows);
/// The same for training on given answers. @param groups  (some of) its rows; not empty.
[[nodiscard]] PlanInput plan_input(const OfflineRunConfig& config, const ModelConfig& model,
                                   std::span<const AnswerGroup> groups);
/// The adapter of a run's settings, or nothing.
[[nodiscard]] std::optional<AdapterConfig> planned_adapter(const AdapterRunConfig& config);

/// One line of the bill.
struct PlanPart {
  std::string owner;  ///< "policy", "adapter", "reference", "reward", "value", "rollout", "program"; of a reward
                      ///< model's training "model", "head", "program".
  std::string name;   ///< Such as "gradients".
  uint64_t bytes = 0;
};

/// Operations of one phase of a step (2 a multiply-add), worst case or mean as the batch says.
struct PlanPhase {
  std::string name;       ///< "rollout", "reference", "reward", "value", "update".
  double trunk = 0;       ///< Products of the layers.
  double head = 0;        ///< Products with the LM head.
  double attention = 0;   ///< Scores and sums of values: apart, as they grow with the context.
  double read_bytes = 0;  ///< Weights and moments that must pass through memory.
};

/// The bill of a run.
struct Plan {
  std::vector<PlanPart> parts;  ///< While it trains.
  uint64_t training = 0;        ///< Sum of the parts.
  uint64_t loading = 0;         ///< Peak while weights are read.
  uint64_t saving = 0;          ///< Peak while they are written.
  int64_t rows = 0;             ///< Most rows of one forward and backward.
  int64_t scored = 0;           ///< Most rows of one pass of the LM head.
  int64_t parameters = 0;       ///< Of the policy.
  std::vector<PlanPhase> phases;

  [[nodiscard]] uint64_t peak() const;
  /// Sum over the parts of an owner, or of one name of all owners where `owner` is empty.
  [[nodiscard]] uint64_t bytes(std::string_view owner, std::string_view name = {}) const;
  [[nodiscard]] double operations() const;  ///< Of all phases, attention included.
};

/// The bill, by the formulas of docs/memory.md. Peak resident memory of the program, every
/// completion taken as `max_new_tokens` long. @throws Error when the memory bound of the rollout
/// cannot hold one completion.
[[nodiscard]] Plan make_plan(const PlanInput& input);

/// What a machine does a second.
struct MachineRates {
  double flops = 0;  ///< Operations of products of a weight type.
  double bytes = 0;  ///< Weights read for one row.
};
/// Times products of `dtype` on this machine with the threads in use: about 0.1 s.
[[nodiscard]] MachineRates probe_rates(WeightDType dtype);
/// Seconds of a phase: the slower of its operations and its reads.
[[nodiscard]] double phase_seconds(const PlanPhase& phase, const MachineRates& rates);

/// A change of one setting and what it would save.
struct PlanChange {
  std::string setting;  ///< Such as "grpo.gradient_checkpointing=true".
  std::string effect;   ///< In words, with its price.
  PlanInput input;      ///< With this change alone.
  uint64_t saved = 0;   ///< Bytes of peak, above 0.
};
/// Every single change that lowers the peak, the biggest saving first, each planned anew.
[[nodiscard]] std::vector<PlanChange> plan_changes(const PlanInput& input);
/// Changes taken together, the biggest saving first, until `memory` bytes are enough; nullopt when
/// all of them are not.
[[nodiscard]] std::optional<std::vector<PlanChange>> changes_that_fit(const PlanInput& input,
                                                                      uint64_t memory);

/// Sizes that a bill is scaled to on paper.
struct ScaleShape {
  std::string name;    ///< "1B".
  std::string source;  ///< Whose shape it is.
  ModelConfig config;
};
[[nodiscard]] const std::vector<ScaleShape>& scale_shapes();
/// The same run with another policy; models that had the policy's shape follow it.
[[nodiscard]] PlanInput scaled(const PlanInput& input, const ModelConfig& to);

/// The bill as a table for people.
[[nodiscard]] std::string plan_text(const Plan& plan, const MachineRates& rates);
/// The same for machines.
[[nodiscard]] nlohmann::ordered_json plan_json(const Plan& plan, const MachineRates& rates);
/// "4.20 GiB".
[[nodiscard]] std::string bytes_text(uint64_t bytes);
/// "8GiB", "8GB", "512MiB", "1e9" or a number of bytes. @throws Error for anything else.
[[nodiscard]] uint64_t parse_bytes(std::string_view text);
/// Bytes that this process may still take: what the system calls available, or less where a control
/// group bounds it.
[[nodiscard]] uint64_t available_memory();

}  // namespace temper
