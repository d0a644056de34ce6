#include "temper/nn/dropout.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/core/hash.h"
#include "temper/core/rng.h"
#include "temper/core/threads.h"

namespace temper {
namespace {

constexpr int64_t kRowGrain = 16;
constexpr uint64_t kStride = 0x9E3779B97F4A7C15u;

/// A bijection of 64-bit words whose every output bit depends on all of the input (the finalizer of
/// SplitMix64, Steele et al. 2014).
uint64_t scramble(uint64_t v) {
  v = (v ^ (v >> 30)) * 0xBF58476D1CE4E5B9u;
  v = (v ^ (v >> 27)) * 0x94D049BB133111EBu;
  return v ^ (v >> 31);
}

}  // namespace

std::vector<uint64_t> text_hashes(const TokenBatch& batch) {
  std::vector<uint64_t> hashes(batch.ids.size());
  for (const Segment& s : batch.segments) {
    uint64_t hash = kStride;
    if (s.parent >= 0) {
      const Segment& parent = batch.segments[static_cast<size_t>(s.parent)];
      hash = hashes[static_cast<size_t>(parent.start + parent.length - 1)];
    }
    for (int32_t row = s.start; row < s.start + s.length; ++row) {
      const auto at = static_cast<size_t>(row);
      hash = scramble(hash + kStride + static_cast<uint32_t>(batch.ids[at]));
      hashes[at] = hash;
    }
  }
  return hashes;
}

void drop_out(const Dropout& dropout, std::string_view matrix, const float* x, int64_t rows,
              int64_t k, float* out) {
  TEMPER_CHECK(std::ssize(dropout.texts) == rows, "[dropout] ", dropout.texts.size(), " texts for ",
               rows, " rows");
  const auto words = keyed_random(dropout.seed, RngPurpose::kDropout,
                                  static_cast<uint32_t>(dropout.step), content_hash64(matrix), 0);
  const uint64_t key = uint64_t{words[0]} << 32 | words[1];
  const auto dropped = static_cast<uint32_t>(std::lround(dropout.rate * 0x1p32 - 0.5));
  const auto scale = static_cast<float>(1.0 / (1.0 - dropout.rate));
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const uint64_t row = scramble(key ^ dropout.texts[static_cast<size_t>(r)]);
      const float* from = x + r * k;
      float* to = out + r * k;
      for (int64_t i = 0; i < k; i += 2) {  // A word has two draws.
        const uint64_t draw = scramble(row + static_cast<uint64_t>(i) * kStride);
        to[i] = static_cast<uint32_t>(draw) < dropped ? 0.0f : from[i] * scale;
        if (i + 1 < k) {
          to[i + 1] = static_cast<uint32_t>(draw >> 32) < dropped ? 0.0f : from[i + 1] * scale;
        }
      }
    }
  });
}

}  // namespace temper
