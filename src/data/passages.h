#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "temper/data/preference.h"

namespace temper::detail {

/// What to do about messages with tool calls.
enum class Tools { kRefuse, kKeep };

/// Words of one key, and their messages as they stood in the file.
struct RawPassage {
  Passage words;
  nlohmann::json raw = nlohmann::json::array();  ///< As many as `words.turns`.
};

/// The words under a key; nothing where it is missing or null. Under `kKeep` a message with
/// "tool_calls" may have no content.
[[nodiscard]] std::optional<RawPassage> read_passage(const nlohmann::json& object,
                                                     const std::string& key,
                                                     const std::string& where, Tools tools);

/// Makes a text the one turn of `role`; turns stay.
void make_turns(RawPassage& passage, const std::string& role);

/// Whether `turns` begins with `head` and goes on.
[[nodiscard]] bool begins_with(const std::vector<ChatMessage>& turns,
                               const std::vector<ChatMessage>& head);

/// Whether a message has more than a role and a text.
[[nodiscard]] bool has_more_than_words(const nlohmann::json& messages);

/// An answer without any words.
[[nodiscard]] bool says_nothing(const Passage& side);
/// The same where `whole_json` may hold all messages up to the answer's end, or is empty: an answer
/// that calls a tool says something.
[[nodiscard]] bool says_nothing(const Passage& side, const std::string& whole_json);

/// Column "tools" as the text of one JSON array; empty where there are none.
[[nodiscard]] std::string read_tools(const nlohmann::json& object, const std::string& where);

[[nodiscard]] uint64_t passage_id(const Passage& passage);

/// The number under a key; nothing where it is missing or null. Text is taken for a number only
/// where `object` comes from cells (all values are text).
[[nodiscard]] std::optional<double> read_number(const nlohmann::json& object,
                                                const std::string& key, const std::string& where,
                                                bool cells);

/// A truth value: true, false, 1, 0.
[[nodiscard]] bool read_truth(const nlohmann::json& value, const std::string& key,
                              const std::string& where, bool cells);

/// What of a row the parsers of rows need.
struct RowContext {
  std::string where;   ///< "file:line:column".
  bool cells = false;  ///< Every value is text, as CSV has it.
};

/// The pair of a row with two sides. They may be empty or equal; `line` and `id` are not set.
[[nodiscard]] PreferencePair pair_of_row(const nlohmann::json& object, const RowContext& row,
                                         const PreferenceReadOptions& options);

/// Whether both sides say the same and call the same tools.
[[nodiscard]] bool same_answers(const PreferencePair& pair);

/// Forms in which raters' marks decide which answer is preferred.
enum class Annotations { kNone, kUltraFeedback, kAlpacaEval };
[[nodiscard]] Annotations annotations_of(const nlohmann::json& object);

/// The pair that the marks of a row give; nothing when no answer is the better one.
[[nodiscard]] std::optional<PreferencePair> pair_of_marks(const nlohmann::json& object,
                                                          const RowContext& row);

}  // namespace temper::detail
