#include "temper/kernels/masked_stats.h"

#include <algorithm>
#include <vector>

#include "cpu/ragged.h"
#include "stats_formula.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

namespace temper::kernels {
namespace {

/// Sum of `term(i)` over the active i of [begin, end), at most one block.
template <class Term>
double block_sum(const uint8_t* mask, int64_t begin, int64_t end, const Term& term) {
  double lane[kStatsLanes] = {};
  for (int64_t i = begin; i < end; ++i) {
    if (mask == nullptr || mask[i] != 0) lane[(i - begin) % kStatsLanes] += term(i);
  }
  for (int half = kStatsLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

template <class Term>
double masked_sum(const uint8_t* mask, int64_t count, const Term& term) {
  const int64_t blocks = (count + kStatsBlock - 1) / kStatsBlock;
  std::vector<double> parts(static_cast<size_t>(blocks));
  parallel_for(blocks, kTokensPerThread / kStatsBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      parts[static_cast<size_t>(b)] =
          block_sum(mask, b * kStatsBlock, std::min(count, (b + 1) * kStatsBlock), term);
    }
  });
  double total = 0;
  for (const double p : parts) total += p;
  return total;
}

}  // namespace

MaskedStats masked_stats(const float* x, const uint8_t* mask, int64_t count) {
  TEMPER_CHECK(count >= 0, "[masked_stats] count must be >= 0, got ", count);
  if (const auto op = replacement(&KernelTable::masked_stats)) return op(x, mask, count);
  MaskedStats s;
  s.count = mask == nullptr ? count : count - std::count(mask, mask + count, uint8_t{0});
  if (s.count == 0) return s;
  s.sum = masked_sum(mask, count, [&](int64_t i) { return double{x[i]}; });
  s.mean = s.sum / static_cast<double>(s.count);
  if (s.count == 1) return s;
  const double squares = masked_sum(mask, count, [&](int64_t i) {
    const double off = double{x[i]} - s.mean;
    return off * off;
  });
  s.variance = squares / static_cast<double>(s.count - 1);
  return s;
}

void whiten(const WhitenArgs& a) {
  TEMPER_CHECK(a.count >= 0, "[whiten] count must be >= 0, got ", a.count);
  if (const auto op = replacement(&KernelTable::whiten)) return op(a);
  parallel_for(a.count, kTokensPerThread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const bool active = a.mask == nullptr || a.mask[i] != 0;
      a.y[i] = active ? static_cast<float>(whitened(double{a.x[i]}, *a.stats, a)) : 0.0f;
    }
  });
}

}  // namespace temper::kernels
