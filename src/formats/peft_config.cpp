// adapter_config.json.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "json_util.h"
#include "temper/core/error.h"
#include "temper/core/safe_regex.h"
#include "temper/formats/peft.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxValues = 5'000;  // an ordered object finds keys by walking
constexpr double kMaxAlpha = 1e9;

bool ends_at_part(std::string_view module, std::string_view end) {
  if (!module.ends_with(end)) return false;
  return module.size() == end.size() || module[module.size() - end.size() - 1] == '.';
}

bool pattern_matches(std::string_view key, std::string_view module) {
  return key.starts_with('^') ? key.substr(1) == module : ends_at_part(module, key);
}

template <class T>
T pattern_value(const std::vector<std::pair<std::string, T>>& pattern, std::string_view module,
                T fallback) {
  for (const auto& [key, value] : pattern) {
    if (pattern_matches(key, module)) return value;
  }
  return fallback;
}

/// Keys are regular expressions in PEFT; here they must mean themselves.
bool is_plain_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

void check_pattern_key(std::string_view what, std::string_view key) {
  TEMPER_CHECK(is_plain_name(key.starts_with('^') ? key.substr(1) : key), "[adapter] ", what,
               ": \"", key, "\" is no name or end of a module path; regular expressions are not ",
               "supported");
}

/// What an option is when it is off: null, false, 0 or nothing in it.
bool is_off(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  return value.is_null() || ((value.is_array() || value.is_object()) && value.empty());
}

/// Keys that are read, or that say nothing about the numbers of an adapter that was saved.
constexpr std::string_view kKnown[] = {
    "peft_type",      "task_type",           "r",
    "lora_alpha",     "lora_dropout",        "target_modules",
    "rank_pattern",   "alpha_pattern",       "use_rslora",
    "bias",           "init_lora_weights",   "base_model_name_or_path",
    "auto_mapping",   "peft_version",        "revision",
    "inference_mode", "layers_to_transform", "layers_pattern",
    "megatron_core",  "qalora_group_size",   "exclude_modules",
    "eva_config",     "runtime_config",      "use_dora",
    "modules_to_save"};

/// Ways to draw the first A and B that leave the base's weights as they are.
constexpr std::string_view kPlainInits[] = {"gaussian", "eva", "orthogonal"};

/// The scalar head of a scoring model is saved whole; PEFT lists it by its possible names.
void check_saved_modules(const detail::JsonObject& object, bool scores) {
  const Json* saved = object.find("modules_to_save");
  if (saved == nullptr || is_off(*saved)) return;
  const bool heads = scores && saved->is_array() &&
                     std::all_of(saved->begin(), saved->end(), [](const Json& name) {
                       return name == "score" || name == "classifier";
                     });
  TEMPER_CHECK(heads, "[adapter] ", object.source(), ": modules_to_save is ", saved->dump(),
               "; only the head of a scoring model (task_type SEQ_CLS) is supported");
}

void check_supported(const Json& json, const detail::JsonObject& object) {
  const std::string& source = object.source();
  const auto must_be = [&](const char* key, std::string_view only) {
    const auto text = object.text(key);
    TEMPER_CHECK(!text || *text == only, "[adapter] ", source, ": ", key, " is \"", *text,
                 "\"; only \"", only, "\" is supported");
  };
  TEMPER_CHECK(object.text("peft_type") == "LORA", "[adapter] ", source, ": peft_type is ",
               object.text("peft_type").value_or("missing"), "; only LORA is supported");
  const auto task = object.text("task_type");
  TEMPER_CHECK(!task || *task == "CAUSAL_LM" || *task == "SEQ_CLS", "[adapter] ", source,
               ": task_type is \"", *task, "\"; only CAUSAL_LM and SEQ_CLS are supported");
  check_saved_modules(object, task == "SEQ_CLS");
  must_be("bias", "none");
  if (const Json* init = object.find("init_lora_weights"); init != nullptr) {
    const bool plain =
        init->is_boolean() ||
        (init->is_string() &&
         std::ranges::find(kPlainInits, init->get<std::string>()) != std::end(kPlainInits));
    TEMPER_CHECK(plain, "[adapter] ", source, ": init_lora_weights is ", init->dump(),
                 ", which changes the base's weights too: that is not supported");
  }
  for (const auto& [key, value] : json.items()) {
    const bool known = std::ranges::find(kKnown, key) != std::end(kKnown);
    TEMPER_CHECK(known || is_off(value), "[adapter] ", source, ": ", key, " is ",
                 value.is_structured() ? "set" : value.dump(), ": that is not supported");
  }
}

/// "all-linear", a list of names, or a regular expression. With none of them the weight file says
/// it all.
void read_targets(const detail::JsonObject& object, AdapterConfig& config) {
  const Json* targets = object.find("target_modules");
  config.target_modules.clear();
  if (targets == nullptr) return;
  if (targets->is_string()) {
    const auto text = targets->get<std::string>();
    text == "all-linear" ? config.target_modules.push_back(text)
                         : static_cast<void>(config.target_pattern = text);
    return;
  }
  TEMPER_CHECK(targets->is_array() && !targets->empty(), "[adapter] ", object.source(),
               ": target_modules must be a list of names or a string");
  for (const Json& name : *targets) {
    TEMPER_CHECK(name.is_string(), "[adapter] ", object.source(),
                 ": target_modules must list strings, got ", name.type_name());
    config.target_modules.push_back(name.get<std::string>());
  }
}

template <class T, class Read>
std::vector<std::pair<std::string, T>> read_pattern(const detail::JsonObject& object,
                                                    const char* key, const Read& read) {
  std::vector<std::pair<std::string, T>> out;
  const Json* pattern = object.find(key);
  if (pattern == nullptr) return out;
  const detail::JsonObject values(*pattern, concat(object.source(), " ", key));
  for (const auto& [name, unused] : pattern->items()) {
    const auto value = read(values, name);
    TEMPER_CHECK(value, "[adapter] ", values.source(), ": ", name, " is null");
    out.emplace_back(name, *value);
  }
  return out;
}

/// 16 rather than 16.0, as PEFT's own files have it.
Json number(double value) {
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

}  // namespace

void AdapterConfig::validate() const {
  const auto check_rank = [](std::string_view name, int64_t rank) {
    TEMPER_CHECK(rank >= 1 && rank <= kMaxAdapterRank, "[adapter] ", name, " must be in [1, ",
                 kMaxAdapterRank, "], got ", rank);
  };
  const auto check_alpha = [](std::string_view name, double value) {
    TEMPER_CHECK(value > 0 && value <= kMaxAlpha, "[adapter] ", name, " must be in (0, ", kMaxAlpha,
                 "], got ", value);
  };
  check_rank("r", r);
  check_alpha("alpha", alpha);
  TEMPER_CHECK(dropout >= 0 && dropout < 1, "[adapter] dropout must be in [0, 1), got ", dropout);
  if (!target_pattern.empty()) (void)SafeRegex(target_pattern);  // It throws where it is wrong.
  for (const auto& [key, rank] : rank_pattern) {
    check_pattern_key("rank_pattern", key);
    check_rank(key, rank);
  }
  for (const auto& [key, value] : alpha_pattern) {
    check_pattern_key("alpha_pattern", key);
    check_alpha(key, value);
  }
}

bool AdapterConfig::targets(std::string_view module) const {
  if (!target_pattern.empty()) return SafeRegex(target_pattern).matches(module);
  if (target_modules == std::vector<std::string>{"all-linear"}) return true;
  return std::any_of(target_modules.begin(), target_modules.end(),
                     [&](const std::string& name) { return ends_at_part(module, name); });
}

int64_t AdapterConfig::rank_of(std::string_view module) const {
  return pattern_value(rank_pattern, module, r);
}

double AdapterConfig::scale_of(std::string_view module) const {
  const auto rank = static_cast<double>(rank_of(module));
  return pattern_value(alpha_pattern, module, alpha) / (use_rslora ? std::sqrt(rank) : rank);
}

AdapterConfig parse_adapter_config(std::string_view json_text, std::string_view source) {
  const Json json = detail::parse_small_json<Json>(json_text, source, kMaxValues);
  const detail::JsonObject object(json, std::string(source));
  check_supported(json, object);
  AdapterConfig c;
  c.r = object.integer("r", 1, kMaxAdapterRank).value_or(8);
  c.alpha = object.number("lora_alpha", 0, kMaxAlpha).value_or(8);
  c.dropout = object.number("lora_dropout", 0, 1).value_or(0);
  c.use_rslora = object.boolean("use_rslora", false);
  c.use_dora = object.boolean("use_dora", false);
  c.scores = object.text("task_type") == "SEQ_CLS";
  c.base_model = object.text("base_model_name_or_path").value_or("");
  read_targets(object, c);
  // Then only some of the modules that the targets name are adapted: the weight file says which.
  for (const char* key : {"layers_to_transform", "exclude_modules"}) {
    if (const Json* value = object.find(key); value != nullptr && *value != Json::array()) {
      c.target_modules.clear();
      c.target_pattern.clear();
    }
  }
  c.rank_pattern = read_pattern<int64_t>(object, "rank_pattern", [](const auto& o, const auto& k) {
    return o.integer(k, 1, kMaxAdapterRank);
  });
  c.alpha_pattern = read_pattern<double>(object, "alpha_pattern", [](const auto& o, const auto& k) {
    return o.number(k, 0, kMaxAlpha);
  });
  try {
    c.validate();
  } catch (const Error& e) {
    fail(source, ": ", e.what());
  }
  return c;
}

std::string adapter_config_json(const AdapterConfig& c) {
  Json ranks = Json::object(), alphas = Json::object();
  for (const auto& [key, rank] : c.rank_pattern) ranks[key] = rank;
  for (const auto& [key, alpha] : c.alpha_pattern) alphas[key] = number(alpha);
  const bool all = c.target_modules == std::vector<std::string>{"all-linear"};
  const Json listed = all ? Json("all-linear") : Json(c.target_modules);
  const Json json{
      {"peft_type", "LORA"},
      {"task_type", c.scores ? "SEQ_CLS" : "CAUSAL_LM"},
      {"base_model_name_or_path", c.base_model.empty() ? Json(nullptr) : Json(c.base_model)},
      {"inference_mode", true},
      {"r", c.r},
      {"lora_alpha", number(c.alpha)},
      {"lora_dropout", c.dropout},
      {"target_modules", c.target_pattern.empty() ? listed : Json(c.target_pattern)},
      {"rank_pattern", ranks},
      {"alpha_pattern", alphas},
      {"use_rslora", c.use_rslora},
      {"use_dora", c.use_dora},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"modules_to_save", c.scores ? Json{"classifier", "score"} : Json(nullptr)},
      {"init_lora_weights", true}};
  return detail::dump_json(json, "adapter_config.json");
}

}  // namespace temper
