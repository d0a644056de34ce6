#include "cache.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/data/dataset.h"

namespace restaurant {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSettingsFile = "settings.txt";

template <class T>
void add_to(temper::StableHash& hash, const std::vector<T>& values) {
  const uint64_t count = values.size();
  hash.update({reinterpret_cast<const char*>(&count), sizeof(count)});
  hash.update({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

std::string read_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Json key_of(const std::string& settings, const std::vector<Trial>& trials) {
  temper::StableHash hash;
  for (const Trial& t : trials) {
    add_to(hash, std::vector<size_t>{t.guest});
    add_to(hash, t.places);
  }
  return {settings, hash.value()};
}

}  // namespace

std::string settings_of(const std::string& model, const SurveyTokens& tokens,
                        const std::vector<Preference>& preferences, const TrainConfig& config) {
  temper::StableHash hash;
  for (const auto* texts : {&tokens.prompts, &tokens.cards}) {
    for (const auto& ids : *texts) add_to(hash, ids);
  }
  add_to(hash, preferences);
  return temper::concat(config.method, " on ", model, ", rank ", config.rank, ", ", config.steps,
                        " steps of ", config.pairs_per_step, " pairs, learning rate ",
                        config.learning_rate, ", seed ", config.seed, ", data ", hash.value(), "\n");
}

bool has_adapter(const fs::path& folder, const std::string& settings) {
  const fs::path file = folder / kSettingsFile, weights = folder / "adapter_model.safetensors";
  if (read_text(file) == settings && fs::exists(weights)) return true;
  fs::create_directories(folder);
  fs::remove(weights);
  temper::write_file_atomically(file, settings);
  return false;
}

std::optional<TrialScores> load_scores(const fs::path& file, const std::string& settings,
                                       const std::vector<Trial>& trials) {
  const Json saved = Json::parse(read_text(file), nullptr, false);
  if (!saved.is_object() || saved.value("key", Json()) != key_of(settings, trials)) {
    return std::nullopt;
  }
  TrialScores out;
  for (const Json& trial : saved.at("scores")) {
    out.emplace_back();
    for (const Json& card : trial) {
      out.back().push_back({card.at(0).get<double>(), card.at(1).get<int64_t>()});
    }
  }
  return out;
}

void save_scores(const fs::path& file, const std::string& settings,
                 const std::vector<Trial>& trials, const TrialScores& scores) {
  Json rows = Json::array();
  for (const auto& trial : scores) {
    Json& row = rows.emplace_back(Json::array());
    for (const CardScore& card : trial) row.push_back({card.sum, card.tokens});
  }
  fs::create_directories(file.parent_path());
  temper::write_file_atomically(file, Json{{"key", key_of(settings, trials)}, {"scores", rows}}.dump());
}

}  // namespace restaurant
