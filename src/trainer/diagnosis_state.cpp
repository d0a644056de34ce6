#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/trainer/diagnosis.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kFormat = 1;

}  // namespace

Json Diagnosis::state() const {
  const auto baseline = [](const Baseline& b) { return Json{{"sum", b.sum}, {"count", b.count}}; };
  Json json;
  json["format"] = kFormat;
  json["streaks"] = Json::object();
  for (const auto& [kind, s] : streaks_) {
    json["streaks"][kind] = {
        {"bad", s.bad}, {"good", s.good}, {"reported", s.reported}, {"stopped", s.stopped}};
  }
  json["entropy"] = baseline(entropy_);
  json["length"] = baseline(length_);
  json["grad"] = baseline(grad_);
  json["kl"] = kl_;
  json["chosen"] = chosen_ ? Json(*chosen_) : Json(nullptr);
  json["reward"] = reward_ ? Json(*reward_) : Json(nullptr);
  return json;
}

void Diagnosis::restore(const Json& state) {
  const auto baseline = [](const Json& json) {
    return Baseline{json.at("sum").get<double>(), json.at("count").get<int64_t>()};
  };
  try {
    const auto format = state.at("format").get<int64_t>();
    TEMPER_CHECK(format == kFormat, "format ", format, ", expected ", kFormat);
    std::map<std::string, Streak> streaks;
    for (const auto& [kind, s] : state.at("streaks").items()) {
      streaks[kind] = {s.at("bad").get<int64_t>(), s.at("good").get<int64_t>(),
                       s.at("reported").get<bool>(), s.at("stopped").get<bool>()};
    }
    auto kl = state.at("kl").get<std::vector<double>>();
    TEMPER_CHECK(kl.size() <= kKlWindow, "kl has ", kl.size(), " values, at most ", kKlWindow);
    const auto number = [&](const char* key) {
      const Json& value = state.at(key);
      return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
    };
    const auto reward = number("reward"), chosen = number("chosen");
    const Baseline entropy = baseline(state.at("entropy"));
    const Baseline length = baseline(state.at("length"));
    grad_ = baseline(state.at("grad"));
    entropy_ = entropy;
    length_ = length;
    streaks_ = std::move(streaks);
    kl_ = std::move(kl);
    reward_ = reward;
    chosen_ = chosen;
  } catch (const std::exception& e) {
    fail("[diagnosis] cannot restore the state: ", e.what());
  }
}

}  // namespace temper
