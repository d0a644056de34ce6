#pragma once
// Fibers of the emulator and what the sanitizers must be told about them. Compiled without
// sanitizer flags: the sanitizers are found at link time, and only kernels' own accesses are
// watched.

#include <ucontext.h>

#include <cstddef>

namespace temper::sim {

/// Stack and context of one emulated thread.
struct Fiber {
  ucontext_t context;
  char* stack = nullptr;
  void* clock = nullptr;       // ThreadSanitizer's view of the thread.
  void* fake_stack = nullptr;  // AddressSanitizer's.
};

inline constexpr size_t kStackBytes = 128 << 10;

/// Zeroed memory from the system itself: an intercepted allocation would count as a write.
[[nodiscard]] char* map_pages(size_t bytes);
void unmap_pages(char* p, size_t bytes);

/// True if the program runs under ThreadSanitizer, which wants new fibers for every block.
[[nodiscard]] bool tracks_threads();

/// Readies a fiber to run `entry` on its stack; `entry` ends with leave(f, true).
void prepare(Fiber& f, void (*entry)());
/// First call in `entry`.
void arrived();
/// From the scheduler to a fiber, until it leaves.
void enter(Fiber& f);
/// From the running fiber to the scheduler; `last` if it will not be entered again.
void leave(Fiber& f, bool last);

[[nodiscard]] void* create_clock();
/// `abandoned`: the fiber stopped in the middle; its accesses are ordered before what follows.
void destroy_clock(void* clock, bool abandoned);

/// Synchronisation as ThreadSanitizer sees it: what precedes a release of a token happens before
/// what follows an acquire of it.
void acquire(void* token);
void release(void* token);

/// AddressSanitizer reports accesses to poisoned bytes.
void poison(char* p, size_t bytes);
void unpoison(char* p, size_t bytes);

}  // namespace temper::sim
