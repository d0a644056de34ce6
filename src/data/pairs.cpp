#include "temper/data/pairs.h"

#include <algorithm>

#include "temper/core/error.h"

namespace temper {
namespace {

/// @return the row of its last token.
int32_t append_segment(TokenBatch& b, int32_t parent, std::span<const int32_t> ids,
                       int64_t position) {
  b.segments.push_back(
      {parent, static_cast<int32_t>(b.ids.size()), static_cast<int32_t>(ids.size()), -1});
  for (const int32_t id : ids) {
    b.ids.push_back(id);
    b.positions.push_back(static_cast<int32_t>(position++));
  }
  return static_cast<int32_t>(b.ids.size()) - 1;
}

}  // namespace

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
  for (const TokenPair* pair : pairs) {
    int32_t parent = -1;
    int32_t shared_end = -1;
    if (!pair->shared.empty()) {
      parent = static_cast<int32_t>(out.tokens.segments.size());
      shared_end = append_segment(out.tokens, -1, pair->shared, 0);
    }
    for (const auto* side : {&pair->chosen, &pair->rejected}) {
      TEMPER_CHECK(!side->empty() || parent >= 0, "[pack_pairs] a side has no tokens");
      out.rows.push_back(side->empty()
                             ? shared_end
                             : append_segment(out.tokens, parent, *side, std::ssize(pair->shared)));
    }
  }
  return out;
}

}  // namespace temper
