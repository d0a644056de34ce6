#pragma once
// One kernel that uses every word of the vocabulary once. Run by the emulator and, where there is
// one, by a GPU: they must agree in every bit.

#include "cuda/math.cuh"
#include "cuda/reduce.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kVocabularyRows = 44;
inline constexpr int kVocabularyWords = kVocabularyRows * 32;

/// Appends one word a lane.
struct Rows {
  uint32_t* out;
  int row = 0;
  __device__ void add(uint32_t v) { out[row++ * 32 + static_cast<int>(lane_id())] = v; }
  __device__ void add(int v) { add(static_cast<uint32_t>(v)); }
  __device__ void add(float v) { add(__float_as_uint(v)); }
};

__device__ inline void warp_words(Rows& rows, uint32_t v) {
  const int lane = static_cast<int>(lane_id()), i = static_cast<int>(v);
  rows.add(__shfl_sync(kAllLanes, v, (lane * 7) & 31));
  rows.add(__shfl_sync(kAllLanes, v, 3, 8));
  rows.add(__shfl_xor_sync(kAllLanes, v, 5));
  rows.add(__shfl_up_sync(kAllLanes, v, 3u, 16));
  rows.add(__shfl_down_sync(kAllLanes, v, 3u));
  rows.add(__ballot_sync(kAllLanes, (v & 1) != 0));
  rows.add(__any_sync(kAllLanes, lane == 9));
  rows.add(__all_sync(kAllLanes, lane < 31));
  rows.add(__match_any_sync(kAllLanes, v % 5));
  rows.add(__reduce_add_sync(kAllLanes, v));
  rows.add(__reduce_min_sync(kAllLanes, v));
  rows.add(__reduce_max_sync(kAllLanes, v));
  rows.add(__reduce_min_sync(kAllLanes, i));
  rows.add(__reduce_max_sync(kAllLanes, i));
  rows.add(__reduce_and_sync(kAllLanes, v | 1));
  rows.add(__reduce_or_sync(kAllLanes, v & 0xffff));
  rows.add(__reduce_xor_sync(kAllLanes, v));
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  rows.add(__shfl_xor_sync(half, v, 1));
  __syncwarp(half);
}

__device__ inline void scalar_words(Rows& rows, uint32_t v) {
  rows.add(__popc(v));
  rows.add(__popcll(static_cast<unsigned long long>(v) << 8 | 5));
  rows.add(__ffs(static_cast<int>(v)));
  rows.add(__clz(static_cast<int>(v >> 5)));
  rows.add(__clzll(static_cast<long long>(v)));
  rows.add(__umulhi(v, 0x9e3779b9u));
  rows.add(min(v, 0x80000000u));
  rows.add(max(static_cast<int>(v), 7));
  const float x = static_cast<float>(static_cast<int>(v)) * 0x1p-26f;  // In [-32, 32).
  rows.add(vexp(x));
  rows.add(vlog(fabsf(x) + 0.001f));
  rows.add(vsigmoid(x));
  rows.add(vtanh(x * 0.1f));
  rows.add(x / 3.0f);
  rows.add(sqrtf(fabsf(x)));
  rows.add(fmaf(x, x, 0.1f) + fmaxf(x, 1.0f) * fminf(x, -1.0f));
  rows.add(static_cast<int>(__bfloat16_as_ushort(__float2bfloat16_rn(x))));
  rows.add(__bfloat162float(__ushort_as_bfloat16(static_cast<uint16_t>(v & 0x3fff))));
  rows.add(static_cast<int>(__half_as_ushort(__float2half_rn(x))));
  rows.add(__half2float(__ushort_as_half(static_cast<uint16_t>(v & 0x3fff))));
  const double d = static_cast<double>(x) / 3.0;
  rows.add(static_cast<uint32_t>(__double_as_longlong(d * d + 1.0)));
}

/// One warp. in: 128 words; 16-byte aligned. out: kVocabularyWords.
__global__ void __launch_bounds__(32, 1) vocabulary(const uint32_t* in, uint32_t* out) {
  SharedArena arena;
  uint32_t* copied = arena.take<uint32_t>(128);
  unsigned* counters = arena.take<unsigned>(5);
  const unsigned lane = lane_id();
  Rows rows{out};
  const uint32_t v = __ldg(in + lane);
  warp_words(rows, v);
  scalar_words(rows, v);
  async_copy16(copied + 4 * lane, in + 4 * lane, lane % 2 == 0 ? 16 : 8);
  async_commit();
  if (lane < 5) counters[lane] = 100;
  async_wait<0>();
  __syncthreads();
  rows.add(copied[(lane * 5 + 3) & 127]);
  atomicAdd(&counters[0], v & 15);
  atomicMax(&counters[1], v & 1023);
  atomicMin(&counters[2], v & 1023);
  for (unsigned seen = 100, old; (old = atomicCAS(&counters[3], seen, seen + 1)) != seen;) {
    seen = old;
  }
  if (lane == 4) atomicExch(&counters[4], v);
  __syncthreads();
  rows.add(counters[lane % 5]);
  // Small integers: exact in any order of accumulation.
  const float a0 = static_cast<float>(v & 7), a1 = static_cast<float>(v >> 3 & 7);
  const uint32_t a[4] = {pack_bf16(a0, a1), pack_bf16(a1, 3.0f), pack_bf16(-a0, a0),
                         pack_bf16(2.0f, a1)};
  const uint32_t b[2] = {pack_bf16(a1, -a0), pack_bf16(a0, 1.0f)};
  const float c[4] = {1.0f, 2.0f, a0, a1};
  float product[4];
  mma_bf16_16x8x16(product, a, b, c);
  for (int i = 0; i < 4; ++i) rows.add(product[i]);
}

inline Status run_vocabulary(const uint32_t* in, uint32_t* out, Stream stream) {
  return launch(vocabulary, dim3(1), dim3(32), shared_bytes<uint32_t>(128) + shared_bytes<int>(5),
                stream, in, out);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
