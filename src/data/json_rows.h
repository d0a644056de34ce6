#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "row_reader.h"
#include "temper/data/dataset.h"

namespace temper::detail {

/// Turns the text of one row into an example. `row.text` may be rewritten (lossy UTF-8).
/// @throws Error with the position in `name` and the key.
[[nodiscard]] Example parse_row(Row& row, const std::string& name, const ReadOptions& options);

/// The JSON object of one row: UTF-8, nesting and syntax are checked. May rewrite `row.text`.
[[nodiscard]] nlohmann::json parse_object(Row& row, const std::string& name, bool lossy_utf8);

/// Checks UTF-8; in lossy mode each bad byte becomes U+FFFD.
void check_utf8(Row& row, const std::string& name, bool lossy);

/// A message {"role", "content"}. `where` and `key` are for error messages: "file:line:column" and
/// "chosen[1]".
[[nodiscard]] ChatMessage read_message(const nlohmann::json& value, const std::string& where,
                                       const std::string& key);

/// @throws Error that says what a key was expected to hold and what it holds.
[[noreturn]] void refuse_value(const std::string& where, const std::string& key,
                               std::string_view expected, const nlohmann::json& got);

/// What a value is, in words: "an object".
[[nodiscard]] std::string_view type_words(const nlohmann::json& value);

/// The first keys of a row, for messages: names of columns, never their contents.
[[nodiscard]] std::string key_names(const nlohmann::json& object);

/// What reading all rows of a source came to.
struct RowsRead {
  uint64_t content_hash = 0;
  uint64_t skipped = 0;
  std::vector<std::string> problems;
};

/// What was wrong, a line each, for the end of a warning about `count` rows.
[[nodiscard]] std::string listed(const std::vector<std::string>& problems, uint64_t count);

/// Calls `take` for each row, up to `options.max_rows`; an Error that it throws names the row, and
/// is counted instead under `options.skip_bad`. @throws Error where no row is left.
[[nodiscard]] RowsRead read_each_row(ByteSource source, const std::string& name,
                                     const ReadOptions& options,
                                     const std::function<void(Row&)>& take);

/// The bytes of a text in memory, which must outlive the source.
[[nodiscard]] ByteSource text_bytes(std::string_view text);

}  // namespace temper::detail
