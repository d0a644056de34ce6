#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace temper {

/// One declared setting of a config struct: where it lives, what it is called, what it means.
struct ConfigField {
  using Value = std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*,
                             std::vector<double>*>;
  std::string name;  ///< Dotted path from the root, such as "grpo.group_size".
  std::string help;  ///< One sentence with the unit and the range.
  Value value;
  std::vector<std::string> choices;  ///< For strings: the accepted words; empty means any.
};

/// Collects fields; a config struct's `visit` calls it once for each of its members:
///
///     template <class V> void visit(V&& v) {
///       v(clip, "clip", "Clip range of the ratio, in (0, 1).");
///       v(loss, "loss", "Loss.", {"dapo", "grpo"});
///       v(optimizer, "optimizer");               // a nested struct with a visit of its own
///     }
class ConfigVisitor {
 public:
  template <class T>
  void operator()(T& member, std::string_view name, std::string_view help,
                  std::vector<std::string> choices = {}) {
    fields_.push_back(
        {prefix_ + std::string(name), std::string(help), &member, std::move(choices)});
  }
  template <class T>
  void operator()(T& nested, std::string_view name) {
    const std::string saved = prefix_;
    prefix_ += std::string(name) + ".";
    nested.visit(*this);
    prefix_ = saved;
  }
  [[nodiscard]] std::vector<ConfigField> take() { return std::move(fields_); }

 private:
  std::string prefix_;
  std::vector<ConfigField> fields_;
};

/// All fields of a config struct, nested ones with dotted names, in declaration order.
/// The pointers stay valid as long as `config` does.
template <class T>
[[nodiscard]] std::vector<ConfigField> config_fields(T& config) {
  ConfigVisitor v;
  config.visit(v);
  return v.take();
}

/// Nested JSON object with every field, in declaration order.
[[nodiscard]] nlohmann::ordered_json config_to_json(const std::vector<ConfigField>& fields);

/// Reads a nested JSON object into the fields; absent keys keep their values.
/// @throws Error for an unknown key (naming the nearest known one), a wrong type (naming the key,
/// what was expected and what came) or a word outside a field's choices.
void config_from_json(const std::vector<ConfigField>& fields, const nlohmann::ordered_json& json,
                      std::string_view source);

/// Applies one "a.b=value" assignment. @throws Error as `config_from_json` does.
void config_set(const std::vector<ConfigField>& fields, std::string_view assignment);

/// A table of name, default and help, one line a field.
[[nodiscard]] std::string config_help(const std::vector<ConfigField>& fields);

}  // namespace temper
