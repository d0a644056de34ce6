#include "temper/core/config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
constexpr std::string_view type_words() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, int64_t>) return "a whole number";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (std::is_same_v<T, std::vector<std::string>>) return "a list of strings";
  if constexpr (std::is_same_v<T, std::vector<double>>) return "a list of numbers";
}

template <class T>
bool matches(const Json& j) {
  if constexpr (std::is_same_v<T, bool>) return j.is_boolean();
  if constexpr (std::is_same_v<T, int64_t>) {
    return j.is_number_integer() ||
           (j.is_number_float() && j.get<double>() == static_cast<double>(j.get<int64_t>()));
  }
  if constexpr (std::is_same_v<T, double>) return j.is_number();
  if constexpr (std::is_same_v<T, std::string>) return j.is_string();
  if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return j.is_array() &&
           std::all_of(j.begin(), j.end(), [](const Json& e) { return e.is_string(); });
  }
  if constexpr (std::is_same_v<T, std::vector<double>>) {
    return j.is_array() &&
           std::all_of(j.begin(), j.end(), [](const Json& e) { return e.is_number(); });
  }
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : ", ") + w;
  return out;
}

void check_choice(const ConfigField& field, const std::string& word, std::string_view source) {
  const auto& c = field.choices;
  if (c.empty() || std::find(c.begin(), c.end(), word) != c.end()) return;
  fail(source, ": ", field.name, " must be one of {", join(c), "}, got \"", word, "\"");
}

void assign(const ConfigField& field, const Json& j, std::string_view source) {
  std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        TEMPER_CHECK(matches<T>(j), source, ": ", field.name, " expects ", type_words<T>(),
                     ", got ", j.dump().substr(0, 80));
        *target = j.get<T>();
        if constexpr (std::is_same_v<T, std::string>) check_choice(field, *target, source);
        if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          for (const auto& word : *target) check_choice(field, word, source);
        }
      },
      field.value);
}

[[noreturn]] void unknown_key(const std::vector<ConfigField>& fields, const std::string& name,
                              std::string_view source) {
  std::vector<std::string> names;
  for (const auto& f : fields) {
    names.push_back(f.name);
    for (size_t dot = f.name.find('.'); dot != std::string::npos; dot = f.name.find('.', dot + 1)) {
      names.push_back(f.name.substr(0, dot));
    }
  }
  std::string near = nearest_name(name, names);
  if (near.empty()) {  // The last word may be right and its section wrong.
    const std::string last = "." + name.substr(name.rfind('.') + 1);
    for (const auto& n : names) {
      if (n.size() > last.size() && n.ends_with(last)) near = n;
    }
  }
  fail(source, ": unknown key \"", name, "\"",
       near.empty() ? std::string("; --print-config shows every key")
                    : "; did you mean \"" + near + "\"?");
}

const ConfigField* find(const std::vector<ConfigField>& fields, const std::string& name) {
  const auto it = std::find_if(fields.begin(), fields.end(),
                               [&](const ConfigField& f) { return f.name == name; });
  return it == fields.end() ? nullptr : &*it;
}

bool is_section(const std::vector<ConfigField>& fields, const std::string& name) {
  return std::any_of(fields.begin(), fields.end(), [&](const ConfigField& f) {
    return f.name.size() > name.size() && f.name.starts_with(name) && f.name[name.size()] == '.';
  });
}

void apply(const std::vector<ConfigField>& fields, const Json& json, const std::string& prefix,
           std::string_view source) {
  TEMPER_CHECK(json.is_object(), source, ": ",
               prefix.empty() ? "the config" : prefix.substr(0, prefix.size() - 1),
               " must be a JSON object, got ", json.dump().substr(0, 80));
  for (const auto& [key, value] : json.items()) {
    const std::string name = prefix + key;
    if (const ConfigField* field = find(fields, name)) {
      assign(*field, value, source);
    } else if (is_section(fields, name)) {
      apply(fields, value, name + ".", source);
    } else {
      unknown_key(fields, name, source);
    }
  }
}

Json value_json(const ConfigField& field) {
  return std::visit([](auto* p) { return Json(*p); }, field.value);
}

/// The JSON meaning of the text after "=": strings need no quotes, lists may be comma-separated.
Json parse_assignment_value(const ConfigField& field, const std::string& text) {
  if (std::holds_alternative<std::string*>(field.value)) {
    if (text.size() >= 2 && text.front() == '"') {
      Json quoted = Json::parse(text, nullptr, false);
      if (quoted.is_string()) return quoted;
    }
    return text;
  }
  const bool list = std::holds_alternative<std::vector<std::string>*>(field.value) ||
                    std::holds_alternative<std::vector<double>*>(field.value);
  if (list && !text.starts_with('[')) {
    const bool words = std::holds_alternative<std::vector<std::string>*>(field.value);
    Json out = Json::array();
    for (size_t begin = 0; begin <= text.size() && !text.empty();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      const std::string item = text.substr(begin, comma - begin);
      Json number = Json::parse(item, nullptr, false);
      out.push_back(words || number.is_discarded() ? Json(item) : number);
      begin = comma + 1;
    }
    return out;
  }
  Json parsed = Json::parse(text, nullptr, false);
  return parsed.is_discarded() ? Json(text) : parsed;
}

}  // namespace

Json config_to_json(const std::vector<ConfigField>& fields) {
  Json root = Json::object();
  for (const auto& field : fields) {
    Json* at = &root;
    size_t begin = 0;
    for (size_t dot = field.name.find('.'); dot != std::string::npos;
         dot = field.name.find('.', begin)) {
      at = &(*at)[field.name.substr(begin, dot - begin)];
      begin = dot + 1;
    }
    (*at)[field.name.substr(begin)] = value_json(field);
  }
  return root;
}

void config_from_json(const std::vector<ConfigField>& fields, const Json& json,
                      std::string_view source) {
  apply(fields, json, "", source);
}

void config_set(const std::vector<ConfigField>& fields, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  TEMPER_CHECK(equals != std::string_view::npos && equals > 0, "--set expects key=value, got \"",
               assignment, "\"");
  const std::string name(assignment.substr(0, equals));
  const ConfigField* field = find(fields, name);
  if (field == nullptr) unknown_key(fields, name, "--set");
  assign(*field, parse_assignment_value(*field, std::string(assignment.substr(equals + 1))),
         "--set");
}

std::string config_help(const std::vector<ConfigField>& fields) {
  std::string out;
  for (const auto& f : fields) {
    out += "  " + f.name + " = " + value_json(f).dump() + "\n      " + f.help;
    if (!f.choices.empty()) out += " One of: " + join(f.choices) + ".";
    out += "\n";
  }
  return out;
}

}  // namespace temper
