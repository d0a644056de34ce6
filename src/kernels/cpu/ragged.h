// Loops over ragged sequences of tokens.
#pragma once

#include <algorithm>
#include <cstdint>

#include "temper/core/error.h"
#include "temper/core/threads.h"

namespace temper::kernels {

/// Tokens a thread should have before another one is worth waking.
inline constexpr int64_t kTokensPerThread = 8192;

/// Calls `body(i, offsets[i], offsets[i + 1])` for every sequence, in parallel.
/// @throws Error in the name of `op` if sequences is negative or the offsets descend.
template <class Body>
void for_sequences(const char* op, const int64_t* offsets, int64_t sequences, const Body& body) {
  TEMPER_CHECK(sequences >= 0, "[", op, "] the number of sequences must be >= 0, got ", sequences);
  if (sequences == 0) return;
  for (int64_t i = 0; i < sequences; ++i) {
    TEMPER_CHECK(offsets[i] <= offsets[i + 1], "[", op, "] offsets must ascend, got ", offsets[i],
                 " and then ", offsets[i + 1]);
  }
  const int64_t tokens = std::max<int64_t>(1, offsets[sequences] - offsets[0]);
  const auto grain =
      static_cast<int64_t>(static_cast<double>(kTokensPerThread) / static_cast<double>(tokens) *
                           static_cast<double>(sequences));
  parallel_for(sequences, std::max<int64_t>(1, grain), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, offsets[i], offsets[i + 1]);
  });
}

}  // namespace temper::kernels
