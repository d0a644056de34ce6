#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace temper {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};

template <class V>
using StringMap = std::unordered_map<std::string, V, StringHash, std::equal_to<>>;

/// Tokens and their ids. Ids may have gaps.
class Vocabulary {
 public:
  static constexpr int64_t kMaxId = (1 << 21) - 1;

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;  // a copy would point into the original
  Vocabulary& operator=(Vocabulary&&) = default;

  /// @return false if the token is there already or the id is taken. Needs 0 <= id <= kMaxId.
  bool add(std::string token, int32_t id);

  [[nodiscard]] std::optional<int32_t> id(std::string_view token) const;
  /// Null for an id that has no token.
  [[nodiscard]] const std::string* token(int32_t id) const;
  /// How many tokens there are.
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  /// The least n with every id in [0, n).
  [[nodiscard]] int64_t id_end() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  StringMap<int32_t> ids_;
  std::vector<const std::string*> tokens_;  // keys of ids_, whose addresses are stable
};

}  // namespace temper
