#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace temper {

/// The `normalizer` of a tokenizer file: a chain of changes to a section of text. Immutable.
class Normalizer {
 public:
  Normalizer() = default;
  /// @throws Error naming `where` and the type of a part that is not known.
  Normalizer(const nlohmann::json& json, const std::string& where);

  [[nodiscard]] bool empty() const { return steps_.empty(); }
  [[nodiscard]] std::string operator()(std::string text) const;

 private:
  using Step = std::function<std::string(std::string)>;
  void add(const nlohmann::json& json, int depth, const std::string& where);
  std::vector<Step> steps_;
};

}  // namespace temper
