#pragma once
// What linear_logprob does with a tile of logits: one block of threads a row.

#include "cuda/elementwise.cuh"
#include "cuda/logits.cuh"
#include "cuda/row_cut.cuh"
#include "temper/kernels/linear_logprob.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// Rows [first, first + rows) of a call.
struct HeadTile {
  float* z;          // [rows, padded] products, or logits
  float* reference;  // The reference's, or null.
  int64_t padded;    // Columns, whole panels.
  int64_t first;
  int64_t rows;
};

__device__ __forceinline__ int64_t support_of(const LinearLogprobArgs& g) {
  return g.support > 0 ? g.support : g.head.n;
}

/// The `top_k` largest logits: cut off by exact counts, then each counts those above it.
__device__ __forceinline__ void top_k_of_row(const LinearLogprobArgs& g, const float* z,
                                             const RowStats& stats, int64_t row, int64_t padded,
                                             const CutScratch& s) {
  const auto place = [&](int64_t i) { return place_of(ordered_key(z[i]), i); };
  const Mass wanted = static_cast<Mass>(g.top_k);
  const auto possible = [](uint32_t key) { return static_cast<Mass>(key > kKeyOfMinusInfinity); };
  const Place cut = find_cut<true>(
      padded, place, possible,
      [&](Mass total, Mass* most) {
        *most = total - wanted;
        return total > wanted;
      },
      s);
  // The bins are free for the places that stay, the first number found for their count.
  __syncthreads();
  if (threadIdx.x == 0) s.found[0] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < padded; i += blockDim.x) {
    const Place p = place(i);
    if (p < cut || possible(key_of(p)) == 0) continue;
    const Mass slot = atomicAdd(&s.found[0], 1);
    if (slot < wanted) s.bins[slot] = p;
  }
  __syncthreads();
  const Mass found = s.found[0] < wanted ? s.found[0] : wanted;
  for (Mass i = threadIdx.x; i < wanted; i += blockDim.x) {
    Mass rank = i;
    if (i < found) {
      rank = 0;
      for (Mass j = 0; j < found; ++j) rank += s.bins[j] > s.bins[i];
    }
    const int64_t at = row * g.top_k + static_cast<int64_t>(rank);
    const int32_t id = i < found ? id_of(s.bins[i]) : -1;
    g.top_ids[at] = id;
    g.top_logprobs[at] = i < found ? row_logprob(stats, z[id], g.inverse_temperature) : -INFINITY;
  }
}

/// Products become logits in place; their statistics are written.
__global__ void __launch_bounds__(kRowThreads) rows_forward(LinearLogprobArgs g, HeadTile t) {
  SharedArena arena;
  const RowScratch s(arena, t.padded);
  const int64_t row = t.first + blockIdx.x;
  const float scale = g.inverse_temperature;
  float* z = t.z + blockIdx.x * t.padded;
  const auto logit = [&](int64_t i) { return z[i]; };
  finish_row(z, support_of(g), t.padded, g.softcap);
  const RowStats p = row_stats(logit, t.padded, scale, s);
  const int32_t target = g.targets[row];
  if (threadIdx.x == 0) {
    g.logprob[row] = row_logprob(p, z[target], scale);
    if (g.entropy != nullptr) g.entropy[row] = row_entropy(p);
    if (g.max != nullptr) g.max[row] = p.max;
    if (g.log_sum != nullptr) g.log_sum[row] = row_log_sum(p);
  }
  if (g.top_k > 0) {
    const CutScratch cut(arena);
    top_k_of_row(g, z, p, row, t.padded, cut);
  }
  if (t.reference == nullptr) return;
  float* y = t.reference + blockIdx.x * t.padded;
  const auto reference = [&](int64_t i) { return y[i]; };
  finish_row(y, support_of(g), t.padded, g.reference.softcap);
  const RowStats q = row_stats(reference, t.padded, scale, s);
  const double difference =
      kl_difference([&](int64_t i) { return centred(z[i], scale, p.max); },
                    [&](int64_t i) { return centred(y[i], scale, q.max); }, t.padded, s);
  if (threadIdx.x != 0) return;
  g.reference.kl[row] = row_kl_from(difference, p, q);
  if (g.reference.logprob != nullptr) g.reference.logprob[row] = row_logprob(q, y[target], scale);
  if (g.reference.max != nullptr) g.reference.max[row] = q.max;
  if (g.reference.log_sum != nullptr) g.reference.log_sum[row] = row_log_sum(q);
}

/// The numbers of one row that its gradient takes.
struct RowGradient {
  bool any;
  float scale;
  float max, log_sum;  // Of the policy.
  float g, e, c;       // d loss / d logprob, entropy and KL
  float constant;      // g + e H + c KL
  float ref_max, ref_log_sum;
  float inverse_softcap;  // 0: none.
};

__device__ __forceinline__ bool has_gradient(const LinearLogprobBackwardArgs& b, int64_t row) {
  return b.dlogprob[row] != 0.0f || (b.dentropy != nullptr && b.dentropy[row] != 0.0f) ||
         (b.dkl != nullptr && b.dkl[row] != 0.0f);
}

__device__ __forceinline__ RowGradient row_gradient(const LinearLogprobBackwardArgs& b,
                                                    int64_t row) {
  const LinearLogprobArgs& f = b.forward;
  RowGradient r{};
  r.any = has_gradient(b, row);
  r.scale = f.inverse_temperature;
  r.max = f.max[row];
  r.log_sum = f.log_sum[row];
  r.g = r.constant = b.dlogprob[row];
  if (b.dentropy != nullptr && b.dentropy[row] != 0.0f) {
    r.e = b.dentropy[row];
    r.constant += r.e * f.entropy[row];
  }
  if (b.dkl != nullptr && b.dkl[row] != 0.0f) {
    r.c = b.dkl[row];
    r.constant += r.c * f.reference.kl[row];
    r.ref_max = f.reference.max[row];
    r.ref_log_sum = f.reference.log_sum[row];
  }
  r.inverse_softcap = f.softcap > 0 ? 1.0f / f.softcap : 0.0f;
  return r;
}

/// -p_v (constant + e x - c (x - y)) / T with x = ln p_v and y = ln q_v, times the cap's slope.
__device__ __forceinline__ float logit_gradient(const RowGradient& r, float z, float reference) {
  const float x = fmaxf(z * r.scale - r.max - r.log_sum, kFarBelow);
  const float p = vexp(x) * -r.scale;
  float factor = fmaf(r.e, x, r.constant);
  if (r.c != 0.0f) {
    const float y = fmaxf(reference * r.scale - r.ref_max - r.ref_log_sum, kFarBelow);
    factor = fmaf(-r.c, x - y, factor);
  }
  const float dz = p * factor;
  if (!(r.inverse_softcap > 0)) return dz;
  const float t = z * r.inverse_softcap;
  return dz * fmaxf(fmaf(-t, t, 1.0f), 0.0f);
}

/// The target's own term.
__device__ __forceinline__ float target_gradient(const RowGradient& r, float z) {
  const float capped = z * r.inverse_softcap;
  const float slope = r.inverse_softcap > 0 ? 1.0f - fminf(capped * capped, 1.0f) : 1.0f;
  return r.g * r.scale * slope;
}

/// Logits (products, if not `finished`) become the gradient of the loss by the products, in place;
/// zeros where a row has no coefficient.
__global__ void __launch_bounds__(kRowThreads)
    rows_backward(LinearLogprobBackwardArgs b, HeadTile t, bool finished) {
  const LinearLogprobArgs& f = b.forward;
  const int64_t row = t.first + blockIdx.x;
  const RowGradient r = row_gradient(b, row);
  const int64_t support = support_of(f);
  const int64_t target = f.targets[row];
  float* z = t.z + blockIdx.x * t.padded;
  const float* y = t.reference == nullptr ? nullptr : t.reference + blockIdx.x * t.padded;
#pragma unroll 2
  for (int64_t i = threadIdx.x; i < t.padded; i += blockDim.x) {
    float dz = 0;
    if (r.any) {
      float logit = z[i], reference = r.c != 0.0f ? y[i] : 0.0f;
      if (!finished) {
        logit = finish_logit(logit, i, support, f.softcap);
        reference = finish_logit(reference, i, support, f.reference.softcap);
      }
      dz = logit_gradient(r, logit, reference);
      if (i == target) dz += target_gradient(r, logit);
    }
    z[i] = dz;
  }
}

/// A tile's hidden rows for the weight's gradient: zeros where a row has no coefficient, as 0 times
/// what stands there might not be 0. A block a row.
__global__ void __launch_bounds__(kElementThreads)
    copy_rows_with_gradient(LinearLogprobBackwardArgs b, HeadTile t, float* copy) {
  const LinearLogprobArgs& f = b.forward;
  const int64_t row = t.first + blockIdx.x;
  const float* from = f.hidden + row * f.hidden_stride;
  float* to = copy + blockIdx.x * f.head.k;
  const bool any = has_gradient(b, row);
  for (int64_t i = threadIdx.x; i < f.head.k; i += blockDim.x) to[i] = any ? from[i] : 0.0f;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
