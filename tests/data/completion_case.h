#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data_test_util.h"
#include "temper/data/completions.h"

namespace temper {

inline CompletionData parse(const std::string& text, const CompletionReadOptions& options = {}) {
  return parse_completions(text, "f.jsonl", options);
}

inline std::string refusal(const std::string& text, const CompletionReadOptions& options = {}) {
  return error_of([&] { (void)parse(text, options); });
}

inline void expect_words(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& w : words) EXPECT_NE(text.find(w), std::string::npos) << w << " in: " << text;
}

inline nlohmann::json message(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

}  // namespace temper
