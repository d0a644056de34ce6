#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/objective/objective.h"
#include "temper/objective/picked_loss.h"

namespace temper {

/// The settings of one loss, whatever its type: declare them, then build the loss from them.
class ObjectiveSettings {
 public:
  virtual ~ObjectiveSettings() = default;
  /// Declares the fields; the pointers in them live as long as this object.
  virtual void visit(ConfigVisitor& visitor) = 0;
  /// The loss with the present settings. @throws Error for settings out of range.
  [[nodiscard]] virtual RolloutObjective build() const = 0;
  [[nodiscard]] virtual std::unique_ptr<ObjectiveSettings> clone() const = 0;
};

/// One row of the table of losses.
struct RolloutObjectiveEntry {
  using Settings = ObjectiveSettings;
  std::string name;
  std::string doc;  ///< One line.
  std::unique_ptr<ObjectiveSettings> (*settings)();  ///< Fresh settings with the defaults.
};

/// The row for a loss type:
///
///     rollout_objective<Dapo>("dapo", "Clipped surrogate, mean over the tokens of the step.")
template <RolloutLossType Loss>
[[nodiscard]] RolloutObjectiveEntry rollout_objective(std::string name, std::string doc) {
  class Settings final : public ObjectiveSettings {
   public:
    void visit(ConfigVisitor& visitor) override { config_.visit(visitor); }
    RolloutObjective build() const override { return Loss{config_}; }
    std::unique_ptr<ObjectiveSettings> clone() const override {
      return std::make_unique<Settings>(*this);
    }

   private:
    typename Loss::Config config_;
  };
  return {std::move(name), std::move(doc),
          +[]() -> std::unique_ptr<ObjectiveSettings> { return std::make_unique<Settings>(); }};
}

/// The losses that ship, `dapo` (the default) first. A program that adds its own copies the table
/// and appends a row.
[[nodiscard]] const std::vector<RolloutObjectiveEntry>& rollout_objectives();

/// A loss over rollouts, picked by name, with its settings.
///
///     RolloutLoss loss("cispo");                       // its defaults
///     config_set(config_fields(loss), "ratio_max=4");
///     RolloutObjective objective = loss.build();
class RolloutLoss : public PickedLoss<RolloutObjectiveEntry> {
 public:
  /// @throws Error for an unknown name, with the nearest known one.
  explicit RolloutLoss(std::string_view name = "dapo",
                       std::span<const RolloutObjectiveEntry> table = rollout_objectives())
      : PickedLoss(name, table) {}

  void select(std::string_view name,
              std::span<const RolloutObjectiveEntry> table = rollout_objectives()) {
    PickedLoss::select(name, table);
  }
  /// @throws Error for settings out of range.
  [[nodiscard]] RolloutObjective build() const { return settings().build(); }
};

}  // namespace temper
