#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/data/dataset.h"
#include "temper/data/preference.h"

namespace temper {

/// What the rows of a file are, by their keys.
enum class DataForm {
  kText,              ///< {"text"}: plain text, all of it learnt.
  kMessages,          ///< {"messages"}: a conversation.
  kPrompt,            ///< {"prompt"}: nothing to learn from, something to sample for.
  kPromptCompletion,  ///< {"prompt", "completion"}.
  kUnpaired,          ///< {"prompt", "completion", "label"}.
  kPreference,        ///< {"chosen", "rejected"}, and perhaps "prompt".
  kStepwise,          ///< {"prompt", "completions": [...], "labels": [...]}.
  kSteps,             ///< The same, read as one labelled answer a step; by name only.
  kUltraFeedback,     ///< {"instruction", "completions": [{"response", "annotations"}, ...]}.
  kAlpacaEval,        ///< {"instruction", "output_1", "output_2", "preference"}.
};

/// The name of a form in options and reports, such as "prompt_completion".
[[nodiscard]] std::string_view form_name(DataForm form);
/// All names, in the order of `DataForm`.
[[nodiscard]] const std::vector<std::string>& form_names();
/// @throws Error naming the nearest form for a word that names none.
[[nodiscard]] DataForm parse_form(std::string_view name);

/// One step of a stepwise answer, and whether it is right.
struct LabelledStep {
  std::string text;
  bool correct = false;
  bool operator==(const LabelledStep&) const = default;
};

/// A prompt, what follows it, and what is known about that. Both parts are of one kind: texts, or
/// turns. The whole is the prompt followed by the completion, nothing in between.
struct CompletionRecord {
  bool conversation = false;  ///< The parts are turns.
  Passage prompt;             ///< Empty in language modelling (`kText`, `kMessages`).
  Passage completion;         ///< Empty in prompts alone (`kPrompt`) only.
  std::optional<bool> label;  ///< Whether the answer is desirable, where the file says so.
  double weight = 1;          ///< Of the row in a loss; finite, not negative.
  /// One flag a turn of the completion: the assistant's, and not switched off by a "weight" of 0 or
  /// a "train" of false in the message. Empty in texts.
  std::vector<bool> assistant;
  std::vector<LabelledStep> steps;  ///< `kStepwise`: the completion is their texts, joined by '\n'.
  std::string tools_json;  ///< Column "tools" as one JSON array, for a chat template; else empty.
  /// All messages of prompt and completion, as one JSON array, where one of them has keys that
  /// `ChatMessage` has no place for ("tool_calls", "name", ...); else empty.
  std::string turns_json;
  uint64_t line = 0;  ///< Where the row begins in its file, from 1; both sides of a pair share it.
  uint64_t id = 0;    ///< Hash of the prompt, or of what stands for it: rows to keep together.
};

/// Records and where they come from.
struct CompletionData {
  std::string source;
  std::string license;
  uint64_t content_hash = 0;  ///< StableHash of the (uncompressed) bytes; parts of a split keep it.
  DataForm form = DataForm::kText;
  std::vector<CompletionRecord> records;
  uint64_t skipped = 0;  ///< Bad rows left out under `skip_bad`.
  uint64_t empty = 0;    ///< Rows left out because an answer has no words, under `skip_bad`.
  uint64_t equal = 0;    ///< Pairs left out because both answers are the same, under `skip_bad`.
  uint64_t ties = 0;     ///< Annotated rows left out because no answer is the better one.
  /// What was wrong with the first of the skipped rows, and where the first of the empty and equal
  /// ones and the ties are.
  std::vector<std::string> problems;
};

/// How a file of completions is read.
struct CompletionReadOptions {
  std::string form = "auto";
  std::string text_key;
  std::string prompt_key;
  std::string completion_key;
  std::string label_key = "label";
  std::string weight_key = "weight";
  std::string chosen_key = "chosen";
  std::string rejected_key = "rejected";
  std::string pairs = "both";
  std::string transcripts = "auto";
  std::string license = "not stated";
  bool skip_bad = false;
  bool lossy_utf8 = false;
  int64_t max_rows = 0;
  int64_t max_line_bytes = int64_t{64} << 20;

  template <class V>
  void visit(V&& v) {
    v(form, "form",
      "What the rows are; auto: what the first one looks like, prompts alone refused; any: with "
      "those.",
      {"auto", "any", "text", "messages", "prompt", "prompt_completion", "unpaired", "preference",
       "stepwise", "steps", "ultrafeedback", "alpaca_eval"});
    v(text_key, "text_key", "Key of a text or a conversation; empty: text, else messages.");
    v(prompt_key, "prompt_key", "Key of the prompt; empty: prompt, else question.");
    v(completion_key, "completion_key", "Key of the answer; empty: completion, else answer.");
    v(label_key, "label_key", "Key of the label, true or 1 for a desirable answer.");
    v(weight_key, "weight_key", "Key of a row's weight, a number; a row may lack it (1).");
    v(chosen_key, "chosen_key", "Key of the preferred answer of a pair.");
    v(rejected_key, "rejected_key", "Key of the other answer of a pair.");
    v(pairs, "pairs", "What of a pair is read: both answers, labelled, or the preferred one.",
      {"both", "chosen"});
    v(transcripts, "transcripts", "As for pairs: hh-rlhf transcripts in pairs.",
      {"auto", "messages", "text", "off"});
    v(license, "license", "Licence of the data, as text; goes into the run folder.");
    v(skip_bad, "skip_bad", "Leave out rows that cannot be read, and count them.");
    v(lossy_utf8, "lossy_utf8", "Replace invalid UTF-8 by U+FFFD instead of refusing it.");
    v(max_rows, "max_rows", "Read this many rows at most; 0: all.");
    v(max_line_bytes, "max_line_bytes", "Longest row in bytes, at least 1.");
  }
};

/// Reads what supervised fine-tuning (text, messages, prompt and completion) and unpaired
/// preferences (labelled answers) learn from: a JSON Lines file, one JSON array of objects, or a
/// table by its name (.csv), each perhaps gzip. All rows are of one form (`options.form`; auto: by
/// the first row's keys; prompts alone are read only when asked for by name or under any).
/// docs/data.md shows a row of each.
///
///  - A prompt and a completion are each a text or messages. A text beside messages is the user's
///    or the assistant's turn. Completion messages that begin with the prompt's are cut there.
///  - A row of two answers (`kPreference`, `kUltraFeedback`, `kAlpacaEval`) gives two records, the
///    preferred one first with label true, then the other with label false; under `pairs` chosen
///    the first alone, without a label. Prompts of pairs are found as `read_preferences` does it.
///  - A stepwise row gives one record, whose completion is all steps; under the form `steps` one
///    for each step, labelled as the step is, whose prompt is the row's and the steps before, each
///    with '\n' behind it.
///  - The column "tools" and keys of messages beyond role and content are kept as JSON.
///
/// @throws Error naming file, line, column and key: what `read_jsonl` refuses, a missing key, a
/// value of a wrong type, a conversation without messages, a label that is no truth value, steps
/// and labels of different counts, an answer without words, a pair of equal answers; or a file in which nothing is left. Row contents are never
/// quoted. Under `skip_bad` a bad row is counted instead.
[[nodiscard]] CompletionData read_completions(const std::filesystem::path& path,
                                              const CompletionReadOptions& options = {});

/// The same from memory; `name` stands for the file in messages.
[[nodiscard]] CompletionData parse_completions(std::string_view text, const std::string& name,
                                               const CompletionReadOptions& options = {});

/// For files larger than memory: hands each record to `take` as it is read, in order, and returns
/// the rest (`records` stays empty). Memory holds one row. An Error out of `take` ends the reading,
/// whatever `skip_bad` says.
CompletionData stream_completions(const std::filesystem::path& path,
                                  const CompletionReadOptions& options,
                                  const std::function<void(CompletionRecord&&)>& take);

/// Splits into (training, held out) by prompt, as `split_by_hash` of datasets does.
[[nodiscard]] std::pair<CompletionData, CompletionData> split_by_hash(const CompletionData& data,
                                                                      double held_out_fraction,
                                                                      uint64_t seed);

}  // namespace temper
