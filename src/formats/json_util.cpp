#include "json_util.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "temper/core/error.h"

namespace temper::detail {
namespace {
constexpr int kMaxDepth = 32;
constexpr size_t kMaxTokenIds = 4096;
using OrderedJson = nlohmann::ordered_json;
}  // namespace

template <class Json>
Json parse_small_json(std::string_view text, std::string_view source, size_t max_values) {
  size_t values = 0;
  const auto guard = [&](int depth, typename Json::parse_event_t, Json&) {
    TEMPER_CHECK(depth <= kMaxDepth, source, ": JSON nested deeper than ", kMaxDepth, " levels");
    TEMPER_CHECK(++values <= max_values, source, ": more than ", max_values, " JSON values");
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), guard);
  } catch (const nlohmann::json::parse_error& error) {
    fail(source, ": not valid JSON near byte ", error.byte);
  } catch (const nlohmann::json::exception&) {
    fail(source, ": JSON with a number that is out of range");
  }
}

template OrderedJson parse_small_json<OrderedJson>(std::string_view, std::string_view, size_t);
template nlohmann::json parse_small_json<nlohmann::json>(std::string_view, std::string_view,
                                                         size_t);

std::string dump_json(const OrderedJson& json, std::string_view source) {
  try {
    return json.dump(2) + "\n";
  } catch (const nlohmann::json::exception&) {
    fail(source, ": text that is not valid UTF-8 cannot be written as JSON");
  }
}

JsonObject::JsonObject(const OrderedJson& json, std::string source)
    : json_(json), source_(std::move(source)) {
  TEMPER_CHECK(json.is_object(), source_, ": expected a JSON object, got ", json.type_name());
}

const OrderedJson* JsonObject::find(std::string_view key) const {
  const auto at = json_.find(std::string(key));
  return at == json_.end() || at->is_null() ? nullptr : &*at;
}

bool JsonObject::is_null(std::string_view key) const {
  const auto at = json_.find(std::string(key));
  return at != json_.end() && at->is_null();
}

std::optional<int64_t> JsonObject::integer(std::string_view key, int64_t low, int64_t high) const {
  const OrderedJson* value = find(key);
  if (value == nullptr) return std::nullopt;
  TEMPER_CHECK(value->is_number_integer(), source_, ": ", key, " must be an integer, got ",
               value->type_name());
  const bool huge = value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
  TEMPER_CHECK(!huge && value->get<int64_t>() >= low && value->get<int64_t>() <= high, source_,
               ": ", key, " must be in [", low, ", ", high, "], got ", value->dump());
  return value->get<int64_t>();
}

std::optional<double> JsonObject::number(std::string_view key, double low, double high) const {
  const OrderedJson* value = find(key);
  if (value == nullptr) return std::nullopt;
  TEMPER_CHECK(value->is_number(), source_, ": ", key, " must be a number, got ",
               value->type_name());
  const double number = value->get<double>();
  TEMPER_CHECK(std::isfinite(number) && number >= low && number <= high, source_, ": ", key,
               " must be in [", low, ", ", high, "], got ", number);
  return number;
}

bool JsonObject::boolean(std::string_view key, bool fallback) const {
  const OrderedJson* value = find(key);
  if (value == nullptr) return fallback;
  TEMPER_CHECK(value->is_boolean(), source_, ": ", key, " must be true or false, got ",
               value->type_name());
  return value->get<bool>();
}

std::optional<std::string> JsonObject::text(std::string_view key) const {
  const OrderedJson* value = find(key);
  if (value == nullptr) return std::nullopt;
  TEMPER_CHECK(value->is_string(), source_, ": ", key, " must be a string, got ",
               value->type_name());
  return value->get<std::string>();
}

std::vector<int32_t> JsonObject::token_ids(std::string_view key) const {
  std::vector<int32_t> ids;
  const OrderedJson* value = find(key);
  if (value == nullptr) return ids;
  const OrderedJson list = value->is_array() ? *value : OrderedJson::array({*value});
  TEMPER_CHECK(list.size() <= kMaxTokenIds, source_, ": ", key, " lists ", list.size(), " ids");
  for (const OrderedJson& item : list) {
    const OrderedJson one{{std::string(key), item}};
    const auto id = JsonObject(one, source_).integer(key, INT32_MIN, INT32_MAX);
    TEMPER_CHECK(id.has_value(), source_, ": ", key, " must not list null");
    if (*id >= 0) ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

std::optional<int32_t> JsonObject::token_id(std::string_view key) const {
  const std::vector<int32_t> ids = token_ids(key);
  return ids.empty() ? std::nullopt : std::optional(ids.front());
}

}  // namespace temper::detail
