#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "temper/core/error.h"

// Checked access to the JSON of a tokenizer file. `where` names the file and the part, such as
// "[tokenizer.json] m/tokenizer.json: pre_tokenizer".
namespace temper {

using Json = nlohmann::json;

inline constexpr int kMaxPartDepth = 8;       // Sequences inside Sequences
inline constexpr size_t kMaxPartItems = 256;  // steps of a Sequence

// A chain of steps may not grow a text beyond these: a hostile file could double it at every step.
inline constexpr size_t kMaxTextGrowth = 16;
inline constexpr size_t kMinTextCap = 1 << 20;

inline const Json& member(const Json& object, const char* key, const std::string& where) {
  TEMPER_CHECK(object.is_object(), where, " must be an object, not ", object.type_name());
  const auto it = object.find(key);
  TEMPER_CHECK(it != object.end(), where, " has no \"", key, "\"");
  return *it;
}

inline const std::string& string_member(const Json& object, const char* key,
                                        const std::string& where) {
  const Json& value = member(object, key, where);
  TEMPER_CHECK(value.is_string(), where, ": \"", key, "\" must be a string, not ",
               value.type_name());
  return value.get_ref<const std::string&>();
}

/// A boolean; `fallback` where the key is missing or null.
inline bool bool_member(const Json& object, const char* key, bool fallback,
                        const std::string& where) {
  TEMPER_CHECK(object.is_object(), where, " must be an object, not ", object.type_name());
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return fallback;
  TEMPER_CHECK(it->is_boolean(), where, ": \"", key, "\" must be true or false, not ",
               it->type_name());
  return it->get<bool>();
}

/// An integer in [0, limit].
inline int64_t checked_integer(const Json& value, int64_t limit, const std::string& where) {
  TEMPER_CHECK(value.is_number_integer(), where, " must be an integer, not ", value.type_name());
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= static_cast<uint64_t>(limit)
                        : value.get<int64_t>() >= 0;
  TEMPER_CHECK(fits, where, " must be in [0, ", limit, "], got ", value.dump());
  return value.get<int64_t>();
}

/// The array of a Sequence's parts, after the checks that bound the recursion over it.
inline const Json& sequence_parts(const Json& object, const char* key, int depth,
                                  const std::string& where) {
  const Json& parts = member(object, key, where);
  TEMPER_CHECK(parts.is_array(), where, ": \"", key, "\" must be an array");
  TEMPER_CHECK(depth < kMaxPartDepth, where, ": sequences are nested more than ", kMaxPartDepth,
               " deep");
  TEMPER_CHECK(parts.size() <= kMaxPartItems, where, ": a sequence of ", parts.size(),
               " parts; at most ", kMaxPartItems, " are accepted");
  return parts;
}

}  // namespace temper
