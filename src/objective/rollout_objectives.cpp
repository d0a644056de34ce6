#include "temper/objective/rollout_objectives.h"

#include <variant>

#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/objective/bnpo.h"
#include "temper/objective/cispo.h"
#include "temper/objective/dapo.h"
#include "temper/objective/dr_grpo.h"
#include "temper/objective/grpo.h"
#include "temper/objective/gspo.h"
#include "temper/objective/luspo.h"
#include "temper/objective/ppo.h"
#include "temper/objective/sapo.h"
#include "temper/objective/vespo.h"

namespace temper {

const std::vector<RolloutObjectiveEntry>& rollout_objectives() {
  static const std::vector<RolloutObjectiveEntry> table = {
      rollout_objective<Dapo>("dapo", "Clipped surrogate, mean over the tokens of the step."),
      rollout_objective<Grpo>("grpo", "Clipped surrogate, mean over completions of token means."),
      rollout_objective<DrGrpo>("dr_grpo", "Clipped surrogate, divided by a constant length."),
      rollout_objective<Bnpo>("bnpo", "Clipped surrogate, token mean of the batch; here as dapo."),
      rollout_objective<Gspo>("gspo", "GRPO with one narrowly clipped ratio a completion."),
      rollout_objective<Luspo>("luspo", "One ratio a completion, completions weighted by length."),
      rollout_objective<Cispo>("cispo", "REINFORCE weighted by the capped ratio; clips no token."),
      rollout_objective<Sapo>("sapo", "A sigmoid gate in the place of the clip."),
      rollout_objective<Vespo>("vespo", "REINFORCE weighted by a bump over the sequence's ratio."),
      rollout_objective<Ppo>("ppo", "Clipped surrogate for a critic's advantages; dual clipping."),
  };
  return table;
}

RolloutLoss::RolloutLoss(std::string_view name, std::span<const RolloutObjectiveEntry> table) {
  select(name, table);
}

RolloutLoss::RolloutLoss(const RolloutLoss& other)
    : name_(other.name_),
      selected_(other.selected_),
      choices_(other.choices_),
      settings_(other.settings_->clone()) {}

RolloutLoss& RolloutLoss::operator=(const RolloutLoss& other) {
  if (this != &other) *this = RolloutLoss(other);
  return *this;
}

void RolloutLoss::select(std::string_view name, std::span<const RolloutObjectiveEntry> table) {
  std::vector<std::string> known;
  const RolloutObjectiveEntry* found = nullptr;
  for (const RolloutObjectiveEntry& entry : table) {
    known.push_back(entry.name);
    if (entry.name == name) found = &entry;
  }
  if (found == nullptr) {
    const std::string nearest = nearest_name(name, known);
    fail("[loss] unknown loss \"", name, "\"",
         nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  }
  choices_ = std::move(known);
  name_ = name;
  if (selected_ == name && settings_ != nullptr) return;
  selected_ = name;
  settings_ = found->settings();
}

void RolloutLoss::visit(ConfigVisitor& visitor) {
  visitor(name_, "name", "The loss; its other settings depend on it.", choices_);
  settings_->visit(visitor);
}

double RolloutLoss::setting(std::string_view name) const {
  RolloutLoss copy = *this;
  for (const ConfigField& f : config_fields(copy)) {
    const bool number = std::holds_alternative<double*>(f.value);
    if (number && f.name == name) return *std::get<double*>(f.value);
  }
  return 0;
}

RolloutObjective RolloutLoss::build() const {
  TEMPER_CHECK(name_ == selected_, "[loss] the settings were read for \"", selected_,
               "\", then the name was set to \"", name_, "\"; select the loss before its settings");
  return settings_->build();
}

}  // namespace temper
