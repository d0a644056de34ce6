#include "temper/trainer/run_config.h"

#include <nlohmann/json.hpp>

#include "temper/core/config.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kLossKey = "grpo.loss.name";

/// The loss must be known before its settings can be: it decides which there are.
void select_loss(GrpoRunConfig& config, const Json& json, const std::vector<std::string>& assignments) {
  const Json::json_pointer pointer("/grpo/loss/name");
  if (json.contains(pointer) && json.at(pointer).is_string()) {
    config.grpo.loss.select(json.at(pointer).get<std::string>());
  }
  for (const auto& a : assignments) {
    if (a.starts_with(kLossKey) && a.size() > kLossKey.size() && a[kLossKey.size()] == '=') {
      config.grpo.loss.select(a.substr(kLossKey.size() + 1));
    }
  }
}

}  // namespace

GrpoRunConfig read_grpo_config(const std::string& json_text, const std::string& source,
                               const std::vector<std::string>& assignments) {
  GrpoRunConfig config;
  Json json = Json::object();
  if (!json_text.empty()) {
    try {
      json = Json::parse(json_text);
    } catch (const Json::parse_error& e) {
      fail(source, ": not valid JSON: ", e.what());
    }
  }
  select_loss(config, json, assignments);
  config_from_json(config_fields(config), json, source);
  for (const auto& a : assignments) config_set(config_fields(config), a);
  if (!config.data_path.empty()) config.task.path = config.data_path;
  config.data_path.clear();
  return config;
}

std::string config_text(GrpoRunConfig config) {
  return config_to_json(config_fields(config)).dump(2) + "\n";
}

std::string describe_batch(const GrpoRunConfig& c) {
  const OnlineConfig& o = c.grpo.online;
  const int64_t sequences = o.prompts_per_step * o.group_size;
  return concat("Each of ", c.trainer.steps, " steps samples ", o.prompts_per_step, " prompts x ",
                o.group_size, " completions = ", sequences, " sequences of at most ",
                c.rollout.max_new_tokens, " new tokens, and makes ", o.iterations, " x ",
                o.minibatches, " = ", o.iterations * o.minibatches,
                " optimizer steps on them (", sequences / o.minibatches, " sequences each), in ",
                "micro-batches of at most ", o.micro_batch_tokens, " tokens.");
}

}  // namespace temper
