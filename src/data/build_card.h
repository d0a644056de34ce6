#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "temper/data/build.h"
#include "temper/data/scrub.h"

namespace temper::detail {

/// A file that went into a build.
struct BuildInput {
  std::string file;
  uint64_t rows = 0;
  uint64_t prompts = 0;
  uint64_t skipped = 0;
  uint64_t empty = 0;
  uint64_t hash = 0;
};

/// How the lengths of two answers go together, in characters.
struct LengthBalance {
  uint64_t chosen_longer = 0;
  uint64_t rejected_longer = 0;
  double chosen_mean = 0;
  double rejected_mean = 0;
  /// Of the margin with the difference of lengths (Pearson); 0 where one of them does not vary.
  double correlation = 0;
};

/// What a build did, for its card.
struct BuildRecord {
  std::vector<BuildInput> inputs;
  std::vector<BuildInput> against;
  ScrubCounts scrubbed;
  uint64_t prompts = 0;
  uint64_t contaminated = 0;  ///< Prompts.
  uint64_t without_pair = 0;  ///< Prompts whose answers make no pair within the bounds.
  uint64_t candidates = 0;    ///< Pairs before the steps that follow.
  uint64_t near_answers = 0;  ///< Pairs left out.
  uint64_t over_band = 0;     ///< Pairs left out.
  uint64_t unbalanced = 0;    ///< Pairs left out.
  std::vector<double> edges;  ///< Of the margin bands; the first is open below, the last above.
  std::vector<uint64_t> band_pairs;  ///< One more than edges.
  LengthBalance before;              ///< Of the candidates.
  LengthBalance after;               ///< Of the pairs that are written.
};

[[nodiscard]] LengthBalance length_balance(const std::vector<BuiltPair>& pairs);

/// The text of one side's words; turns are joined by line ends.
[[nodiscard]] std::string words_of(const Passage& passage);

/// Characters of a text.
[[nodiscard]] uint64_t characters(const std::string& text);

/// Adds the cards to the files of the result.
void add_cards(BuildResult& result, const BuildRecord& record, const BuildConfig& config);

}  // namespace temper::detail
