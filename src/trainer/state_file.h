// The counters of a checkpoint, as trainers read them back.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {

inline constexpr const char* kStateFile = "trainer.json";

/// The state file of a checkpoint folder. @throws Error unless it is a JSON object.
[[nodiscard]] inline nlohmann::ordered_json read_state(const std::filesystem::path& folder) {
  auto state = nlohmann::ordered_json::parse(read_text_file(folder / kStateFile), nullptr, false);
  TEMPER_CHECK(state.is_object(), "[resume] ", (folder / kStateFile).string(),
               " is not a JSON object");
  return state;
}

/// A number of it. @throws Error naming the key where there is none.
template <class T>
[[nodiscard]] T required(const nlohmann::ordered_json& state, const char* key) {
  const auto it = state.find(key);
  TEMPER_CHECK(it != state.end() && it->is_number(), "[resume] ", kStateFile, " has no number \"",
               key, "\"");
  return it->get<T>();
}

}  // namespace temper
