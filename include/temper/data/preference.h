#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/data/dataset.h"

namespace temper {

/// Words: a text, or turns of a conversation.
struct Passage {
  std::string text;                ///< UTF-8; empty in a conversation.
  std::vector<ChatMessage> turns;  ///< Empty in a plain text.
  [[nodiscard]] bool empty() const { return text.empty() && turns.empty(); }
  bool operator==(const Passage&) const = default;
};

/// Two answers to one prompt, of which somebody prefers the first. All three parts are of one kind:
/// texts, or turns. The whole of a side is the prompt followed by the answer, nothing in between.
struct PreferencePair {
  bool conversation = false;  ///< The parts are turns.
  Passage prompt;             ///< May be empty: then the sides have no beginning in common.
  Passage chosen;
  Passage rejected;
  double margin = 0;  ///< By how much the chosen score is to exceed the rejected one; finite.
  std::string tools_json;  ///< Column "tools" as one JSON array, for a chat template; else empty.
  /// All messages of prompt and side, as one JSON array each, where one of them has keys that
  /// `ChatMessage` has no place for ("tool_calls", "name", ...); else empty.
  std::string chosen_json, rejected_json;
  uint64_t line = 0;  ///< Where the pair stands in its file, from 1.
  uint64_t id = 0;    ///< Hash of the prompt (of the chosen side where there is none).
};

/// Pairs and where they come from.
struct PreferenceData {
  std::string source;
  std::string license;
  uint64_t content_hash = 0;  ///< StableHash of the (uncompressed) bytes; parts of a split keep it.
  std::vector<PreferencePair> pairs;
  uint64_t skipped = 0;  ///< Bad rows left out under `skip_bad`.
  uint64_t empty = 0;    ///< Pairs left out because an answer has no words, under `skip_bad`.
  uint64_t equal = 0;    ///< The same for pairs whose answers are the same: they teach nothing.
  uint64_t ties = 0;     ///< Annotated rows left out because no answer is the better one.
  /// What was wrong with the first of the skipped rows, and where the first of the empty and equal
  /// ones and the ties are.
  std::vector<std::string> problems;
};

/// How a file of pairs is read.
struct PreferenceReadOptions {
  std::string prompt_key = "prompt";
  std::string chosen_key = "chosen";
  std::string rejected_key = "rejected";
  std::string margin_key = "margin";
  std::string transcripts = "auto";
  std::string license = "not stated";
  bool skip_bad = false;
  bool lossy_utf8 = false;
  int64_t max_rows = 0;
  int64_t max_line_bytes = int64_t{64} << 20;

  template <class V>
  void visit(V&& v) {
    v(prompt_key, "prompt_key", "Key of the prompt; a row may lack it.");
    v(chosen_key, "chosen_key", "Key of the preferred answer, or of the whole preferred side.");
    v(rejected_key, "rejected_key", "Key of the other answer, or of the whole other side.");
    v(margin_key, "margin_key", "Key of the margin, a number; a row may lack it (0).");
    v(transcripts, "transcripts",
      "Texts that begin with \"\\n\\nHuman:\" (hh-rlhf): turned into messages, cut at a turn but "
      "kept as text, or not looked at; auto: messages, or text for a model without a template.",
      {"auto", "messages", "text", "off"});
    v(license, "license", "Licence of the data, as text; goes into the run folder.");
    v(skip_bad, "skip_bad", "Leave out rows that cannot be read, and count them.");
    v(lossy_utf8, "lossy_utf8", "Replace invalid UTF-8 by U+FFFD instead of refusing it.");
    v(max_rows, "max_rows", "Read this many rows at most; 0: all.");
    v(max_line_bytes, "max_line_bytes", "Longest row in bytes, at least 1.");
  }
};

/// Reads pairs from a JSON Lines file, one JSON array of objects, or a table by its name (.csv);
/// each may be gzip.
///
/// A row has `chosen` and `rejected`, and may have `prompt` and `margin`; other keys are not looked
/// at. Each side is a text or a list of messages {"role", "content"}:
///  - texts with a prompt text: the sides are what follows the prompt;
///  - texts alone: the prompt is their common beginning, less a space at its end (TRL's rule), less
///    what would leave a side without a character, never cut inside a character;
///  - texts alone that begin with "\n\nHuman:": see `transcripts`. The prompt is the turns that
///    both share; as text it ends behind the last shared "\n\nAssistant:";
///  - messages with prompt messages: the sides are what follows, or begin with the prompt again;
///  - messages with a prompt text: the text is the user's turn, unless the sides begin with a turn
///    that is not the assistant's: then they hold their prompt, and the text is left;
///  - messages alone: the prompt is the messages that both begin with.
/// Under prompt messages a side may be a text, too: it is the assistant's turn. The column "tools"
/// and keys of messages beyond role and content are kept as JSON; a side that only calls a tool is
/// an answer.
///
/// A row without sides may hold raters' marks instead. UltraFeedback ("instruction",
/// "completions"): the answer with the best mean rating against the one with the worst. AlpacaEval
/// ("instruction", "output_1", "output_2", "preference" from 1 to 2): the preferred output against
/// the other. The margin is 0. Rows in which no answer is the better one are counted and left out.
///
/// @param options  `transcripts` auto: messages.
/// @throws Error naming file, line, column and key: what `read_jsonl` refuses, a missing side, a
/// side of a wrong type, a conversation without messages, tools that are no array, a margin that is
/// no number, an answer without words, equal answers; or a file in which no pair is left. Row contents are never quoted. Under `skip_bad` a
/// bad row is counted instead.
[[nodiscard]] PreferenceData read_preferences(const std::filesystem::path& path,
                                              const PreferenceReadOptions& options = {});

/// The same from memory; `name` stands for the file in messages.
[[nodiscard]] PreferenceData parse_preferences(std::string_view text, const std::string& name,
                                               const PreferenceReadOptions& options = {});

/// Splits into (training, held out) by prompt, as `split_by_hash` of datasets does.
[[nodiscard]] std::pair<PreferenceData, PreferenceData> split_by_hash(const PreferenceData& data,
                                                                      double held_out_fraction,
                                                                      uint64_t seed);

/// The turns of a transcript "\n\nHuman: ...\n\nAssistant: ...", as user and assistant; contents
/// without the white space around them. Empty when the text is no such transcript.
[[nodiscard]] std::vector<ChatMessage> transcript_turns(std::string_view text);

/// Bytes of the beginning that two texts share, by the rule of `read_preferences` for texts alone.
[[nodiscard]] size_t shared_beginning(std::string_view a, std::string_view b);

}  // namespace temper
