#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace temper {

/// What a chat template sees beside the messages. The pointed-to JSON must outlive the call.
struct ChatTemplateOptions {
  bool add_generation_prompt = true;  ///< Ask for the header of a new assistant turn.
  /// End right behind the text of the last message, so that the model goes on writing it.
  /// Wins over `add_generation_prompt`, which the template then sees as false.
  bool continue_final_message = false;
  std::map<std::string, std::string> special_tokens;  ///< `bos_token` -> "<s>", ...
  const nlohmann::ordered_json* tools = nullptr;      ///< Array of JSON schemas; null: none.
  const nlohmann::ordered_json* documents = nullptr;  ///< Array of objects; null: none.
  const nlohmann::ordered_json* extra = nullptr;      ///< Object; each key becomes a variable.
  /// Seconds since 1970 that `strftime_now` shows in local time; none: the clock.
  std::optional<int64_t> unix_time;
};

/// A Jinja chat template as Hugging Face models carry it (`trim_blocks`, `lstrip_blocks`, loop
/// controls, `generation` blocks, sandboxed and immutable), run by an interpreter of our own.
///
/// Not covered: inheritance, imports, includes, automatic HTML escaping, integers beyond 64 bit,
/// names outside ASCII, the filters pprint, random, striptags, urlencode, urlize, wordwrap and
/// xmlattr. Using one is an error, never a silent difference. Filters that are lazy in Python
/// (`map`, `select`, ...) run at once here.
///
/// Limits: 8 MB for the output and for any one string, 10^6 evaluation steps, nesting of 64 in
/// source, values and macro calls, `range` up to 10^5, lists up to 250,000 items.
///
/// Cheap to copy (shared, immutable). Rendering is const and may run on several threads at once.
class ChatTemplate {
 public:
  /// @throws Error with the line and what was expected if the source does not parse.
  explicit ChatTemplate(std::string_view source_text);

  /// @param messages Array of objects with `role` and usually `content`. As Hugging Face does it,
  ///   keys that are null are dropped and `reasoning_content`, `thinking` and `reasoning` fill
  ///   in for each other.
  /// @return UTF-8 text, to be encoded without further special tokens. Deterministic, but for
  ///   `strftime_now` without `unix_time`.
  /// @throws Error with the line for everything that fails in Python too (an attribute of an
  ///   undefined value, `raise_exception`, ...) and where a limit is exceeded.
  [[nodiscard]] std::string render(const nlohmann::ordered_json& messages,
                                   const ChatTemplateOptions& options = {}) const;

  struct Rendered {
    std::string text;
    /// Byte ranges [first, second) of the template's `{% generation %}` blocks, in order; empty
    /// if it has none.
    std::vector<std::pair<size_t, size_t>> generation;
  };
  /// As `render`, with the places of the assistant's own words for training masks.
  /// @throws Error too if a generation block sits where its place is not known (inside a macro, a
  ///   block set, a filter block or another generation block).
  [[nodiscard]] Rendered render_with_spans(const nlohmann::ordered_json& messages,
                                           const ChatTemplateOptions& options = {}) const;

  /// Whether the source has a `{% generation %}` block.
  [[nodiscard]] bool has_generation_blocks() const;

 private:
  class Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace temper
