#include "temper/trainer/run_config.h"

#include <nlohmann/json.hpp>

#include "config_source.h"
#include "temper/core/error.h"

namespace temper {

std::vector<std::string> reference_weight_names() {
  std::vector<std::string> names = weight_dtype_names();
  names.insert(names.begin(), "same");
  std::erase(names, "q4");  // Its blocks are made from files, and a reference from the policy.
  return names;
}
namespace {

using Json = nlohmann::ordered_json;

/// The loss must be known before its settings can be: it decides which there are.
void select_loss(RolloutLoss& loss, const std::string& section, const Json& json,
                 const std::vector<std::string>& assignments) {
  const Json::json_pointer pointer("/" + section + "/loss/name");
  if (json.contains(pointer) && json.at(pointer).is_string()) {
    loss.select(json.at(pointer).get<std::string>());
  }
  const std::string key = section + ".loss.name=";
  for (const auto& a : assignments) {
    if (a.starts_with(key)) loss.select(a.substr(key.size()));
  }
}

/// @param loss  of the algorithm's settings. @param section  their name.
template <class Config>
Config read_config(const std::string& json_text, const std::string& source,
                   const std::vector<std::string>& assignments, RolloutLoss& (*loss)(Config&),
                   const char* section) {
  Config config;
  const Json json = parse_config(json_text, source);
  select_loss(loss(config), section, json, assignments);
  apply_settings(config, json, source, assignments);
  if (!config.data_path.empty()) config.task.path = config.data_path;
  config.data_path.clear();
  return config;
}

std::string describe(const OnlineRunConfig& c, const OnlineConfig& o) {
  const int64_t sequences = o.prompts_per_step * o.group_size;
  return concat("Each of ", c.trainer.steps, " steps samples ", o.prompts_per_step, " prompts x ",
                o.group_size, " completions = ", sequences, " sequences of at most ",
                c.rollout.max_new_tokens, " new tokens, and makes ", o.iterations, " x ",
                o.minibatches, " = ", o.iterations * o.minibatches,
                " optimizer steps on them (", sequences / o.minibatches, " sequences each), in ",
                "micro-batches of at most ", o.micro_batch_tokens, " tokens.");
}

}  // namespace

GrpoRunConfig read_grpo_config(const std::string& json_text, const std::string& source,
                               const std::vector<std::string>& assignments) {
  return read_config<GrpoRunConfig>(
      json_text, source, assignments,
      [](GrpoRunConfig& c) -> RolloutLoss& { return c.grpo.loss; }, "grpo");
}

PpoRunConfig read_ppo_config(const std::string& json_text, const std::string& source,
                             const std::vector<std::string>& assignments) {
  return read_config<PpoRunConfig>(
      json_text, source, assignments, [](PpoRunConfig& c) -> RolloutLoss& { return c.ppo.loss; },
      "ppo");
}

std::string config_text(GrpoRunConfig config) { return text_of(config); }
std::string config_text(PpoRunConfig config) { return text_of(config); }

std::string describe_batch(const GrpoRunConfig& c) { return describe(c, c.grpo.online); }

std::string describe_batch(const PpoRunConfig& c) {
  return describe(c, c.ppo.online) +
         (c.ppo.value.model == "own" ? " The value model is a second model of the policy's kind."
                                     : " The value is a head on the policy's trunk.");
}

}  // namespace temper
