#pragma once
// Where the threads of a block wait for each other.

#include <string>
#include <vector>

#include "cuda/sim/fiber.h"
#include "cuda/sim/sim.h"

namespace temper::sim {

enum class State { kReady, kWaiting, kDone };

/// Copies that a thread has recorded and not yet done, in a ring of pages from the system itself: a
/// vector's allocations and moves would count as accesses of the kernel.
class CopyQueue {
 public:
  static constexpr size_t kCapacity = 2048;

  CopyQueue() = default;
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;
  ~CopyQueue() {
    if (slots_ != nullptr) unmap_pages(reinterpret_cast<char*>(slots_), kBytes);
  }

  void clear() { first_ = end_ = group_ = 0; }
  /// False if it is full.
  [[nodiscard]] bool push(const AsyncCopy& copy) {
    if (slots_ == nullptr) slots_ = reinterpret_cast<Slot*>(map_pages(kBytes));
    if (end_ - first_ == kCapacity) return false;
    slots_[end_++ % kCapacity] = {copy, group_};
    return true;
  }
  void close_group() { ++group_; }
  /// Takes the oldest copy out, unless it belongs to the latest `keep` groups or to the open one.
  [[nodiscard]] bool pop(size_t keep, AsyncCopy* copy) {
    if (first_ == end_) return false;
    const Slot& slot = slots_[first_ % kCapacity];
    if (slot.group + keep >= group_) return false;
    *copy = slot.copy;
    ++first_;
    return true;
  }

 private:
  struct Slot {
    AsyncCopy copy;
    size_t group;
  };
  static constexpr size_t kBytes = kCapacity * sizeof(Slot);

  Slot* slots_ = nullptr;
  size_t first_ = 0, end_ = 0;
  size_t group_ = 0;  // The number of closed ones.
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
  CopyQueue copies;
};

/// "thread (x, y, z) of block (x, y, z) at file:line".
[[nodiscard]] std::string where(const Thread& t);

/// Releases every thread whose meeting is complete. Returns the first error, or an empty string.
[[nodiscard]] std::string settle(std::vector<Thread*>& threads);

/// Nobody can go on: who waits where.
[[nodiscard]] std::string deadlock(const std::vector<Thread*>& threads);

}  // namespace temper::sim
