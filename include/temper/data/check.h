#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "temper/data/completions.h"
#include "temper/data/near_duplicates.h"

namespace temper {

/// Lengths of a record.
struct RecordLength {
  int64_t prompt = 0;
  int64_t whole = 0;  ///< Prompt and completion together.
};

/// How a file is looked at.
struct DataCheckOptions {
  CompletionReadOptions read;  ///< `skip_bad` is taken as true.
  SimilarityConfig near;       ///< A similarity of 0: near-duplicates are not looked for.
  int64_t max_length = 0;  ///< In the units of `length`; 0: nothing is cut.
  /// Length of a record; empty: characters of all contents.
  std::function<RecordLength(const CompletionRecord&)> length;
  std::string unit = "characters";
};

/// Five numbers about lengths; zeros where there is none. Quantiles are lengths that occur: the
/// least with at least that share of all at or below it.
struct LengthStats {
  uint64_t count = 0;
  int64_t least = 0;
  int64_t median = 0;
  int64_t p95 = 0;
  int64_t most = 0;
  double mean = 0;
};

[[nodiscard]] LengthStats length_stats(std::vector<int64_t> lengths);

/// What a file has in common with another one. Counts are rows of the file that is checked.
struct DataLeak {
  std::string file;
  uint64_t rows = 0;            ///< Of the other file.
  uint64_t same_prompts = 0;    ///< Their prompt is one of the other file's.
  uint64_t near_prompts = 0;    ///< Their prompt is a near-duplicate of one, and no equal.
  uint64_t overlaps = 0;        ///< Their words overlap with a prompt there (`OverlapIndex`).
  std::vector<uint64_t> lines;  ///< Of the first 20 of them all.
};

/// What was found in a file. A row is a record, or the two records of a pair.
struct DataCheckReport {
  std::string file;
  std::string form;
  std::string hash;  ///< Of the bytes, 16 digits.
  uint64_t rows = 0;
  uint64_t skipped = 0;  ///< Bad rows.
  uint64_t empty = 0;
  uint64_t equal = 0;
  uint64_t ties = 0;
  std::vector<std::string> problems;  ///< Each with file and line.
  std::string unit;
  std::vector<std::pair<std::string, LengthStats>> lengths;  ///< By part of a row.
  int64_t max_length = 0;
  uint64_t cut = 0;           ///< Records longer than that.
  uint64_t cut_whole = 0;     ///< Records whose prompt alone is: nothing of the answer is left.
  uint64_t same_rows = 0;     ///< Rows equal to an earlier one.
  uint64_t near_rows = 0;     ///< Rows near an earlier one, and equal to none.
  uint64_t same_prompts = 0;  ///< Rows whose prompt an earlier row has.
  /// Lines of the first 20 of both kinds, each with the line of the earlier row.
  std::vector<std::pair<uint64_t, uint64_t>> duplicates;
  uint64_t desirable = 0;       ///< Records labelled true.
  uint64_t undesirable = 0;     ///< Records labelled false.
  uint64_t contradictions = 0;  ///< Answers to one prompt that are labelled both ways.
  uint64_t chosen_longer = 0;   ///< Pairs, by the characters of their answers.
  uint64_t rejected_longer = 0;
  std::vector<DataLeak> leaks;
};

/// Reads a file row by row and reports what training on it would meet. Memory holds about 1 kB a
/// row and a prompt of `against`, never the file.
/// @throws Error when the file cannot be read or no row of it can be used.
[[nodiscard]] DataCheckReport check_data(const std::filesystem::path& path,
                                         const std::vector<std::filesystem::path>& against,
                                         const DataCheckOptions& options = {});

/// The report for programs; docs/data.md names the keys.
[[nodiscard]] nlohmann::ordered_json check_json(const DataCheckReport& report);

/// The report for people. Row contents are never shown.
[[nodiscard]] std::string check_table(const DataCheckReport& report);

}  // namespace temper
