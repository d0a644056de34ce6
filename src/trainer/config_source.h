// How every run reads its settings: a JSON file's content, then assignments.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "temper/core/config.h"
#include "temper/core/error.h"

namespace temper {

/// @return an empty object for an empty text. @throws Error naming the source.
[[nodiscard]] inline nlohmann::ordered_json parse_config(const std::string& text,
                                                         const std::string& source) {
  if (text.empty()) return nlohmann::ordered_json::object();
  try {
    return nlohmann::ordered_json::parse(text);
  } catch (const nlohmann::ordered_json::parse_error& e) {
    fail(source, ": not valid JSON: ", e.what());
  }
}

/// What the file says over the config's present values, and the assignments over that.
template <class Config>
void apply_settings(Config& config, const nlohmann::ordered_json& json, const std::string& source,
                    const std::vector<std::string>& assignments) {
  config_from_json(config_fields(config), json, source);
  for (const auto& a : assignments) config_set(config_fields(config), a);
}

/// The complete configuration as JSON text.
template <class Config>
[[nodiscard]] std::string text_of(Config& config) {
  return config_to_json(config_fields(config)).dump(2) + "\n";
}

}  // namespace temper
