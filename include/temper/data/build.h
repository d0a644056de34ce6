#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "temper/data/preference.h"

namespace temper {

/// How pairs are made of scored samples.
struct BuildConfig {
  std::string pick = "best_worst";
  int64_t pairs_per_prompt = 1;
  double min_margin = 0;
  double max_margin = 0;
  std::vector<double> bands;
  int64_t pairs_per_band = 0;
  bool balance_lengths = false;
  double near_similarity = 0.8;
  bool scrub = false;
  bool margin_column = false;
  double held_out_fraction = 0;
  int64_t seed = 42;
  std::string license = "not stated";
  bool skip_bad = false;
  int64_t max_rows = 0;

  template <class V>
  void visit(V&& v) {
    v(pick, "pick",
      "Which answers meet: best_worst, then the second best with the second worst, ...; "
      "best_random: "
      "the best with a worse one by lot; adjacent in rank; all, the widest margins first.",
      {"best_worst", "best_random", "adjacent", "all"});
    v(pairs_per_prompt, "pairs_per_prompt", "Most pairs of a prompt; 0: all that pick gives.");
    v(min_margin, "min_margin", "Least difference of scores; equal scores are never a pair.");
    v(max_margin, "max_margin", "Greatest difference of scores; 0: none.");
    v(bands, "bands", "Edges of margin bands, ascending; empty: quarters of the greatest margin.");
    v(pairs_per_band, "pairs_per_band", "Most pairs of a margin band, by lot; 0: all.");
    v(balance_lengths, "balance_lengths",
      "Leave out pairs by lot until, at every ratio of lengths, the longer answer is the preferred "
      "one as often as not.");
    v(near_similarity, "near_similarity",
      "Share of shingles in common from which texts are near, in (0, 1]; 0: compare nothing.");
    v(scrub, "scrub", "Replace e-mail, telephone, card and account numbers by tags.");
    v(margin_column, "margin_column", "Write the difference of scores as \"margin\", too.");
    v(held_out_fraction, "held_out_fraction", "Share of prompt clusters held out, in [0, 1).");
    v(seed, "seed", "Of every lot and of the split.");
    v(license, "license", "Licence of the inputs, as text; goes into the card.");
    v(skip_bad, "skip_bad", "Leave out rows that cannot be read, and count them.");
    v(max_rows, "max_rows", "Read this many rows of each input at most; 0: all.");
  }
};

/// A pair and the scores that made it one.
struct BuiltPair {
  PreferencePair pair;  ///< `line` is the prompt's first; `margin` the difference of the scores.
  double chosen_score = 0;
  double rejected_score = 0;
  uint64_t cluster = 0;  ///< Number of the cluster of near-duplicate prompts.
};

/// Pairs, and the files that hold them.
struct BuildResult {
  std::vector<BuiltPair> train;
  std::vector<BuiltPair> held_out;
  /// File names and contents: train.jsonl, held_out.jsonl (where a share is held out), card.json,
  /// card.md.
  std::map<std::string, std::string> files;
};

/// Makes preference pairs of scored samples (`read_scored`):
///
///  1. Personal data is replaced (`scrub_personal_data`).
///  2. Prompts that overlap with the prompts of a file of `against` are left out (`OverlapIndex`,
///     over the prompt and its answers), and so are those that are near-duplicates of one.
///  3. Answers meet as `pick` says; margins outside of the bounds are left out.
///  4. Near-duplicate prompts form clusters; a pair is left out when another of its cluster has
///     near-duplicate answers.
///  5. Margin bands are capped, lengths balanced, both by lots that depend on the pair and the seed
///     alone.
///  6. Whole clusters are held out, by a lot on the least hash of their prompts.
///
/// Pairs keep the order of their prompts' first rows, inputs one after the other. The same inputs
/// and settings give the same bytes; files are named by their names alone, without folders.
/// @throws Error for bad rows, settings out of range, or when no pair is left to train on.
[[nodiscard]] BuildResult build_pairs(const std::vector<std::filesystem::path>& inputs,
                                      const std::vector<std::filesystem::path>& against,
                                      const BuildConfig& config);

/// Writes the files into a folder, which is made when it is not there.
/// @throws Error when one of them exists already, or cannot be written.
void write_build(const BuildResult& result, const std::filesystem::path& folder);

}  // namespace temper
