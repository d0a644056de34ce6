#include "temper/data/near_duplicates.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>

#include "temper/core/error.h"
#include "temper/data/dataset.h"

namespace temper {
namespace {

/// The finish of SplitMix64.
uint64_t mixed(uint64_t h) {
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

uint64_t hash_of(std::string_view bytes) {
  StableHash hash;
  hash.update(bytes);
  return hash.value();
}

bool is_word(utf8proc_int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return true;
    default: return false;
  }
}

/// Where characters begin, and the end.
std::vector<size_t> character_starts(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) starts.push_back(i);
  }
  starts.push_back(text.size());
  return starts;
}

std::vector<size_t> word_starts(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 0 || text[i - 1] == ' ') starts.push_back(i);
  }
  starts.push_back(text.size() + 1);  // As if a space followed.
  return starts;
}

/// Hashes of every run of `count` pieces that begin at `starts` (the last entry is the end);
/// `gap`: bytes between a piece and the next.
template <class F>
void each_window(std::string_view text, const std::vector<size_t>& starts, size_t count, size_t gap,
                 const F& take) {
  for (size_t i = 0; i + count < starts.size(); ++i) {
    take(hash_of(text.substr(starts[i], starts[i + count] - gap - starts[i])));
  }
}

/// Calls `take` with each window's hash. Words and characters are told apart by a summand.
template <class F>
void each_overlap_window(const std::string& folded, const F& take) {
  each_window(folded, word_starts(folded), OverlapIndex::kWords, 1, take);
  each_window(folded, character_starts(folded), OverlapIndex::kCharacters, 0,
              [&](uint64_t h) { take(h + 1); });
  take(hash_of(folded) + 2);
}

class UnionFind {
 public:
  explicit UnionFind(size_t n) : parent_(n) {
    std::iota(parent_.begin(), parent_.end(), size_t{0});
  }
  size_t find(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  /// The smaller number stays the root.
  void unite(size_t a, size_t b) {
    a = find(a);
    b = find(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<size_t> parent_;
};

}  // namespace

std::string fold_text(std::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE |
                                                  UTF8PROC_COMPAT | UTF8PROC_CASEFOLD));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  TEMPER_CHECK(size >= 0, "[fold_text] the text is not valid UTF-8");
  std::string out;
  bool gap = false;
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t code = 0;
    const auto length =
        std::max<utf8proc_ssize_t>(utf8proc_iterate(mapped + at, size - at, &code), 1);
    if (is_word(code)) {
      if (gap && !out.empty()) out += ' ';
      gap = false;
      out.append(reinterpret_cast<const char*>(mapped + at), static_cast<size_t>(length));
    } else {
      gap = true;
    }
    at += length;
  }
  return out;
}

std::vector<uint64_t> shingles(std::string_view text, int64_t gram) {
  TEMPER_CHECK(gram >= 1, "[shingles] gram must be at least 1, got ", gram);
  const std::string folded = fold_text(text);
  std::vector<uint64_t> set;
  each_window(folded, character_starts(folded), static_cast<size_t>(gram), 0,
              [&](uint64_t h) { set.push_back(h); });
  if (set.empty()) set.push_back(hash_of(folded.empty() ? text : folded));
  std::sort(set.begin(), set.end());
  set.erase(std::unique(set.begin(), set.end()), set.end());
  return set;
}

double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  size_t common = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++common;
    const bool left = a[i] <= b[j], right = b[j] <= a[i];
    i += left ? 1 : 0;
    j += right ? 1 : 0;
  }
  const size_t all = a.size() + b.size() - common;
  return all == 0 ? 1 : static_cast<double>(common) / static_cast<double>(all);
}

MinHash::MinHash(const SimilarityConfig& config) : gram_(config.gram) {
  TEMPER_CHECK(config.gram >= 1, "[near duplicates] gram must be at least 1, got ", config.gram);
  TEMPER_CHECK(config.rows >= 1 && config.hashes >= config.rows && config.hashes <= 65536 &&
                   config.hashes % config.rows == 0,
               "[near duplicates] hashes must be a multiple of rows, at most 65536, got ",
               config.hashes, " and ", config.rows);
  TEMPER_CHECK(config.similarity > 0 && config.similarity <= 1,
               "[near duplicates] similarity must be in (0, 1], got ", config.similarity);
  for (uint64_t i = 0; i < 2 * static_cast<uint64_t>(config.hashes); ++i) {
    keys_.push_back(mixed(static_cast<uint64_t>(config.seed) + (i + 1) * 0x9e3779b97f4a7c15u));
  }
}

Signature MinHash::signature(std::string_view text) const {
  Signature out(keys_.size() / 2, UINT32_MAX);
  for (const uint64_t shingle : shingles(text, gram_)) {
    for (size_t i = 0; i < out.size(); ++i) {
      const uint64_t h = (keys_[2 * i] | 1) * shingle + keys_[2 * i + 1];
      out[i] = std::min(out[i], static_cast<uint32_t>((h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u >> 32));
    }
  }
  return out;
}

double MinHash::estimate(const Signature& a, const Signature& b) {
  TEMPER_CHECK(a.size() == b.size() && !a.empty(),
               "[near duplicates] the signatures are of different settings");
  size_t equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

NearDuplicateIndex::NearDuplicateIndex(const SimilarityConfig& config)
    : hash_(config), rows_(static_cast<size_t>(config.rows)), similarity_(config.similarity) {}

uint64_t NearDuplicateIndex::band(const Signature& signature, size_t number) const {
  uint64_t h = number;
  for (size_t i = 0; i < rows_; ++i) h = mixed(h ^ signature[number * rows_ + i]) + number;
  return h;
}

size_t NearDuplicateIndex::add(Signature signature) {
  const size_t number = signatures_.size();
  for (size_t b = 0; b < signature.size() / rows_; ++b) {
    buckets_[band(signature, b)].push_back(static_cast<uint32_t>(number));
  }
  signatures_.push_back(std::move(signature));
  return number;
}

std::vector<size_t> NearDuplicateIndex::matches(const Signature& signature) const {
  std::vector<size_t> candidates;
  for (size_t b = 0; b < signature.size() / rows_; ++b) {
    const auto it = buckets_.find(band(signature, b));
    if (it != buckets_.end())
      candidates.insert(candidates.end(), it->second.begin(), it->second.end());
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  std::erase_if(candidates, [&](size_t i) {
    return MinHash::estimate(signatures_[i], signature) < similarity_;
  });
  return candidates;
}

std::vector<size_t> near_clusters(std::span<const std::string> texts,
                                  const SimilarityConfig& config) {
  NearDuplicateIndex index(config);
  UnionFind sets(texts.size());
  std::unordered_map<std::string_view, size_t> seen;
  std::vector<size_t> places;  // Of the texts in the index; equal ones are there once.
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto [it, fresh] = seen.emplace(texts[i], i);
    if (!fresh) {
      sets.unite(it->second, i);
      continue;
    }
    Signature signature = index.signature(texts[i]);
    for (const size_t match : index.matches(signature)) sets.unite(places[match], i);
    index.add(std::move(signature));
    places.push_back(i);
  }
  std::vector<size_t> roots(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) roots[i] = sets.find(i);
  return roots;
}

void OverlapIndex::add(std::string_view text) {
  const std::string folded = fold_text(text);
  if (folded.empty()) return;
  each_overlap_window(folded, [&](uint64_t h) { windows_[h] = 1; });
}

bool OverlapIndex::overlaps(std::string_view text) const {
  const std::string folded = fold_text(text);
  bool found = false;
  if (folded.empty()) return found;
  each_overlap_window(folded, [&](uint64_t h) { found = found || windows_.contains(h); });
  return found;
}

}  // namespace temper
