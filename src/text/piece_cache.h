#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "vocabulary.h"

namespace temper {

/// Remembers the ids of pieces. Bounded: a shard that is full is emptied. Safe from any thread.
class PieceCache {
 public:
  /// Appends the ids of `piece` to `out`. @return whether they were known.
  bool append(std::string_view piece, std::vector<int32_t>* out) {
    if (piece.size() > kMaxPieceBytes) return false;
    Shard& shard = shard_of(piece);
    const std::lock_guard lock(shard.mutex);
    const auto it = shard.ids.find(piece);
    if (it == shard.ids.end()) return false;
    out->insert(out->end(), it->second.begin(), it->second.end());
    return true;
  }

  void insert(std::string_view piece, const int32_t* begin, const int32_t* end) {
    if (piece.size() > kMaxPieceBytes) return;
    Shard& shard = shard_of(piece);
    const std::lock_guard lock(shard.mutex);
    if (shard.ids.size() >= kMaxPiecesPerShard) shard.ids.clear();
    shard.ids.try_emplace(std::string(piece), begin, end);
  }

 private:
  static constexpr size_t kShards = 16;
  static constexpr size_t kMaxPiecesPerShard = 4096;
  static constexpr size_t kMaxPieceBytes = 256;

  struct Shard {
    std::mutex mutex;
    StringMap<std::vector<int32_t>> ids;
  };
  Shard& shard_of(std::string_view piece) {
    return shards_[StringHash{}(piece) >> 7 & (kShards - 1)];
  }

  std::array<Shard, kShards> shards_;
};

}  // namespace temper
