#include "temper/kernels/sampling.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/sampling.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/logits-inl.h"
#include "cpu/logits_tile.h"
#include "cpu/sampling_filter.h"
#include "cpu/workspace.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// e[i] = exp(z[i] / T - max), the weights of row_stats.
void Weights(const float* z, int64_t padded, float inverse_temperature, float max, float* e) {
  const DF d;
  for (int64_t i = 0; i < padded; i += kLanes) {
    const VF scaled = hn::Mul(hn::LoadU(d, z + i), hn::Set(d, inverse_temperature));
    const VF x = hn::Max(hn::Sub(scaled, hn::Set(d, max)), hn::Set(d, kFarBelow));
    hn::StoreU(vexp(d, x), d, e + i);
  }
}

/// Inverse CDF: the first id whose cumulative weight exceeds u * total. Whole chunks are skipped by
/// their sums, never past the last one with weight; rounding falls back to the last id with weight.
int32_t walk(const float* z, int64_t padded, const RowStats& s, float inverse_temperature,
             const double* chunk_sums, double u) {
  const DF d;
  double left = u * s.sum;
  int64_t final_chunk = (padded - 1) / kLogitChunk;
  while (final_chunk > 0 && chunk_sums[final_chunk] <= 0) --final_chunk;
  int64_t chunk = 0;
  while (chunk < final_chunk && left >= chunk_sums[chunk]) left -= chunk_sums[chunk++];
  int32_t last = 0;  // Stays without any weight, which takes logits that are not numbers.
  for (int64_t begin = chunk * kLogitChunk; begin < padded; begin += kLogitChunk) {
    const int64_t end = std::min(padded, begin + kLogitChunk);
    for (int64_t i = begin; i < end; i += kLanes) {
      const VF scaled = hn::Mul(hn::LoadU(d, z + i), hn::Set(d, inverse_temperature));
      const VF x = hn::Max(hn::Sub(scaled, hn::Set(d, s.max)), hn::Set(d, kFarBelow));
      float e[kLanes];
      hn::StoreU(vexp(d, x), d, e);
      for (int lane = 0; lane < kLanes; ++lane) {
        if (e[lane] <= 0.0f) continue;
        last = static_cast<int32_t>(i + lane);
        left -= double{e[lane]};
        if (left < 0) return last;
      }
    }
  }
  return last;
}

SampledToken DrawRow(float* z, int64_t padded, const LinearSampleArgs& args, const SampleRow& row) {
  const SamplingParams& p = *row.params;
  const int64_t support = args.support > 0 ? args.support : args.head.n;
  const int64_t allowed = std::min(args.allowed, support);
  finish_logits(z, support, padded, args.softcap);
  const bool greedy = p.temperature == 0.0f;
  const float inverse_temperature = greedy ? 1.0f : 1.0f / p.temperature;
  std::vector<double> chunks(static_cast<size_t>((padded + kLogitChunk - 1) / kLogitChunk));
  const RowStats policy = row_stats(z, padded, inverse_temperature, chunks.data());
  SampledToken t;
  t.entropy = row_entropy(policy);
  if (greedy && p.repetition_penalty == 1.0f) {
    t.id = static_cast<int32_t>(std::max_element(z, z + allowed) - z);
    t.policy_logprob = row_logprob(policy, z[t.id], inverse_temperature);
    t.log_kept_mass = t.policy_logprob;
    return t;
  }
  if (!truncates(p) && allowed == support) {
    t.id = walk(z, padded, policy, inverse_temperature, chunks.data(), row.uniform);
    t.policy_logprob = t.logprob = row_logprob(policy, z[t.id], inverse_temperature);
    return t;
  }
  // The policy's own numbers need the logits as they were, the draw those that the rules left.
  float* w = workspace(Workspace::kScratch, static_cast<size_t>(padded));
  std::copy_n(z, padded, w);
  filter_logits({w, static_cast<size_t>(padded)}, allowed, p, row.seen);
  const RowStats kept = row_stats(w, padded, inverse_temperature, chunks.data());
  t.id = greedy ? static_cast<int32_t>(std::max_element(w, w + allowed) - w)
                : walk(w, padded, kept, inverse_temperature, chunks.data(), row.uniform);
  t.policy_logprob = row_logprob(policy, z[t.id], inverse_temperature);
  t.logprob = greedy ? 0.0f : row_logprob(kept, w[t.id], inverse_temperature);
  if (greedy) {
    t.log_kept_mass = t.policy_logprob;
    return t;
  }
  // The policy's mass over the ids that stay: exactly 1 when all do.
  for (int64_t i = 0; i < padded; ++i) {
    if (w[i] > -std::numeric_limits<float>::infinity()) w[i] = z[i];
  }
  const RowStats mass = row_stats(w, padded, inverse_temperature, nullptr);
  t.log_kept_mass = log_kept_mass(mass, policy);
  return t;
}

void Distribution(const float* z, int64_t padded, const SamplingParams& p, float* out) {
  const float inverse_temperature = 1.0f / p.temperature;
  const RowStats s = row_stats(z, padded, inverse_temperature, nullptr);
  Weights(z, padded, inverse_temperature, s.max, out);
  double total = 0;
  for (int64_t i = 0; i < padded; ++i) total += double{out[i]};
  for (int64_t i = 0; i < padded; ++i) out[i] = static_cast<float>(double{out[i]} / total);
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(DrawRow);
HWY_EXPORT(Distribution);
HWY_EXPORT(Weights);

namespace {
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// The k-th largest logit, or -inf when all stay.
float top_k_bound(std::span<const float> z, int64_t k) {
  std::vector<float> sorted(z.begin(), z.end());
  if (k <= 0 || k >= static_cast<int64_t>(sorted.size())) return kMinusInfinity;
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  return sorted[static_cast<size_t>(k - 1)];
}

/// Removes the least likely ids whose cumulative probability, from below, is at most 1 - p; among
/// equals the higher id goes first.
void apply_top_p(std::span<float> z, float inverse_temperature, float top_p) {
  const float max = *std::max_element(z.begin(), z.end()) * inverse_temperature + 0.0f;
  std::vector<float> e(z.size());
  HWY_DYNAMIC_DISPATCH(Weights)
  (z.data(), std::ssize(z), inverse_temperature, max, e.data());
  // The leading bits of most logits decide: only the ids of one bucket must be sorted.
  constexpr int kShift = 21;
  std::array<Mass, 2048> buckets{};
  Mass total = 0;
  for (size_t i = 0; i < z.size(); ++i) {
    buckets[ordered_key(z[i]) >> kShift] += mass_of(e[i]);
    total += mass_of(e[i]);
  }
  if (total == 0) return;
  Mass left = mass_to_remove(total, top_p);
  size_t bucket = 0;
  while (buckets[bucket] <= left) left -= buckets[bucket++];
  std::vector<std::pair<uint32_t, int64_t>> order;  // Key, and the id as its negative.
  for (size_t i = 0; i < z.size(); ++i) {
    const uint32_t key = ordered_key(z[i]);
    if (key >> kShift < bucket) z[i] = kMinusInfinity;
    if (key >> kShift == bucket) order.push_back({key, -static_cast<int64_t>(i)});
  }
  std::sort(order.begin(), order.end());
  for (const auto& [key, minus_id] : order) {
    const auto i = static_cast<size_t>(-minus_id);
    if (mass_of(e[i]) > left) return;
    left -= mass_of(e[i]);
    z[i] = kMinusInfinity;
  }
}

}  // namespace

bool truncates(const SamplingParams& p) {
  return p.top_k > 0 || p.top_p < 1.0f || p.min_p > 0.0f || p.repetition_penalty != 1.0f;
}

void filter_logits(std::span<float> z, int64_t allowed, const SamplingParams& p,
                   std::span<const int32_t> seen) {
  std::fill(z.begin() + allowed, z.end(), kMinusInfinity);
  if (p.repetition_penalty != 1.0f) {
    std::vector<int32_t> unique(seen.begin(), seen.end());
    std::sort(unique.begin(), unique.end());
    unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
    for (const int32_t id : unique) {
      float& v = z[static_cast<size_t>(id)];
      v = penalized(v, p.repetition_penalty);
    }
  }
  if (p.temperature == 0.0f) return;
  const float inverse_temperature = 1.0f / p.temperature;
  const float bound = top_k_bound(z, p.top_k);
  for (float& v : z) v = v < bound ? kMinusInfinity : v;
  if (p.top_p < 1.0f) apply_top_p(z, inverse_temperature, p.top_p);
  if (p.min_p > 0.0f) {
    const float max = *std::max_element(z.begin(), z.end());
    const float least = min_p_bound(p.min_p);
    for (float& v : z) {
      if ((v - max) * inverse_temperature < least) v = kMinusInfinity;
    }
  }
}

void linear_sample(const LinearSampleArgs& args) {
  if (const auto op = replacement(&KernelTable::linear_sample)) return op(args);
  const int64_t padded = panel_count(args.head.n) * kPanel;
  const int64_t total = static_cast<int64_t>(args.rows.size());
  constexpr int64_t kTileRows = 64;
  const int64_t stride = logit_stride(padded);
  float* z =
      workspace(Workspace::kLogits, static_cast<size_t>(std::min(kTileRows, total) * stride));
  for (int64_t row = 0; row < total; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, total - row);
    linear({.x = args.hidden + row * args.hidden_stride,
            .x_stride = args.hidden_stride,
            .weight = args.head,
            .y = z,
            .y_stride = stride,
            .rows = rows});
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const size_t at = static_cast<size_t>(row + r);
        args.out[at] = HWY_DYNAMIC_DISPATCH(DrawRow)(z + r * stride, padded, args, args.rows[at]);
      }
    });
  }
}

void sampling_distribution(std::span<const float> logits, const SamplingParams& params,
                           std::span<const int32_t> seen, std::span<float> probabilities) {
  if (const auto op = replacement(&KernelTable::sampling_distribution)) {
    return op(logits, params, seen, probabilities);
  }
  const int64_t n = static_cast<int64_t>(logits.size());
  const int64_t padded = panel_count(n) * kPanel;
  std::vector<float> z(static_cast<size_t>(padded), kMinusInfinity), out(z.size());
  std::copy(logits.begin(), logits.end(), z.begin());
  filter_logits(z, n, params, seen);
  if (params.temperature == 0.0f) {
    std::fill(probabilities.begin(), probabilities.end(), 0.0f);
    probabilities[static_cast<size_t>(std::max_element(z.begin(), z.begin() + n) - z.begin())] =
        1.0f;
    return;
  }
  HWY_DYNAMIC_DISPATCH(Distribution)(z.data(), padded, params, out.data());
  std::copy_n(out.begin(), n, probabilities.begin());
}

}  // namespace temper::kernels
#endif
