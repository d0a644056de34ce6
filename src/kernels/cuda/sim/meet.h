#pragma once
// Where the threads of a block wait for each other.

#include <string>
#include <vector>

#include "cuda/sim/fiber.h"
#include "cuda/sim/sim.h"

namespace temper::sim {

enum class State { kReady, kWaiting, kDone };

/// Copies that were recorded before an async_commit and after the one before it.
struct CopyGroup {
  size_t size;
};

/// One thread of the running block and, while it waits, what for.
struct Thread {
  Fiber fiber;
  ThreadCtx ctx;
  State state = State::kDone;
  Op op = Op::kBarrier;
  unsigned mask = 0;
  int source = 0;
  uint64_t value = 0, result = 0;
  Place place = {"", 0};
  unsigned barriers = 0, warp_syncs[32] = {};  // Passed so far; by lowest lane of the mask.
  size_t takes = 0;
  std::vector<AsyncCopy> copies;  // Recorded and not yet done, oldest first.
  std::vector<CopyGroup> groups;  // The closed ones.
};

/// "thread (x, y, z) of block (x, y, z) at file:line".
[[nodiscard]] std::string where(const Thread& t);

/// Releases every thread whose meeting is complete. Returns the first error, or an empty string.
[[nodiscard]] std::string settle(std::vector<Thread*>& threads);

/// Nobody can go on: who waits where.
[[nodiscard]] std::string deadlock(const std::vector<Thread*>& threads);

}  // namespace temper::sim
