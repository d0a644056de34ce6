#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace temper {

/// 64-bit hash of a file's content, for finding damage (no defence against a forger). With
/// P = 0x9E3779B97F4A7C15: four lanes that begin as P, 2P, 3P, 4P take the content's little-endian
/// 64-bit words in turn, lane = rotl(lane ^ word, 29) * P, the last 32 bytes padded with zeros;
/// then h = size and for each lane h = (h ^ lane) * P, h ^= h >> 32. Every step is invertible, so a
/// change within one word always changes the hash.
[[nodiscard]] uint64_t content_hash64(std::string_view bytes);

/// `content_hash64` of bytes that come in pieces; all but the last are whole blocks.
class ContentHash {
 public:
  static constexpr size_t kBlock = 32;

  void add(std::string_view piece);
  [[nodiscard]] uint64_t value() const;

 private:
  static constexpr uint64_t kPrime = 0x9E3779B97F4A7C15u;
  void mix(const char* block);

  std::array<uint64_t, 4> lanes_{kPrime, 2 * kPrime, 3 * kPrime, 4 * kPrime};
  uint64_t size_ = 0;
};

}  // namespace temper
