#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace temper {

/// A text as it is compared: NFKC, case folded, runs of all that is no letter, mark or digit made
/// one space, none at the ends. @param text  UTF-8.
[[nodiscard]] std::string fold_text(std::string_view text);

/// How texts are compared.
struct SimilarityConfig {
  int64_t gram = 5;
  int64_t hashes = 128;
  int64_t rows = 4;
  double similarity = 0.8;
  int64_t seed = 42;

  template <class V>
  void visit(V&& v) {
    v(gram, "gram", "Characters of a shingle, at least 1.");
    v(hashes, "hashes", "Hash functions of a signature; a multiple of rows.");
    v(rows, "rows", "Hashes of a band: fewer find more candidates and take longer.");
    v(similarity, "similarity",
      "Share of shingles in common from which texts are near, in (0, 1].");
    v(seed, "seed", "Of the hash functions.");
  }
};

/// The set of a folded text's shingles (runs of `gram` characters), as hashes, ascending. A text
/// shorter than that is one shingle; of a text with nothing but signs, the whole text is.
[[nodiscard]] std::vector<uint64_t> shingles(std::string_view text, int64_t gram);

/// Size of the intersection over size of the union of two ascending sets; 1 for two empty ones.
[[nodiscard]] double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b);

using Signature = std::vector<uint32_t>;

/// Signatures whose share of equal entries estimates the Jaccard similarity of the shingle sets
/// (Broder 1997), without bias and with variance J (1 - J) / hashes.
class MinHash {
 public:
  /// @throws Error for a setting out of its range.
  explicit MinHash(const SimilarityConfig& config);
  [[nodiscard]] Signature signature(std::string_view text) const;
  [[nodiscard]] static double estimate(const Signature& a, const Signature& b);

 private:
  int64_t gram_;
  std::vector<uint64_t> keys_;  ///< Factor and summand of each hash function.
};

/// Finds texts whose estimated similarity to a given one reaches the limit. Candidates share a band
/// of `rows` hashes: at the default settings a pair of similarity 0.8 is missed once in 10 million,
/// one of 0.5 is looked at in 7 of 8 cases and left. About 1 kB a text.
class NearDuplicateIndex {
 public:
  explicit NearDuplicateIndex(const SimilarityConfig& config);

  [[nodiscard]] Signature signature(std::string_view text) const { return hash_.signature(text); }
  /// Adds a text and returns its number, from 0.
  size_t add(Signature signature);
  /// Numbers of the added texts that are near, ascending.
  [[nodiscard]] std::vector<size_t> matches(const Signature& signature) const;

 private:
  [[nodiscard]] uint64_t band(const Signature& signature, size_t number) const;

  MinHash hash_;
  size_t rows_;
  double similarity_;
  std::vector<Signature> signatures_;
  std::unordered_map<uint64_t, std::vector<uint32_t>> buckets_;
};

/// A number for each text, the same for texts that are joined by a chain of near-duplicates: the
/// place of the first of them.
[[nodiscard]] std::vector<size_t> near_clusters(std::span<const std::string> texts,
                                                const SimilarityConfig& config);

/// What of a text stands in other texts word for word: 13 words in a row, or 50 characters, after
/// `fold_text` (GPT-3's rule and PaLM's, in one). A shorter text counts where it is the whole.
class OverlapIndex {
 public:
  static constexpr size_t kWords = 13;
  static constexpr size_t kCharacters = 50;

  void add(std::string_view text);
  [[nodiscard]] bool overlaps(std::string_view text) const;
  [[nodiscard]] bool empty() const { return windows_.empty(); }

 private:
  std::unordered_map<uint64_t, char> windows_;
};

}  // namespace temper
