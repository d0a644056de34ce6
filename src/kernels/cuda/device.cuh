#pragma once
// The only header that gives kernels CUDA: the toolkit under nvcc, the emulator under a host
// compiler. What neither side below provides is not in the vocabulary (docs/gpu.md).

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "temper/kernels/cuda.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
/// Kernels stand in headers that several files include: inline, as templates are. The compiler
/// honours it and says that it does not.
#pragma nv_diag_suppress 20050
#undef __global__
#define __global__ inline __location__(global)
/// Kernels from nvcc and from a host compiler must not share mangled names.
#define TEMPER_CUDA_TARGET on_device
#else
#include "cuda/sim/vocabulary.h"
#define TEMPER_CUDA_TARGET on_host
#endif

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr unsigned kAllLanes = 0xffffffffu;

/// What a launch must ask for to `take` n of T: arrays start at multiples of 16 bytes.
template <class T>
__host__ __device__ constexpr size_t shared_bytes(size_t n) {
  return (n * sizeof(T) + 15) / 16 * 16;
}

#ifdef __CUDACC__

/// Carves the block's dynamic shared memory into arrays; every thread takes the same arrays in the
/// same order. One arena a kernel.
class SharedArena {
 public:
  template <class T>
  __device__ T* take(size_t n) {
    extern __shared__ __align__(16) unsigned char temper_shared_memory[];
    T* array = reinterpret_cast<T*>(temper_shared_memory + used_);
    used_ += shared_bytes<T>(n);
    return array;
  }

 private:
  size_t used_ = 0;
};

/// Copies 16 bytes from global to shared memory in the background; both addresses are multiples of
/// 16. The last 16 - valid bytes become zeros and are not read. Nothing may be read before
/// async_wait, and by other threads before the barrier after it.
__device__ __forceinline__ void async_copy16(void* to, const void* from, int valid = 16) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from),
               "r"(valid)
               : "memory");
}
/// Closes a group of copies.
__device__ __forceinline__ void async_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/// Waits for all of this thread's groups but the latest kKeep.
template <int kKeep>
__device__ __forceinline__ void async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kKeep) : "memory");
}

/// d = a b + c for a [16, 16] and b [16, 8] of bfloat16, c and d [16, 8] of float, one warp. With
/// g = lane / 4 and t = lane % 4, a word holding elements (k, k + 1), the lower k in the low half:
/// a = {a[g][2t], a[g + 8][2t], a[g][2t + 8], a[g + 8][2t + 8]}, b = {b[2t][g], b[2t + 8][g]},
/// c and d = {[g][2t], [g][2t + 1], [g + 8][2t], [g + 8][2t + 1]}. d may be c.
/// The hardware's order of accumulation is its own; the emulator adds by fma, k ascending.
__device__ __forceinline__ void mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2], const float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};\n"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}

inline Status status_of(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return {static_cast<int>(error), cudaGetErrorString(error)};
}

/// Launches `kernel` and returns at once. A grid with no blocks is nothing to do.
template <class... P, class... A>
Status launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream stream,
              A&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return {};
  if (shared > 48 * 1024) {  // The limit without opting in, which is a setting of the device.
    const Status status = status_of(cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
        static_cast<int>(shared)));
    if (!status.ok()) return status;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return status_of(cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...));
}

#else  // The emulator's side; the contracts are above.

/// Every array has guard bytes around it, which AddressSanitizer watches, and holds NaN at first.
class SharedArena {
 public:
  template <class T>
  T* take(size_t n, TEMPER_SIM_PLACE) {
    return static_cast<T*>(sim::shared_take(n * sizeof(T), at));
  }
};

/// The copy happens in async_wait; until then the destination holds NaN.
inline void async_copy16(void* to, const void* from, int valid = 16, TEMPER_SIM_PLACE) {
  sim::async_record({to, from, valid}, at);
  for (int i = 0; i < 4; ++i) static_cast<uint32_t*>(to)[i] = 0xffffffffu;
}
inline void async_commit() { sim::async_close_group(); }
template <int kKeep>
inline void async_wait() {
  for (sim::AsyncCopy copy; sim::async_next(kKeep, &copy);) {
    for (int i = 0; i < 16; ++i) {
      static_cast<unsigned char*>(copy.to)[i] =
          i < copy.valid ? static_cast<const unsigned char*>(copy.from)[i] : 0;
    }
  }
}

inline void mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const float (&c)[4], TEMPER_SIM_PLACE) {
  sim::MmaFragment fragment{a, b, c, {}};
  sim::warp_meet(sim::Op::kMma, kAllLanes, reinterpret_cast<uint64_t>(&fragment), 0, at);
  for (int i = 0; i < 4; ++i) d[i] = fragment.d[i];
}

/// Runs the grid before it returns. Errors of the kernel throw, so that a test shows them.
template <class... P, class... A>
Status launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream /*stream*/,
              A&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return {};
  sim::run(grid, block, shared, [&] { kernel(static_cast<P>(args)...); });
  return {};
}

#endif

/// Index in the warp; threads of a block are numbered x first.
__device__ __forceinline__ unsigned lane_id() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}
__device__ __forceinline__ unsigned warp_id() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) >> 5;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
