#pragma once

#include <string>

#include "row_reader.h"
#include "temper/data/dataset.h"

namespace temper::detail {

/// Turns the text of one row into an example. `row.text` may be rewritten (lossy UTF-8).
/// @throws Error with the position in `name` and the key.
[[nodiscard]] Example parse_row(Row& row, const std::string& name, const ReadOptions& options);

}  // namespace temper::detail
