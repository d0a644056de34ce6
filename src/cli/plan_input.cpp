// plan: from a configuration to what its plan depends on.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "plan_options.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/threads.h"
#include "temper/trainer/offline_run.h"
#include "temper/trainer/preference_run.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run_config.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;

/// What the configuration names. The run's prompts are read and tokenized, as their lengths decide
/// much: the first ones stand for all.
PlanSources read_sources(const PlanOptions& o, const OnlineRunConfig& config) {
  TEMPER_CHECK(!config.model.empty(),
               "no model was named: give --model or the config key \"model\"");
  const ModelSource source = open_model(config.model);
  PlanSources out;
  out.policy = source.config;
  for (const std::string& path : config.reward_model.models) {
    out.rewards.push_back(open_model(path).config);
  }
  if (o.prompt_tokens) {
    TEMPER_CHECK(*o.prompt_tokens >= 1, "--prompt-tokens must be at least 1, got ",
                 *o.prompt_tokens);
    out.prompt_tokens = {*o.prompt_tokens};
    out.held_out = config.eval.prompts;
    return out;
  }
  constexpr size_t kMostPrompts = 2000;
  const Task task = make_task(config.task);
  const ModelText text(source);
  for (const auto* part : {&task.train, &task.held_out}) {
    for (size_t i = 0; i < std::min(kMostPrompts, part->examples.size()); ++i) {
      out.prompt_tokens.push_back(std::ssize(encode_prompt(part->examples[i], text).ids));
    }
  }
  out.held_out = std::ssize(task.held_out.examples);
  return out;
}

void set_mean(const PlanOptions& o, PlanInput& input) {
  if (!o.mean_tokens) return;
  const int64_t most = input.rollout.max_new_tokens;
  TEMPER_CHECK(*o.mean_tokens >= 1 && *o.mean_tokens <= most,
               "--mean-tokens must be in [1, rollout.max_new_tokens = ", most, "], got ",
               *o.mean_tokens);
  input.batch.mean_completion_tokens = *o.mean_tokens;
}

/// Whether a configuration is one of PPO: it has that section, or a setting in it.
bool is_ppo(const std::string& text, const std::vector<std::string>& assignments) {
  const Json json = Json::parse(text, nullptr, false);
  return (json.is_object() && json.contains("ppo")) ||
         std::any_of(assignments.begin(), assignments.end(),
                     [](const std::string& a) { return a.starts_with("ppo."); });
}

/// Whether it is one of `train reward`: its settings have keys that no other run's have.
bool is_reward(const std::string& text, const std::vector<std::string>& assignments) {
  static const Json::json_pointer kKeys[] = {Json::json_pointer("/reward/pairs_per_step"),
                                             Json::json_pointer("/data/max_length")};
  const Json json = Json::parse(text, nullptr, false);
  return std::any_of(std::begin(kKeys), std::end(kKeys),
                     [&](const auto& key) { return json.is_object() && json.contains(key); }) ||
         std::any_of(assignments.begin(), assignments.end(), [](const std::string& a) {
           return a.starts_with("reward.pairs_per_step=") || a.starts_with("reward.loss.") ||
                  a.starts_with("data.max_length=");
         });
}

/// Rows of the run's pairs; the first ones stand for all.
std::vector<int64_t> read_pair_rows(const PlanOptions& o, const RewardRunConfig& config,
                                    const ModelSource& source) {
  if (o.prompt_tokens) {
    TEMPER_CHECK(*o.prompt_tokens >= 1, "--prompt-tokens must be at least 1, got ", *o.prompt_tokens);
    return {2 * *o.prompt_tokens};
  }
  constexpr size_t kMostPairs = 2000;
  const ModelText text(source);
  PreferenceReadOptions read = config.data.read;
  if (read.transcripts == "auto" && !text.has_template()) read.transcripts = "text";
  TEMPER_CHECK(!config.data.path.empty(), "no pairs were named: set data.path, or give --prompt-tokens");
  PreferenceData data = read_preferences(config.data.path, read);
  data.pairs.resize(std::min(kMostPairs, data.pairs.size()));
  std::vector<int64_t> rows;
  for (const TokenPair& pair : tokenize_pairs(data, text, config.data.max_length).pairs) {
    rows.push_back(pair.rows());
  }
  return rows;
}

/// The loss that a configuration names; empty: none.
std::string loss_name(const Json& json, const std::vector<std::string>& assignments) {
  std::string name;
  if (json.is_object() && json.contains("loss") && json["loss"].is_object()) {
    name = json["loss"].value("name", "");
  }
  for (const std::string& a : assignments) {
    if (a.starts_with("loss.name=")) name = a.substr(a.find('=') + 1);
  }
  return name;
}

/// The method of `train sft`, `dpo` and their family that a configuration belongs to: its loss has
/// that name. Empty: it is none of theirs.
std::string offline_method(const PlanOptions& o, const std::string& text,
                           const std::vector<std::string>& assignments) {
  const Json json = Json::parse(text, nullptr, false);
  const std::string name = o.algorithm.empty() ? loss_name(json, assignments) : o.algorithm;
  const bool known = std::any_of(offline_methods().begin(), offline_methods().end(),
                                 [&](const OfflineMethod& m) { return m.name == name; });
  return known ? name : "";
}

/// The method of `train online-dpo` and its kin: the configuration has their section, or a setting
/// in it. Empty: it is none of theirs.
std::string preference_method(const PlanOptions& o, const std::string& text,
                              const std::vector<std::string>& assignments) {
  const auto& all = preference_methods();
  const auto find = [&](auto field, const std::string& value) -> std::string {
    const auto at = std::find_if(all.begin(), all.end(),
                                 [&](const PreferenceMethod& m) { return m.*field == value; });
    return at == all.end() ? "" : at->name;
  };
  if (!o.algorithm.empty()) return find(&PreferenceMethod::name, o.algorithm);
  const Json json = Json::parse(text, nullptr, false);
  const bool has = (json.is_object() && json.contains("preference")) ||
                   std::any_of(assignments.begin(), assignments.end(), [](const std::string& a) {
                     return a.starts_with("preference.");
                   });
  if (!has) return "";
  const std::string by_loss = find(&PreferenceMethod::loss, loss_name(json, assignments));
  return by_loss.empty() ? all.front().name : by_loss;
}

/// The run's rows, or as long ones as the options say; the first ones stand for all.
std::vector<AnswerGroup> read_answer_groups(const PlanOptions& o, const OfflineRunConfig& config,
                                            const ModelSource& source) {
  constexpr size_t kMostRows = 2000;
  if (!o.prompt_tokens) {
    TEMPER_CHECK(!config.data.path.empty(),
                 "no rows were named: set data.path, or give --prompt-tokens and --mean-tokens");
    std::vector<AnswerGroup> groups = training_rows(config, ModelText(source)).groups;
    groups.resize(std::min(kMostRows, groups.size()));
    return groups;
  }
  const int64_t answer = o.mean_tokens.value_or(*o.prompt_tokens);
  TEMPER_CHECK(*o.prompt_tokens >= 1 && answer >= 1,
               "--prompt-tokens and --mean-tokens must be at least 1");
  AnswerGroup group;
  group.prompt.resize(static_cast<size_t>(*o.prompt_tokens));
  group.answers.resize(config.loss.needs().pairs ? 2 : 1);
  for (TokenAnswer& a : group.answers) a.ids.resize(static_cast<size_t>(answer));
  return {group};
}

PlanInput read_offline_input(const PlanOptions& o, const std::string& method,
                             const std::string& text,
                             const std::vector<std::string>& assignments) {
  const OfflineRunConfig config = read_offline_config(method, text, o.config_file, assignments);
  TEMPER_CHECK(!config.model.empty(), "no model was named: give --model or the config key \"model\"");
  config.offline.validate();
  const ModelSource source = open_model(config.model);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  return plan_input(config, source.config, read_answer_groups(o, config, source));
}

PlanInput read_reward_input(const PlanOptions& o, const std::string& text,
                            const std::vector<std::string>& assignments) {
  const RewardRunConfig config = read_reward_config(text, o.config_file, assignments);
  TEMPER_CHECK(!config.model.empty(), "no model was named: give --model or the config key \"model\"");
  config.reward.validate();
  const ModelSource source = open_model(config.model);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  return plan_input(config, source.config, read_pair_rows(o, config, source));
}

template <class Config>
PlanInput online_input(const PlanOptions& o, const Config& config, PlanSources sources) {
  PlanInput input = plan_input(config, sources);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  set_mean(o, input);
  return input;
}

}  // namespace

PlanInput read_plan_input(const PlanOptions& o) {
  std::vector<std::string> assignments = o.assignments;
  if (!o.model.empty()) assignments.push_back("model=" + o.model);
  const std::string text = o.config_file.empty() ? "" : read_text_file(o.config_file);
  if (const std::string method = preference_method(o, text, assignments); !method.empty()) {
    const auto config = read_preference_config(method, text, o.config_file, assignments);
    return online_input(o, config, read_sources(o, config));
  }
  if (const std::string method = offline_method(o, text, assignments); !method.empty()) {
    return read_offline_input(o, method, text, assignments);
  }
  if (o.algorithm == "reward" || (o.algorithm.empty() && is_reward(text, assignments))) {
    return read_reward_input(o, text, assignments);
  }
  if (o.algorithm == "ppo" || (o.algorithm.empty() && is_ppo(text, assignments))) {
    const PpoRunConfig config = read_ppo_config(text, o.config_file, assignments);
    PlanSources sources = read_sources(o, config);
    if (!config.ppo.value.init.empty()) sources.value = open_model(config.ppo.value.init).config;
    return online_input(o, config, std::move(sources));
  }
  const GrpoRunConfig config = read_grpo_config(text, o.config_file, assignments);
  return online_input(o, config, read_sources(o, config));
}

std::vector<std::string> planned_algorithms() {
  std::vector<std::string> out{"grpo", "ppo", "reward"};
  for (const OfflineMethod& m : offline_methods()) out.push_back(m.name);
  for (const PreferenceMethod& m : preference_methods()) out.push_back(m.name);
  return out;
}

}  // namespace temper::cli
