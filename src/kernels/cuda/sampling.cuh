#pragma once
// Draws a token for each row of a tile of logits, one block of threads a row, by the steps of
// cpu/sampling.cpp: the same token and the same numbers.

#include "cuda/logits.cuh"
#include "cuda/products.cuh"
#include "cuda/row_cut.cuh"
#include "temper/kernels/sampling.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// Rows [first, first + rows) of a call.
struct SampleTile {
  float* z;        // [rows, padded] products
  float* scratch;  // [rows, padded]
  int64_t padded;
  int64_t first;
  int64_t rows;
};

/// A block's shared memory.
struct SampleScratch {
  RowScratch row;
  CutScratch cut;
  float* weights;  // [kLogitChunk]
  int32_t* drawn;  // [2]: the last id with weight, 1 if it is the one

  static size_t bytes(int64_t padded) {
    return RowScratch::bytes(padded) + CutScratch::bytes() + shared_bytes<float>(kLogitChunk) +
           shared_bytes<int32_t>(2);
  }
  __device__ SampleScratch(SharedArena& arena, int64_t padded)
      : row(arena, padded),
        cut(arena),
        weights(arena.take<float>(kLogitChunk)),
        drawn(arena.take<int32_t>(2)) {}
};

__device__ __forceinline__ bool truncates(const SamplingParams& p) {
  return p.top_k > 0 || p.top_p < 1.0f || p.min_p > 0.0f || p.repetition_penalty != 1.0f;
}

/// One thread: skips whole chunks by their sums, never past the last with weight. Returns the chunk
/// in which the walk begins; `left` becomes what is left to walk.
__device__ __forceinline__ int64_t skip_chunks(const double* sums, int64_t chunks, double* left) {
  int64_t last = chunks - 1;
  while (last > 0 && sums[last] <= 0) --last;
  int64_t chunk = 0;
  while (chunk < last && *left >= sums[chunk]) *left -= sums[chunk++];
  return chunk;
}

/// One thread: takes the weights of `count` columns from `left` in order. The first column that
/// makes it negative is drawn.
__device__ __forceinline__ void walk_weights(const float* weights, int count, int64_t first,
                                             double* left, int32_t* drawn) {
  for (int i = 0; i < count; i += 8) {  // Eight loads at once; padded rows have multiples of 32.
    float e[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) e[j] = weights[i + j];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (e[j] <= 0.0f) continue;
      drawn[0] = static_cast<int32_t>(first + i + j);
      *left -= static_cast<double>(e[j]);
      if (*left < 0) {
        drawn[1] = 1;
        return;
      }
    }
  }
}

/// Inverse CDF over `z`, whose statistics are in `s.row`; all threads get the id.
__device__ __forceinline__ int32_t walk(const float* z, int64_t padded, const RowStats& stats,
                                        float scale, double uniform, const SampleScratch& s) {
  double left = uniform * stats.sum;  // Thread 0's is the walk's.
  int64_t chunk = skip_chunks(s.row.sums, RowScratch::chunks(padded), &left);
  if (threadIdx.x == 0) s.drawn[0] = s.drawn[1] = 0;
  for (int64_t begin = chunk * kLogitChunk; begin < padded; begin += kLogitChunk) {
    const int count = static_cast<int>(padded - begin < kLogitChunk ? padded - begin : kLogitChunk);
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
      s.weights[i] = vexp(centred(z[begin + i], scale, stats.max));
    }
    __syncthreads();
    if (threadIdx.x == 0) walk_weights(s.weights, count, begin, &left, s.drawn);
    __syncthreads();
    if (s.drawn[1] != 0) break;
  }
  return s.drawn[0];
}

/// The largest of z[0, n), n > 0, the lowest id of equals; all threads get it.
__device__ __forceinline__ int32_t lowest_largest(const float* z, int64_t n, Mass* scratch) {
  Place best = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const Place p = place_of(ordered_key(z[i]), i);
    best = p > best ? p : best;
  }
  const auto larger = [](Place a, Place b) { return a > b ? a : b; };
  return id_of(block_reduce(best, scratch, larger, Place{0}));
}

/// w becomes z with the seen ids penalized, and without the ids that are not allowed.
__device__ __forceinline__ void penalize(const LinearSampleArgs& g, const SampleTile& t,
                                         int64_t allowed, const float* z, float* w) {
  const int64_t row = t.first + blockIdx.x;
  const float penalty = g.params[row].repetition_penalty;
  for (int64_t i = threadIdx.x; i < t.padded; i += blockDim.x)
    w[i] = i < allowed ? z[i] : -INFINITY;
  __syncthreads();
  if (penalty == 1.0f || g.seen == nullptr) return;
  const int64_t end = g.seen_begin[row + 1];
  for (int64_t i = g.seen_begin[row] + threadIdx.x; i < end; i += blockDim.x) {
    const int64_t id = g.seen[i];
    if (id < 0 || id >= allowed) continue;
    // An id may stand there twice: what is written does not depend on what was.
    atomicExch(reinterpret_cast<unsigned*>(w + id), __float_as_uint(penalized(z[id], penalty)));
  }
  __syncthreads();
}

/// Top-k, top-p and min-p: what is dropped from `w` becomes -inf.
__device__ __forceinline__ void truncate(const SamplingParams& p, float scale, float* w,
                                         int64_t padded, const SampleScratch& s) {
  float top = -INFINITY;
  for (int64_t i = threadIdx.x; i < padded; i += blockDim.x) top = fmaxf(top, w[i]);
  top = block_max(top, s.row.warps);
  const auto place = [&](int64_t i) { return place_of(ordered_key(w[i]), i); };
  Place cut = 0;
  if (p.top_k > 0 && p.top_k < padded) {
    cut = find_cut<false>(
        padded, place, [](uint32_t) { return Mass{1}; },
        [&](Mass total, Mass* most) {
          *most = total - static_cast<Mass>(p.top_k);
          return true;
        },
        s.cut);
  }
  if (p.top_p < 1.0f) {
    const float max = top * scale + 0.0f;
    const uint32_t least = key_of(cut);
    cut = find_cut<true>(
        padded, place,
        [&](uint32_t key) {
          return key < least ? Mass{0} : mass_of(vexp(centred(logit_of(key), scale, max)));
        },
        [&](Mass total, Mass* most) {
          if (total == 0) return false;
          *most = mass_to_remove(total, p.top_p);
          return true;
        },
        s.cut);
  }
  const float least = p.min_p > 0.0f ? min_p_bound(p.min_p) : -INFINITY;
  for (int64_t i = threadIdx.x; i < padded; i += blockDim.x) {
    if (place(i) < cut || (w[i] - top) * scale < least) w[i] = -INFINITY;
  }
  __syncthreads();
}

/// The draw of a row whose rules change the policy's distribution.
__device__ __forceinline__ SampledToken draw_truncated(const LinearSampleArgs& g,
                                                       const SampleTile& t, int64_t allowed,
                                                       const RowStats& policy,
                                                       const SampleScratch& s) {
  const int64_t row = t.first + blockIdx.x;
  const SamplingParams p = g.params[row];
  const bool greedy = p.temperature == 0.0f;
  const float scale = greedy ? 1.0f : 1.0f / p.temperature;
  const float* z = t.z + blockIdx.x * t.padded;
  float* w = t.scratch + blockIdx.x * t.padded;
  SampledToken out;
  out.entropy = row_entropy(policy);
  penalize(g, t, allowed, z, w);
  if (greedy) {
    out.id = lowest_largest(w, allowed, s.cut.bins);
    out.policy_logprob = out.log_kept_mass = row_logprob(policy, z[out.id], scale);
    return out;
  }
  truncate(p, scale, w, t.padded, s);
  const auto rules = [&](int64_t i) { return w[i]; };
  const RowStats kept = row_stats(rules, t.padded, scale, s.row);
  out.id = walk(w, t.padded, kept, scale, g.uniforms[row], s);
  out.policy_logprob = row_logprob(policy, z[out.id], scale);
  out.logprob = row_logprob(kept, w[out.id], scale);
  // The policy's mass over the ids that stay: exactly 1 when all do.
  const auto stays = [&](int64_t i) { return w[i] > -INFINITY ? z[i] : -INFINITY; };
  out.log_kept_mass = log_kept_mass(row_stats(stays, t.padded, scale, s.row), policy);
  return out;
}

__global__ void __launch_bounds__(kRowThreads, 1) draw_rows(LinearSampleArgs g, SampleTile t) {
  SharedArena arena;
  const SampleScratch s(arena, t.padded);
  const int64_t row = t.first + blockIdx.x;
  const SamplingParams p = g.params[row];
  const int64_t support = g.support > 0 ? g.support : g.head.n;
  const int64_t allowed = g.allowed < support ? g.allowed : support;
  float* z = t.z + blockIdx.x * t.padded;
  finish_row(z, support, t.padded, g.softcap);
  const bool greedy = p.temperature == 0.0f;
  const float scale = greedy ? 1.0f : 1.0f / p.temperature;
  const auto logit = [&](int64_t i) { return z[i]; };
  const RowStats policy = row_stats(logit, t.padded, scale, s.row);
  SampledToken out;
  out.entropy = row_entropy(policy);
  if (greedy && p.repetition_penalty == 1.0f) {
    out.id = lowest_largest(z, allowed, s.cut.bins);
    out.policy_logprob = out.log_kept_mass = row_logprob(policy, z[out.id], scale);
  } else if (!greedy && !truncates(p) && allowed == support) {
    out.id = walk(z, t.padded, policy, scale, g.uniforms[row], s);
    out.policy_logprob = out.logprob = row_logprob(policy, z[out.id], scale);
  } else {
    out = draw_truncated(g, t, allowed, policy, s);
  }
  if (threadIdx.x == 0) g.out[row] = out;
}

/// An empty text, or why the arguments cannot be.
inline const char* sample_problem(const LinearSampleArgs& g) {
  if (g.rows < 0) return "[linear_sample] rows must be >= 0";
  if (g.head.n < 1 || g.head.n > kMostIds) {
    return "[linear_sample] the vocabulary must have 1 to 4,194,304 ids";
  }
  if (g.allowed < 1 || g.allowed > g.head.n) {
    return "[linear_sample] allowed must be in [1, vocabulary]";
  }
  if (g.support < 0 || g.support > g.head.n) {
    return "[linear_sample] support must be in [0, vocabulary]";
  }
  if (!(g.softcap >= 0)) return "[linear_sample] a softcap must not be negative";
  if (g.seen != nullptr && g.seen_begin == nullptr) {
    return "[linear_sample] seen ids need seen_begin";
  }
  return "";
}

inline Status launch_draw_rows(const LinearSampleArgs& g, const SampleTile& t, int threads,
                               Stream stream) {
  if (!row_threads_ok(threads)) return invalid_argument("[linear_sample] odd number of threads");
  return launch(draw_rows, static_cast<unsigned>(t.rows), static_cast<unsigned>(threads),
                SampleScratch::bytes(t.padded), stream, g, t);
}

inline Status launch_linear_sample(const LinearSampleArgs& g, float* workspace, Stream stream,
                                   int threads = kRowThreads) {
  const char* problem = sample_problem(g);
  if (*problem != 0) return invalid_argument(problem);
  const int64_t padded = panel_count(g.head.n) * kPanel;
  const int64_t most = g.rows < kSampleTileRows ? g.rows : kSampleTileRows;
  for (int64_t first = 0; first < g.rows; first += kSampleTileRows) {
    const int64_t rows = g.rows - first < kSampleTileRows ? g.rows - first : kSampleTileRows;
    const SampleTile t{workspace, workspace + most * padded, padded, first, rows};
    Status status = product(LinearArgs{.x = g.hidden + first * g.hidden_stride,
                                       .x_stride = g.hidden_stride,
                                       .weight = g.head,
                                       .y = t.z,
                                       .y_stride = padded,
                                       .rows = rows},
                            stream);
    if (status.ok()) status = launch_draw_rows(g, t, threads, stream);
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
