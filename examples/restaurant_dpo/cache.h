#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "recommender.h"

namespace restaurant {

/// Settings in words, with a hash of what the model is to learn: equal words, equal adapter.
[[nodiscard]] std::string settings_of(const std::string& model, const SurveyTokens& tokens,
                                      const std::vector<Preference>& preferences,
                                      const TrainConfig& config);

/// Whether `folder` holds an adapter that was trained to its end under these settings. If not, the
/// settings are written into it, for the adapter that will be saved there.
[[nodiscard]] bool has_adapter(const std::filesystem::path& folder, const std::string& settings);

/// Scores that `save_scores` wrote for the same settings and trials.
[[nodiscard]] std::optional<TrialScores> load_scores(const std::filesystem::path& file,
                                                     const std::string& settings,
                                                     const std::vector<Trial>& trials);
void save_scores(const std::filesystem::path& file, const std::string& settings,
                 const std::vector<Trial>& trials, const TrialScores& scores);

}  // namespace restaurant
