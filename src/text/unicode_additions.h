#pragma once

#include <string>
#include <string_view>

namespace temper {

/// The items of a PCRE2 character class that equal a general category ("L", "Nd" ...) or a script
/// ("Han" ...) in Unicode 16, also where the library's own tables end with Unicode 14. Empty if the
/// name is not known. The items are usable inside negated classes too.
[[nodiscard]] std::string class_items_of_category(std::string_view name);
[[nodiscard]] std::string class_items_of_script(std::string_view name);

/// Whether a code point was assigned after Unicode 14, to this general category ("L", "Nd" ...).
[[nodiscard]] bool is_later_addition(char32_t c, std::string_view category);

}  // namespace temper
