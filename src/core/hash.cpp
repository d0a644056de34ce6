#include "temper/core/hash.h"

#include <bit>
#include <cstring>

namespace temper {

void ContentHash::mix(const char* block) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    uint64_t word = 0;
    std::memcpy(&word, block + 8 * i, 8);
    static_assert(std::endian::native == std::endian::little);
    lanes_[i] = std::rotl(lanes_[i] ^ word, 29) * kPrime;
  }
}

void ContentHash::add(std::string_view piece) {
  size_t at = 0;
  for (; piece.size() - at >= kBlock; at += kBlock) mix(piece.data() + at);
  if (at < piece.size()) {
    std::array<char, kBlock> last{};
    std::memcpy(last.data(), piece.data() + at, piece.size() - at);
    mix(last.data());
  }
  size_ += piece.size();
}

uint64_t ContentHash::value() const {
  uint64_t hash = size_;
  for (const uint64_t lane : lanes_) {
    hash = (hash ^ lane) * kPrime;
    hash ^= hash >> 32;
  }
  return hash;
}

uint64_t content_hash64(std::string_view bytes) {
  ContentHash hash;
  hash.add(bytes);
  return hash.value();
}

}  // namespace temper
