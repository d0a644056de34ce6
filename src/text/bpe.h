#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "piece_cache.h"
#include "vocabulary.h"

namespace temper {

/// What a pair of adjacent tokens merges into, and how early.
struct Merge {
  int32_t rank = -1;
  int32_t id = -1;
};

/// (left id, right id) -> Merge, open addressing.
class MergeTable {
 public:
  explicit MergeTable(size_t max_count = 0);
  /// A later entry for the same pair replaces the earlier one.
  void set(int32_t left, int32_t right, Merge merge);
  /// Null if the pair does not merge.
  [[nodiscard]] const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  [[nodiscard]] size_t slot_of(uint64_t key) const;
  std::vector<Slot> slots_;
};

/// Byte-pair encoding of pieces (Sennrich et al. 2016): from single characters, the adjacent pair
/// of the lowest rank merges first, the leftmost of equals. Immutable but for a cache; safe from
/// any thread.
class Bpe {
 public:
  /// The `model` of a tokenizer file. @throws Error, prefixed by `where`.
  Bpe(const nlohmann::json& json, const std::string& where);

  /// Appends the ids of a non-empty piece of well-formed UTF-8. O(n log n) in its length.
  void encode(std::string_view piece, std::vector<int32_t>* out) const;

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Symbol;
  struct Candidate;
  void read_vocabulary(const nlohmann::json& json, const std::string& where);
  void read_merges(const nlohmann::json& json, const std::string& where);
  void add_merge(int32_t rank, std::string_view left, std::string_view right,
                 const std::string& where);
  void encode_part(std::string_view part, std::vector<int32_t>* out) const;
  [[nodiscard]] bool never_joins(char32_t left, char32_t right) const;
  [[nodiscard]] std::vector<int32_t> characters(std::string_view piece) const;
  bool append_bytes(std::string_view character, std::vector<int32_t>* out) const;
  void merge(const std::vector<int32_t>& ids, std::vector<int32_t>* out) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  MergeTable joins_;     // (last character of a left token, first of a right one) of all merges
  bool may_cut_ = true;  // whether joins_ says all about where merges can happen
  std::array<int32_t, 256> byte_ids_{};  // of "<0xAB>"; -1 where missing
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  std::optional<std::string> unknown_token_;
  std::optional<int32_t> unknown_id_;
  std::unique_ptr<PieceCache> cache_ = std::make_unique<PieceCache>();
};

}  // namespace temper
