#pragma once
// Emulates a grid of CUDA threads on the host: one fiber a thread of the running block, blocks one
// after another. For tests. docs/gpu.md says what it sees and what it cannot see.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cuda/sim/types.h"

namespace temper::sim {

/// What the running thread sees as threadIdx, blockIdx, blockDim and gridDim.
struct ThreadCtx {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
};
extern ThreadCtx* ctx;

/// The order in which blocks and, between two meetings, threads run.
enum class Order { kForward, kReverse, kRandom };
struct Options {
  Order order = Order::kForward;
  uint64_t seed = 0;  ///< Of kRandom.
};
extern Options options;

/// A place in a kernel's source.
struct Place {
  const char* file;
  int line;
};

enum class Op {
  kBarrier,
  kSyncWarp,
  kShuffle,
  kBallot,
  kAny,
  kAll,
  kMatchAny,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
  kReduceMinSigned,
  kReduceMaxSigned,
  kReduceAnd,
  kReduceOr,
  kReduceXor,
  kMma,
};

/// One lane's operands of a 16 x 8 x 16 product; `d` is written at the meeting.
struct MmaFragment {
  const uint32_t* a;  // [4]
  const uint32_t* b;  // [2]
  const float* c;     // [4]
  float d[4];
};

/// Waits for all threads of the block that have not ended.
void block_barrier(Place place);
/// Waits for the lanes of `mask`. `source` is the lane whose value a shuffle returns.
uint64_t warp_meet(Op op, unsigned mask, uint64_t value, int source, Place place);
/// The k-th call of every thread of a block returns the same array, filled with 0xff.
void* shared_take(size_t bytes, Place place);

/// A copy of 16 bytes whose last 16 - valid are zeros.
struct AsyncCopy {
  void* to;
  const void* from;
  int valid;
};
void async_record(const AsyncCopy& copy, Place place);
void async_close_group();
/// The oldest copy that is not among the latest `keep` groups, if there is one.
bool async_next(int keep, AsyncCopy* copy);

/// Runs the kernel body for each thread of the grid. `shared_bytes` bounds what a block may take.
/// @throws std::runtime_error "[sim] ..." at the first error of the kernel; the places of the
/// threads concerned are in the text.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

/// What watches this program: found at run time.
[[nodiscard]] bool under_thread_sanitizer();
[[nodiscard]] bool under_address_sanitizer();

/// Index of the running thread in its block.
inline unsigned linear_thread() {
  return ctx->thread.x + ctx->block_dim.x * (ctx->thread.y + ctx->block_dim.y * ctx->thread.z);
}

}  // namespace temper::sim
