#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "temper/core/rng.h"

namespace temper::test {

inline constexpr float kNaNf = std::numeric_limits<float>::quiet_NaN();

/// Uniform numbers that a float holds, the same on every machine.
inline std::vector<float> uniform_floats(int64_t n, uint64_t step, double low, double high) {
  RngStream rng(17, RngPurpose::kTest, step);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& v : out) v = static_cast<float>(low + (high - low) * rng.next_uniform());
  return out;
}

/// Token streams of sequences of many lengths, with gaps of masked tokens. At masked places every
/// array holds NaN or an infinity.
struct RaggedCase {
  std::vector<int64_t> offsets{0};
  std::vector<uint8_t> mask;
  std::vector<float> logprobs, ref, exact, rewards, values;  ///< [tokens]
  std::vector<float> scores, bootstrap;                      ///< [sequences]
  std::vector<uint8_t> truncated;                            ///< [sequences]

  [[nodiscard]] int64_t sequences() const { return std::ssize(offsets) - 1; }
  [[nodiscard]] int64_t tokens() const { return offsets.back(); }
  [[nodiscard]] bool active(int64_t t) const { return mask[static_cast<size_t>(t)] != 0; }

  explicit RaggedCase(const std::vector<int64_t>& lengths) {
    for (const int64_t n : lengths) offsets.push_back(offsets.back() + n);
    const int64_t n = tokens();
    const std::vector<float> draw = uniform_floats(n, 0, 0, 1);
    for (const float u : draw) mask.push_back(u < 0.7f ? 1 : 0);
    logprobs = uniform_floats(n, 1, -4, 0);
    ref = uniform_floats(n, 2, -4, 0);
    exact = uniform_floats(n, 3, 0, 2);
    rewards = uniform_floats(n, 4, -1, 1);
    values = uniform_floats(n, 5, -2, 2);
    scores = uniform_floats(sequences(), 6, -3, 3);
    bootstrap = uniform_floats(sequences(), 7, -2, 2);
    for (int64_t i = 0; i < sequences(); ++i) {
      const bool cut = i % 2 == 1;
      truncated.push_back(cut ? 1 : 0);
      if (!cut) bootstrap[static_cast<size_t>(i)] = kNaNf;
    }
    poison();
  }

  /// Masks all tokens of one sequence.
  void mask_out(int64_t sequence) {
    const auto i = static_cast<size_t>(sequence);
    for (int64_t t = offsets[i]; t < offsets[i + 1]; ++t) mask[static_cast<size_t>(t)] = 0;
    poison();
  }

 private:
  void poison() {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    for (std::vector<float>* x : {&logprobs, &ref, &exact, &rewards, &values}) {
      for (size_t t = 0; t < mask.size(); ++t) {
        if (mask[t] == 0) (*x)[t] = t % 3 == 0 ? kInf : kNaNf;
      }
    }
  }
};

/// Lengths around every boundary, one sequence empty and one fully masked.
inline RaggedCase ragged_case() {
  RaggedCase c({1, 31, 32, 0, 33, 255, 64, 1025, 2, 96});
  c.mask_out(6);
  return c;
}

}  // namespace temper::test
