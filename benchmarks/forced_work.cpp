#include "forced_work.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "temper/core/error.h"
#include "temper/data/dataset.h"
#include "temper/trainer/evaluation.h"
#include "temper/trainer/grpo.h"
#include "temper/trainer/model_reward.h"
#include "temper/trainer/ppo.h"

namespace temper::benchmarks {

ForcedWork ForcedWork::read(const std::string& folder) {
  std::ifstream in(folder + "/work.json");
  TEMPER_CHECK(in, "cannot read ", folder, "/work.json");
  const auto json = nlohmann::json::parse(in);
  ForcedWork w;
  w.folder = folder;
  w.prompts = json.at("prompts").get<std::vector<std::string>>();
  w.prompt_ids = json.at("prompt_ids").get<std::vector<std::vector<int32_t>>>();
  w.response_ids = json.at("response_ids").get<std::vector<std::vector<int32_t>>>();
  TEMPER_CHECK(!w.prompts.empty() && w.prompts.size() == w.prompt_ids.size() &&
                   w.prompts.size() == w.response_ids.size(),
               folder, "/work.json has not as many prompts as ids and responses");
  return w;
}

namespace {

OnlineTrainer::Parts make_parts(const ForcedWork& work, const ForcedRun& run,
                                const ForcedTrainer& models) {
  OnlineTrainer::Parts parts;
  for (int64_t i = 0; i < run.prompts; ++i) {
    Example example;
    example.prompt = work.prompts.at(static_cast<size_t>(i));
    example.id = prompt_id(example);
    const std::vector<int32_t> ids = encode_prompt(example, models.policy->text()).ids;
    TEMPER_CHECK(ids == work.prompt_ids[static_cast<size_t>(i)], "prompt ", i,
                 " has other ids than the peer's tokenizer gave it");
    parts.prompts.examples.push_back(std::move(example));
  }
  parts.rollout.max_new_tokens = work.response_tokens();
  parts.rollout.prefill_tokens = 512;
  parts.optimizer.moments = run.moments;
  parts.schedule = {.shape = "constant", .learning_rate = 1e-6};
  parts.rewards = {{"reward_model", reward_model_fn(models.reward, models.policy->text())}};
  parts.total_steps = 1 << 20;
  return parts;
}

OnlineConfig online_config(const ForcedRun& run) {
  OnlineConfig online;
  online.prompts_per_step = run.prompts;
  online.group_size = run.group_size;
  online.iterations = run.passes;
  online.micro_batch_tokens = run.micro_batch_tokens;
  online.skip_dead_groups = false;
  return online;
}

std::unique_ptr<OnlineTrainer> make_ppo(const ForcedWork& work, const ForcedRun& run,
                                        ForcedTrainer& models) {
  PpoConfig config;
  config.online = online_config(run);
  std::optional<ValueModel> value;
  if (run.algorithm == "ppo") {
    config.value.init = work.folder + "/value";
    value = make_value_model(config.value, work.folder + "/policy", nullptr, run.weights);
  } else {
    config.value.model = run.algorithm == "ppo_joint" ? "trunk_joint" : "trunk";
  }
  return std::make_unique<PpoTrainer>(*models.policy, config, make_parts(work, run, models),
                                      std::move(value));
}

std::unique_ptr<OnlineTrainer> make_grpo(const ForcedWork& work, const ForcedRun& run,
                                         ForcedTrainer& models) {
  GrpoConfig config;
  config.online = online_config(run);
  config.advantages = run.algorithm == "rloo" ? "rloo" : "group";
  const bool reference = run.algorithm == "grpo";
  TEMPER_CHECK(reference || run.algorithm == "grpo_no_reference" || run.algorithm == "rloo",
               "unknown algorithm ", run.algorithm);
  if (reference) config_set(config_fields(config.loss), "kl_coef=0.04");
  return std::make_unique<GrpoTrainer>(*models.policy, config, make_parts(work, run, models));
}

}  // namespace

ForcedTrainer make_forced_trainer(const ForcedWork& work, const ForcedRun& run) {
  ForcedTrainer t;
  t.policy = std::make_unique<PolicyModel>(PolicyModel::load(work.folder + "/policy", run.weights));
  TEMPER_CHECK(t.policy->text().eos_ids().empty(), "policy/ has ids that end a text");
  t.reward = std::make_shared<RewardModel>(
      RewardModel::load(work.folder + "/reward", run.weights, Trainable::kNo));
  t.trainer = run.algorithm.starts_with("ppo") ? make_ppo(work, run, t) : make_grpo(work, run, t);
  return t;
}

MatrixWeights count_weights(const CausalLM& lm) {
  MatrixWeights w;
  for (const auto& p : lm.parameters()) {
    if (p->matrix && p->name != "embed_tokens" && p->name != "lm_head") {
      w.trunk += static_cast<double>(p->n * p->k);
    }
  }
  w.head = static_cast<double>(lm.head().n * lm.head().k);
  return w;
}

double ppo_step_flops(const MatrixWeights& w, const ForcedWork& work, int64_t passes) {
  const double n = static_cast<double>(work.prompts.size());
  const double scored = n * static_cast<double>(work.response_tokens());
  // The last token is sampled, not read: only the reward model sees it.
  const double rows = scored + n * static_cast<double>(work.prompt_tokens()) - n;
  const double trunk = 3 * 2 * rows + 2 * (rows + n) + static_cast<double>(passes) * 2 * 6 * rows;
  const double head = 2 * 2 * scored + static_cast<double>(passes) * 6 * scored;
  return trunk * w.trunk + head * w.head;
}

}  // namespace temper::benchmarks
