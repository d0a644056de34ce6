// Rows of token ids in a checkpoint's JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "temper/data/answers.h"

namespace temper {

[[nodiscard]] nlohmann::ordered_json answer_group_json(const AnswerGroup& group);
/// @throws Error for what is no row.
[[nodiscard]] AnswerGroup parse_answer_group(const nlohmann::ordered_json& json);

}  // namespace temper
