#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace temper {

/// One turn of a conversation. Both parts are UTF-8.
struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant", "tool"; other words are kept as they are.
  std::string content;
  bool operator==(const ChatMessage&) const = default;
};

/// One row of a dataset: a prompt (text or conversation, never both) and what is known about it.
struct Example {
  std::string prompt;                 ///< Plain prompt; empty when `messages` is used.
  std::vector<ChatMessage> messages;  ///< Conversation; empty when `prompt` is used.
  std::string answer;                 ///< Reference answer; empty when the row has none.
  std::string extra_json;             ///< Every other key of the row, as one JSON object, or empty.
  uint64_t id = 0;                    ///< `prompt_id` of this row.
};

/// The conversation, or the prompt as a single user turn.
[[nodiscard]] std::vector<ChatMessage> as_messages(const Example& example);

/// 64-bit FNV-1a with a mixing finish. The same bits on every machine and release; no protection
/// against somebody who builds collisions on purpose.
class StableHash {
 public:
  void update(std::string_view bytes);
  [[nodiscard]] uint64_t value() const;

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

/// Hash of the prompt alone (roles and contents of a conversation), whatever the answer: rows with
/// the same prompt share it.
[[nodiscard]] uint64_t prompt_id(const Example& example);

/// Rows and where they come from.
struct Dataset {
  std::string source;         ///< File or generator.
  std::string license;        ///< As the user or the generator states it.
  uint64_t content_hash = 0;  ///< StableHash of the (uncompressed) bytes; parts of a split keep it.
  std::vector<Example> examples;
  uint64_t skipped = 0;               ///< Bad rows left out under `skip_bad`.
  std::vector<std::string> problems;  ///< What was wrong with the first 20 of them.
};

/// How a dataset file is read.
struct ReadOptions {
  std::string prompt_key;
  std::string answer_key;
  std::string license = "not stated";
  bool skip_bad = false;
  bool lossy_utf8 = false;
  int64_t max_rows = 0;
  int64_t max_line_bytes = int64_t{64} << 20;

  template <class V>
  void visit(V&& v) {
    v(prompt_key, "prompt_key", "Key of the prompt; empty: prompt, else messages, else question.");
    v(answer_key, "answer_key",
      "Key of the answer; empty: answer, else solution, else ground_truth.");
    v(license, "license", "Licence of the data, as text; goes into the run folder.");
    v(skip_bad, "skip_bad", "Leave out rows that cannot be read, and count them.");
    v(lossy_utf8, "lossy_utf8", "Replace invalid UTF-8 by U+FFFD instead of refusing it.");
    v(max_rows, "max_rows", "Read this many rows at most; 0: all.");
    v(max_line_bytes, "max_line_bytes", "Longest row in bytes, at least 1.");
  }
};

/// Nesting of a row's JSON, in brackets; deeper rows are refused.
inline constexpr int kMaxJsonDepth = 64;

/// Reads rows from a JSON Lines file or from a file that holds one JSON array of objects; either
/// may be gzip (told by its first bytes). Memory holds one row of text at a time besides the
/// result.
///
/// A row's prompt is a string (`"prompt": "..."`, or `"question"` as in GSM8K) or a conversation
/// (`"prompt"` or `"messages"`: [{"role": ..., "content": ...}, ...]). When a `messages`
/// conversation ends with the assistant, that turn is taken off: it becomes the answer, or, in a
/// row that has an answer already, is kept as the extra key "reference_turn". An answer may be a
/// string, a number or a boolean. All other keys are kept in `extra_json`.
///
/// @throws Error naming file, line, column, key, what was expected and what came: invalid UTF-8 or
/// JSON, a row that is no object, a missing or empty prompt, a value of the wrong type, a row over
/// `max_line_bytes` or nested deeper than `kMaxJsonDepth`, no rows at all, a truncated gzip file,
/// or another format. Row contents are never quoted. Under `skip_bad` a bad row is counted instead.
[[nodiscard]] Dataset read_jsonl(const std::filesystem::path& path,
                                 const ReadOptions& options = {});

/// The same from memory (never gzip); `name` stands for the file in messages.
[[nodiscard]] Dataset parse_jsonl(std::string_view text, const std::string& name,
                                  const ReadOptions& options = {});

/// Splits into (training, held out). A row is held out when a number in [0, 1) drawn from its
/// `id` and `seed` is below `held_out_fraction` (in [0, 1]): the choice does not depend on the
/// order or on the other rows, and rows with the same prompt stay together. Order is kept.
[[nodiscard]] std::pair<Dataset, Dataset> split_by_hash(const Dataset& data,
                                                        double held_out_fraction, uint64_t seed);

/// The number in [0, 1) that `split_by_hash` compares.
[[nodiscard]] double split_position(uint64_t id, uint64_t seed);

/// Endless row order: every epoch is a permutation of [0, count) drawn from (seed, epoch), so the
/// whole state is two numbers and a resumed run sees the same rows.
class PromptSampler {
 public:
  struct State {
    uint64_t epoch = 0;
    uint64_t position = 0;  ///< Rows of this epoch already given, in [0, count).
    bool operator==(const State&) const = default;
  };

  /// `count` in [1, 2^32). Without `shuffle` rows come in file order.
  PromptSampler(size_t count, uint64_t seed, bool shuffle = true);

  /// The next `n` rows; runs on into the next epoch where one ends.
  [[nodiscard]] std::vector<size_t> next(size_t n);

  [[nodiscard]] State state() const { return state_; }
  /// @throws Error if `state.position` is not below `count` (a state of another dataset).
  void restore(State state);

 private:
  void start_epoch();

  size_t count_;
  uint64_t seed_;
  bool shuffle_;
  State state_;
  std::vector<uint32_t> order_;
};

}  // namespace temper
