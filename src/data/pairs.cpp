#include "temper/data/pairs.h"

#include <algorithm>

#include "append_segment.h"
#include "temper/core/error.h"

namespace temper {
int64_t TokenPair::rows() const {
  return std::ssize(shared) + std::ssize(chosen) + std::ssize(rejected);
}

int64_t TokenPair::tokens() const { return rows() + std::ssize(shared); }

TokenPair token_pair(std::span<const int32_t> chosen, std::span<const int32_t> rejected) {
  TEMPER_CHECK(!chosen.empty() && !rejected.empty(), "[token_pair] a side has no tokens");
  const auto ends = std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end());
  TEMPER_CHECK(ends.first != chosen.end() || ends.second != rejected.end(),
               "[token_pair] both sides are the same tokens");
  TokenPair pair;
  pair.shared.assign(chosen.begin(), ends.first);
  pair.chosen.assign(ends.first, chosen.end());
  pair.rejected.assign(ends.second, rejected.end());
  return pair;
}

PairBatch pack_pairs(std::span<const TokenPair* const> pairs) {
  PairBatch out;
  const auto last_row = [&] { return static_cast<int32_t>(out.tokens.ids.size()) - 1; };
  for (const TokenPair* pair : pairs) {
    int32_t parent = -1;
    int32_t shared_end = -1;
    if (!pair->shared.empty()) {
      parent = static_cast<int32_t>(out.tokens.segments.size());
      (void)append_segment(out.tokens, -1, pair->shared, 0);
      shared_end = last_row();
    }
    for (const auto* side : {&pair->chosen, &pair->rejected}) {
      TEMPER_CHECK(!side->empty() || parent >= 0, "[pack_pairs] a side has no tokens");
      if (!side->empty()) {
        (void)append_segment(out.tokens, parent, *side, std::ssize(pair->shared));
      }
      out.rows.push_back(side->empty() ? shared_end : last_row());
    }
  }
  return out;
}

}  // namespace temper
