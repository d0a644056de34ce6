#pragma once

#include <array>
#include <cstdint>

namespace temper {

/// What a random number is drawn for. A new purpose gets a new value at the end: the numbers are
/// part of what makes a stored run replay.
enum class RngPurpose : uint32_t {
  kInit = 0,
  kSample = 1,
  kShuffle = 2,
  kTask = 3,
  kSplit = 4,
  kTest = 5,
  kMinibatch = 6,
  kMoments = 7,
  kDropout = 8,
};

/// Philox4x32-10 (Salmon et al. 2011): four 32-bit words from a 64-bit key and a 128-bit counter.
/// Pure and stateless, so a draw depends on its coordinates alone, never on batch order or threads.
[[nodiscard]] constexpr std::array<uint32_t, 4> philox4x32(uint64_t key,
                                                           std::array<uint32_t, 4> counter) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

/// Uniform double in [0, 1) with 53 random bits.
[[nodiscard]] constexpr double uniform_from_bits(uint32_t high, uint32_t low) {
  return static_cast<double>((uint64_t{high} << 21) ^ (uint64_t{low} >> 11)) * 0x1p-53;
}

/// A draw by coordinates: (seed, purpose, step) is the key, (sequence, position) the counter.
[[nodiscard]] constexpr std::array<uint32_t, 4> keyed_random(uint64_t seed, RngPurpose purpose,
                                                             uint32_t step, uint64_t sequence,
                                                             uint32_t position) {
  const auto k = philox4x32(seed, {static_cast<uint32_t>(purpose), step, 0x7465u, 0x6d70u});
  return philox4x32(
      (uint64_t{k[0]} << 32) | k[1],
      {static_cast<uint32_t>(sequence), static_cast<uint32_t>(sequence >> 32), position, k[2]});
}

/// A small stream over `philox4x32` for code that needs many numbers in a fixed order (shuffles,
/// generated tasks). Its whole state is (seed, purpose, stream, position).
class RngStream {
 public:
  constexpr RngStream(uint64_t seed, RngPurpose purpose, uint64_t stream)
      : seed_(seed), purpose_(purpose), stream_(stream) {}

  [[nodiscard]] constexpr uint64_t next_u64() {
    const auto r = keyed_random(seed_, purpose_, 0, stream_, position_++);
    return (uint64_t{r[0]} << 32) | r[1];
  }
  /// Uniform in [0, 1).
  [[nodiscard]] constexpr double next_uniform() {
    const uint64_t u = next_u64();
    return uniform_from_bits(static_cast<uint32_t>(u >> 32), static_cast<uint32_t>(u));
  }
  /// Uniform integer in [0, n), n >= 1, without modulo bias worth naming (n far below 2^53).
  [[nodiscard]] constexpr uint64_t next_below(uint64_t n) {
    return static_cast<uint64_t>(next_uniform() * static_cast<double>(n));
  }

 private:
  uint64_t seed_;
  RngPurpose purpose_;
  uint64_t stream_;
  uint32_t position_ = 0;
};

}  // namespace temper
