#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/objective/objective.h"
#include "temper/objective/offline_needs.h"
#include "temper/objective/picked_loss.h"

namespace temper {

/// Any objective over given answers, as a value: what a trainer holds.
using OfflineObjective = std::function<LossOutput(const AnswerBatch&)>;

/// A loss type that the table below can hold: an `Objective` over an `AnswerBatch` that says what
/// it reads.
template <class O>
concept OfflineLossType = Objective<O> && std::same_as<typename O::Batch, AnswerBatch> &&
    requires(const O& objective) {
  { objective.needs() } -> std::same_as<OfflineNeeds>;
};

/// The settings of one loss, whatever its type.
class OfflineSettings {
 public:
  virtual ~OfflineSettings() = default;
  /// Declares the fields; the pointers in them live as long as this object.
  virtual void visit(ConfigVisitor& visitor) = 0;
  /// The loss with the present settings. @throws Error naming a setting that is out of range or
  ///         does not go with another.
  [[nodiscard]] virtual OfflineObjective build() const = 0;
  /// What that loss reads. @throws Error as `build` does.
  [[nodiscard]] virtual OfflineNeeds needs() const = 0;
  [[nodiscard]] virtual std::unique_ptr<OfflineSettings> clone() const = 0;
};

/// One row of the table of losses over given answers.
struct OfflineObjectiveEntry {
  using Settings = OfflineSettings;
  std::string name;
  std::string doc;                                 ///< One line.
  std::unique_ptr<OfflineSettings> (*settings)();  ///< Fresh settings with the defaults.
};

/// The row for a loss type:
///
///     offline_objective<Kto>("kto", "Single answers, each marked desirable or not.")
template <OfflineLossType Loss>
[[nodiscard]] OfflineObjectiveEntry offline_objective(std::string name, std::string doc) {
  class Settings final : public OfflineSettings {
   public:
    void visit(ConfigVisitor& visitor) override { config_.visit(visitor); }
    OfflineObjective build() const override { return Loss{config_}; }
    OfflineNeeds needs() const override { return Loss{config_}.needs(); }
    std::unique_ptr<OfflineSettings> clone() const override {
      return std::make_unique<Settings>(*this);
    }

   private:
    typename Loss::Config config_;
  };
  return {std::move(name), std::move(doc),
          +[]() -> std::unique_ptr<OfflineSettings> { return std::make_unique<Settings>(); }};
}

/// The losses that ship, `sft` (the default) first. A program that adds its own copies the table
/// and appends a row.
[[nodiscard]] const std::vector<OfflineObjectiveEntry>& offline_objectives();

/// Those over answers that the policy sampled while it trains, `dpo` first. What `labels` mean is
/// up to the loss: see `Xpo` and `NashMd`.
[[nodiscard]] const std::vector<OfflineObjectiveEntry>& online_preference_objectives();

/// A loss over given answers, picked by name, with its settings.
///
///     OfflineLoss loss("dpo");                                      // its defaults
///     config_set(config_fields(loss), "loss_type=sigmoid,sft");     // RPO
///     OfflineObjective objective = loss.build();
///     OfflineNeeds needs = loss.needs();
class OfflineLoss : public PickedLoss<OfflineObjectiveEntry> {
 public:
  /// @throws Error for an unknown name, with the nearest known one.
  explicit OfflineLoss(std::string_view name = "sft",
                       std::span<const OfflineObjectiveEntry> table = offline_objectives())
      : PickedLoss(name, table) {}

  void select(std::string_view name,
              std::span<const OfflineObjectiveEntry> table = offline_objectives()) {
    PickedLoss::select(name, table);
  }
  /// @throws Error naming a setting that is out of range or does not go with another.
  [[nodiscard]] OfflineObjective build() const { return settings().build(); }
  /// What the loss reads with the present settings. @throws Error as `build` does.
  [[nodiscard]] OfflineNeeds needs() const { return settings().needs(); }
};

}  // namespace temper
