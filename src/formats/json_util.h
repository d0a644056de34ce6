#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper::detail {

/// Parses a small JSON document (a config, an index).
/// @throws Error naming `source` when it is no JSON, or deeper or larger than such files ever are.
template <class Json>
[[nodiscard]] Json parse_small_json(std::string_view text, std::string_view source,
                                    size_t max_values);

/// `json.dump(2)` with a newline. @throws Error naming `source` for text that is not UTF-8.
[[nodiscard]] std::string dump_json(const nlohmann::ordered_json& json, std::string_view source);

/// Reads the keys of one JSON object with errors that name `source` and the key. A key that is
/// absent and one that is null are told apart only by `is_null`.
class JsonObject {
 public:
  JsonObject(const nlohmann::ordered_json& json, std::string source);

  /// The value, or nullptr when the key is absent or null.
  [[nodiscard]] const nlohmann::ordered_json* find(std::string_view key) const;
  [[nodiscard]] bool is_null(std::string_view key) const;
  [[nodiscard]] std::optional<int64_t> integer(std::string_view key, int64_t low,
                                               int64_t high) const;
  /// Finite and in [low, high].
  [[nodiscard]] std::optional<double> number(std::string_view key, double low, double high) const;
  [[nodiscard]] bool boolean(std::string_view key, bool fallback) const;
  [[nodiscard]] std::optional<std::string> text(std::string_view key) const;
  /// One id or a list of them, each in [0, 2^31); a negative id means "none" and is dropped.
  [[nodiscard]] std::vector<int32_t> token_ids(std::string_view key) const;
  [[nodiscard]] std::optional<int32_t> token_id(std::string_view key) const;
  [[nodiscard]] const std::string& source() const { return source_; }

 private:
  const nlohmann::ordered_json& json_;
  std::string source_;
};

}  // namespace temper::detail
