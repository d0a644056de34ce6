#include "cuda/sim/fiber.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <stdexcept>

#include "cuda/sim/sim.h"

#define TEMPER_WEAK extern "C" __attribute__((weak))
TEMPER_WEAK void* __tsan_get_current_fiber();
TEMPER_WEAK void* __tsan_create_fiber(unsigned);
TEMPER_WEAK void __tsan_destroy_fiber(void*);
TEMPER_WEAK void __tsan_switch_to_fiber(void*, unsigned);
TEMPER_WEAK void __tsan_acquire(void*);
TEMPER_WEAK void __tsan_release(void*);
TEMPER_WEAK void __asan_poison_memory_region(const volatile void*, size_t);
TEMPER_WEAK void __asan_unpoison_memory_region(const volatile void*, size_t);
TEMPER_WEAK void __sanitizer_start_switch_fiber(void**, const void*, size_t);
TEMPER_WEAK void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);

#if TEMPER_SIM_SWITCH
/// Saves the registers that a call preserves and the stack pointer, and takes over another's.
extern "C" void temper_sim_switch(void** save, void* to);
asm(R"(
.text
.globl temper_sim_switch
.hidden temper_sim_switch
.type temper_sim_switch, @function
temper_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size temper_sim_switch, . - temper_sim_switch
)");
#endif

namespace temper::sim {
namespace {

/// Switches create no order between threads: only barriers do.
constexpr unsigned kNoSync = 1;

Context home;
void* home_clock;
void* home_fake_stack;
const void* home_bottom;
size_t home_bytes;
char abandoned_token;

void switch_context(Context& from, Context& to) {
#if TEMPER_SIM_SWITCH
  temper_sim_switch(&from, to);
#else
  swapcontext(&from, &to);
#endif
}

}  // namespace

char* map_pages(size_t bytes) {
  const long p = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == -1) throw std::runtime_error("[sim] mmap failed");
  return reinterpret_cast<char*>(p);
}

void unmap_pages(char* p, size_t bytes) { syscall(SYS_munmap, p, bytes); }

bool under_thread_sanitizer() { return __tsan_create_fiber != nullptr; }

void prepare(Fiber& f, void (*entry)()) {
#if TEMPER_SIM_SWITCH
  // As after a call of temper_sim_switch from a function that entry returns to: six registers, the
  // address of entry, and its return address, which is never used.
  void** top = reinterpret_cast<void**>(f.stack + kStackBytes);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(entry);
  for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
  f.context = top - 8;
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack;
  f.context.uc_stack.ss_size = kStackBytes;
  f.context.uc_link = nullptr;
  makecontext(&f.context, entry, 0);
#endif
}

void arrived() {
  if (__sanitizer_finish_switch_fiber) {
    __sanitizer_finish_switch_fiber(nullptr, &home_bottom, &home_bytes);
  }
}

void enter(Fiber& f) {
  if (__tsan_get_current_fiber) home_clock = __tsan_get_current_fiber();
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(f.clock, kNoSync);
  if (__sanitizer_start_switch_fiber) {
    __sanitizer_start_switch_fiber(&home_fake_stack, f.stack, kStackBytes);
  }
  switch_context(home, f.context);
  if (__sanitizer_finish_switch_fiber) {
    __sanitizer_finish_switch_fiber(home_fake_stack, nullptr, nullptr);
  }
}

void leave(Fiber& f, bool last) {
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(home_clock, kNoSync);
  if (__sanitizer_start_switch_fiber) {
    __sanitizer_start_switch_fiber(last ? nullptr : &f.fake_stack, home_bottom, home_bytes);
  }
  switch_context(f.context, home);
  if (__sanitizer_finish_switch_fiber) {
    __sanitizer_finish_switch_fiber(f.fake_stack, &home_bottom, &home_bytes);
  }
}

bool under_address_sanitizer() { return __asan_poison_memory_region != nullptr; }

void* create_clock() { return __tsan_create_fiber ? __tsan_create_fiber(0) : nullptr; }

void destroy_clock(void* clock, bool abandoned) {
  if (clock == nullptr) return;
  if (abandoned) {
    void* const here = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(clock, kNoSync);
    __tsan_release(&abandoned_token);
    __tsan_switch_to_fiber(here, kNoSync);
    __tsan_acquire(&abandoned_token);
  }
  __tsan_destroy_fiber(clock);
}

void acquire(void* token) {
  if (__tsan_acquire) __tsan_acquire(token);
}
void release(void* token) {
  if (__tsan_release) __tsan_release(token);
}
void poison(char* p, size_t bytes) {
  if (__asan_poison_memory_region) __asan_poison_memory_region(p, bytes);
}
void unpoison(char* p, size_t bytes) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
}

}  // namespace temper::sim
