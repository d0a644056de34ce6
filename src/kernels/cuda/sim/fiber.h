#pragma once
// Fibers of the emulator and what the sanitizers must be told about them. Compiled without
// sanitizer flags: the sanitizers are found at link time, and only kernels' own accesses are
// watched.

#include <cstddef>

// swapcontext makes two system calls a switch, ten times the price of a switch by hand, which is
// written for one architecture. TEMPER_SIM_UCONTEXT asks for swapcontext there too.
#if defined(__x86_64__) && !defined(TEMPER_SIM_UCONTEXT)
#define TEMPER_SIM_SWITCH 1
#else
#include <ucontext.h>
#define TEMPER_SIM_SWITCH 0
#endif

namespace temper::sim {

#if TEMPER_SIM_SWITCH
using Context = void*;  // The stack pointer; the registers are on the stack.
#else
using Context = ucontext_t;
#endif

/// Stack and context of one emulated thread.
struct Fiber {
  Context context;
  char* stack = nullptr;
  void* clock = nullptr;       // ThreadSanitizer's view of the thread.
  void* fake_stack = nullptr;  // AddressSanitizer's.
};

inline constexpr size_t kStackBytes = 128 << 10;

/// Zeroed memory from the system itself: an intercepted allocation would count as a write.
[[nodiscard]] char* map_pages(size_t bytes);
void unmap_pages(char* p, size_t bytes);

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
