#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "passages.h"
#include "temper/data/completions.h"

namespace temper::detail {

/// What a row is by its keys. @throws Error naming its keys when it is nothing known.
[[nodiscard]] DataForm detect_form(const nlohmann::json& object, const std::string& where,
                                   const CompletionReadOptions& options);

/// The record of a row that is no pair, without `weight`, `tools_json`, `line` and `id`. Its
/// completion may have no words.
[[nodiscard]] CompletionRecord record_of_row(const nlohmann::json& object, const RowContext& row,
                                             const CompletionReadOptions& options, DataForm form);

/// The columns that rows of any form may have: weight and tools.
void read_row_columns(CompletionRecord& record, const nlohmann::json& object, const RowContext& row,
                      const CompletionReadOptions& options);

}  // namespace temper::detail
