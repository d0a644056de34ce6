#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "temper/core/config.h"
#include "temper/core/error.h"

namespace temper {

/// One row of a table of losses picked by name, together with its settings: a config part like any
/// other, and copyable. `Entry` has `name`, `Settings` and a function `settings` that makes fresh
/// ones; `Settings` has `visit` and `clone`.
///
/// Which settings exist depends on the name. Read the name first (`select`), then the fields; a
/// `name` field that then says something else is an error when the loss is built.
template <class Entry>
class PickedLoss {
 public:
  using Settings = typename Entry::Settings;

  PickedLoss(std::string_view name, std::span<const Entry> table) { select(name, table); }
  PickedLoss(const PickedLoss& other)
      : name_(other.name_),
        selected_(other.selected_),
        choices_(other.choices_),
        settings_(other.settings_->clone()) {}
  PickedLoss& operator=(const PickedLoss& other) {
    if (this != &other) *this = PickedLoss(other);
    return *this;
  }
  PickedLoss(PickedLoss&&) noexcept = default;
  PickedLoss& operator=(PickedLoss&&) noexcept = default;
  ~PickedLoss() = default;

  /// Takes the named loss with its defaults; settings made before are dropped, unless the name is
  /// already that one. @throws Error for an unknown name, with the nearest known one.
  void select(std::string_view name, std::span<const Entry> table);
  [[nodiscard]] const std::string& name() const { return name_; }

  /// Declares `name` and then the selected loss's fields.
  void visit(ConfigVisitor& visitor) {
    visitor(name_, "name", "The loss; its other settings depend on it.", choices_);
    settings_->visit(visitor);
  }
  /// A number among its settings; 0 where the loss has none of that name.
  [[nodiscard]] double setting(std::string_view name) const;
  /// The settings. @throws Error if `name` was set to a loss that they do not belong to.
  [[nodiscard]] const Settings& settings() const {
    TEMPER_CHECK(name_ == selected_, "[loss] the settings were read for \"", selected_,
                 "\", then the name was set to \"", name_,
                 "\"; select the loss before its settings");
    return *settings_;
  }

 private:
  std::string name_;      ///< The field.
  std::string selected_;  ///< The loss that `settings_` belongs to.
  std::vector<std::string> choices_;
  std::unique_ptr<Settings> settings_;
};

template <class Entry>
void PickedLoss<Entry>::select(std::string_view name, std::span<const Entry> table) {
  std::vector<std::string> known;
  const Entry* found = nullptr;
  for (const Entry& entry : table) {
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

template <class Entry>
double PickedLoss<Entry>::setting(std::string_view name) const {
  PickedLoss copy = *this;
  for (const ConfigField& f : config_fields(copy)) {
    const bool number = std::holds_alternative<double*>(f.value);
    if (number && f.name == name) return *std::get<double*>(f.value);
  }
  return 0;
}

}  // namespace temper
