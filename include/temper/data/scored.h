#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "temper/data/preference.h"

namespace temper {

/// An answer and how good somebody found it.
struct ScoredAnswer {
  Passage answer;
  double score = 0;  ///< Finite; more is better.
};

/// All scored answers to one prompt. All parts are of one kind: texts, or turns.
struct ScoredPrompt {
  bool conversation = false;
  Passage prompt;
  std::vector<ScoredAnswer> answers;
  uint64_t line = 0;  ///< Of the first of its rows, from 1.
  uint64_t id = 0;    ///< Hash of the prompt.
};

/// Scored samples and where they come from.
struct ScoredData {
  std::string source;
  uint64_t content_hash = 0;
  uint64_t rows = 0;
  std::vector<ScoredPrompt> prompts;
  uint64_t skipped = 0;
  uint64_t empty = 0;  ///< Answers left out because they have no words.
  std::vector<std::string> problems;
};

/// Reads scored samples from a JSON Lines file, a JSON array or a table (.csv), perhaps gzip. A row
/// is {"prompt", "completions": [...], "scores": [...]}, the completions perhaps objects
/// {"completion" or "text" or "response", "score"} instead; or one sample, {"prompt", "completion",
/// "score"}: rows with the same prompt are put together. Prompts come in the order of their first
/// row. Of `options`, `prompt_key`, `skip_bad`, `lossy_utf8`, `max_rows` and `max_line_bytes`
/// count.
/// @throws Error naming file, line, column and key, as `read_preferences` does.
[[nodiscard]] ScoredData read_scored(const std::filesystem::path& path,
                                     const PreferenceReadOptions& options = {});

/// The same from memory; `name` stands for the file in messages.
[[nodiscard]] ScoredData parse_scored(std::string_view text, const std::string& name,
                                      const PreferenceReadOptions& options = {});

}  // namespace temper
