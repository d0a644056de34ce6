#include "cuda/sim/sim.h"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "cuda/sim/meet.h"

namespace temper::sim {

ThreadCtx* ctx;
Options options;

namespace {

constexpr size_t kArenaBytes = size_t{64} << 20, kGuardBytes = 64;
/// Fibers that ThreadSanitizer remembers (its limit is 8128): races between blocks are seen as long
/// as the threads of both are among them.
constexpr size_t kMaxClocks = 4096;
constexpr size_t kMaxShared = 227 << 10, kMaxThreads = 1024;

struct Array {
  char* p;
  size_t bytes;
};

/// ThreadSanitizer's tokens of one block. Barriers alternate between two: with one, a thread that
/// ran ahead to the next barrier would leak order to one that has not left this barrier.
struct BlockTokens {
  std::array<char, 2> barrier;
  std::array<std::array<std::array<char, 2>, 32>, 32> warp;  // [warp][lowest lane of the mask]
};

/// Why a thread stopped. Text is built by the scheduler: the code of std::string may come from an
/// object with sanitizer flags, and fibers must not run such code on the emulator's own data.
struct Failure {
  const char* what = nullptr;
  const Thread* thread = nullptr;
  size_t wanted = 0, there = 0;
};

/// The grid that runs; one at a time.
struct Grid {
  const std::function<void()>* body = nullptr;
  std::vector<std::unique_ptr<Thread>> pool;
  std::vector<Thread*> threads;  // Of the running block.
  Thread* current = nullptr;
  Failure failure;
  std::string error;
  std::mt19937_64 random;
  char* arena = nullptr;  // Shared arrays; not reused within a launch.
  size_t arena_used = 0, shared_left = 0;
  std::vector<Array> arrays;  // Of the running block.
  std::vector<BlockTokens> tokens;
  // ThreadSanitizer's fibers that no launch uses, to be used again: to make one costs a millisecond.
  // A launch's beginning and end order it after what they did before.
  std::vector<void*> clocks;
  size_t block_number = 0;
  char start_token = 0, end_token = 0;
  bool running = false;
};
Grid grid_state;

Grid& g() { return grid_state; }

/// Ends the thread at an error. Nothing is thrown across a switch: run() does, at the end.
void fail(const char* what, size_t wanted = 0, size_t there = 0) {
  g().failure = {what, g().current, wanted, there};
  g().current->state = State::kDone;
  leave(g().current->fiber, true);
}

std::string describe(const Failure& f) {
  std::string text = f.what;
  if (f.wanted != f.there) {
    text +=
        " (" + std::to_string(f.wanted) + " bytes wanted, " + std::to_string(f.there) + " there)";
  }
  return text + ": " + where(*f.thread);
}

void entry() {
  arrived();
  acquire(&g().start_token);
  (*g().body)();
  release(&g().end_token);
  g().current->state = State::kDone;
  leave(g().current->fiber, true);
}

uint64_t wait(void* token) {
  Thread& t = *g().current;
  t.state = State::kWaiting;
  if (token != nullptr) release(token);
  leave(t.fiber, false);
  if (token != nullptr) acquire(token);
  return t.result;
}

void arrange(std::vector<size_t>& v) {
  if (options.order == Order::kReverse) std::reverse(v.begin(), v.end());
  if (options.order == Order::kRandom) std::shuffle(v.begin(), v.end(), g().random);
}

void run_block() {
  std::vector<size_t> ready;
  while (g().error.empty()) {
    ready.clear();
    for (size_t i = 0; i < g().threads.size(); ++i) {
      if (g().threads[i]->state == State::kReady) ready.push_back(i);
    }
    if (ready.empty()) {
      g().error = deadlock(g().threads);
      return;
    }
    arrange(ready);
    for (const size_t i : ready) {
      if (!g().error.empty()) return;
      g().current = g().threads[i];
      ctx = &g().current->ctx;
      enter(g().current->fiber);
      if (g().failure.what != nullptr) g().error = describe(g().failure);
    }
    if (g().error.empty()) g().error = settle(g().threads);
  }
}

uint3 unflatten(size_t i, const dim3& d) {
  return {static_cast<unsigned>(i % d.x), static_cast<unsigned>(i / d.x % d.y),
          static_cast<unsigned>(i / d.x / d.y)};
}

void* take_clock() {
  if (g().clocks.empty()) return create_clock();
  void* const clock = g().clocks.back();
  g().clocks.pop_back();
  return clock;
}

/// The clocks of a launch that has ended.
void give_clocks_back(const std::deque<void*>& clocks) {
  if (g().error.empty()) {
    g().clocks.insert(g().clocks.end(), clocks.rbegin(), clocks.rend());
  } else {
    for (void* clock : clocks) destroy_clock(clock, true);
  }
}

void start_thread(Thread& t, const ThreadCtx& where, char* stack) {
  void* const clock = take_clock();
  t.copies.clear();
  std::fill(std::begin(t.warp_syncs), std::end(t.warp_syncs), 0u);
  t.barriers = 0;
  t.takes = 0;
  t.ctx = where;
  t.state = State::kReady;
  t.fiber.stack = stack;
  t.fiber.clock = clock;
  t.fiber.fake_stack = nullptr;
  prepare(t.fiber, entry);
}

void check_shape(dim3 grid, dim3 block, size_t shared) {
  const size_t n = size_t{block.x} * block.y * block.z;
  const auto refuse = [](const std::string& text) { throw std::runtime_error("[sim] " + text); };
  if (n == 0 || n > kMaxThreads || block.z > 64) {
    refuse("a block has 1 to 1024 threads, got " + std::to_string(n));
  }
  if (grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu) refuse("grid too large");
  if (shared > kMaxShared) {
    refuse("a block has at most 227 KiB of shared memory, got " + std::to_string(shared));
  }
}

/// `clocks` gets those of the last fibers.
void run_blocks(dim3 grid, dim3 block, size_t shared, std::deque<void*>& clocks, char* stacks) {
  const size_t n = g().threads.size(), blocks = size_t{grid.x} * grid.y * grid.z;
  std::vector<size_t> order(blocks);
  for (size_t i = 0; i < blocks; ++i) order[i] = i;
  arrange(order);
  for (size_t b = 0; b < blocks && g().error.empty(); ++b) {
    g().arrays.clear();
    g().shared_left = shared;
    g().block_number = under_thread_sanitizer() ? b : 0;
    if (!under_thread_sanitizer()) {
      poison(g().arena, g().arena_used);
      g().arena_used = kGuardBytes;
    }
    // A fiber that lived through two blocks would order them, and its old stack look like a race.
    const size_t first_stack = under_thread_sanitizer() ? b * n : 0;
    for (size_t i = 0; i < n; ++i) {
      const ThreadCtx where = {unflatten(i, block), unflatten(order[b], grid), block, grid};
      start_thread(*g().threads[i], where, stacks + (first_stack + i) * kStackBytes);
      if (g().threads[i]->fiber.clock != nullptr) clocks.push_back(g().threads[i]->fiber.clock);
    }
    run_block();
    for (; g().error.empty() && clocks.size() > kMaxClocks; clocks.pop_front()) {
      destroy_clock(clocks.front(), false);
    }
  }
}

}  // namespace

void block_barrier(Place place) {
  Thread& t = *g().current;
  t.op = Op::kBarrier;
  t.place = place;
  wait(&g().tokens[g().block_number].barrier[t.barriers++ & 1]);
}

uint64_t warp_meet(Op op, unsigned mask, uint64_t value, int source, Place place) {
  Thread& t = *g().current;
  t.op = op;
  t.mask = mask;
  t.value = value;
  t.source = source;
  t.place = place;
  if (op != Op::kSyncWarp || mask == 0) return wait(nullptr);  // Other operations order no memory.
  const auto lowest = static_cast<size_t>(std::countr_zero(mask));
  auto& pair = g().tokens[g().block_number].warp[linear_thread() / 32][lowest];
  return wait(&pair[t.warp_syncs[lowest]++ & 1]);
}

void* shared_take(size_t bytes, Place place) {
  g().current->place = place;
  const size_t k = g().current->takes++, rounded = (bytes + 15) / 16 * 16;
  if (k < g().arrays.size()) {
    if (g().arrays[k].bytes != bytes) {
      fail("threads take different shared arrays", bytes, g().arrays[k].bytes);
    }
    return g().arrays[k].p;
  }
  if (rounded > g().shared_left) {
    fail("the launch gave too little shared memory", rounded, g().shared_left);
  }
  if (g().arena_used + rounded + kGuardBytes > kArenaBytes) {
    fail("too many blocks take shared memory under ThreadSanitizer");
  }
  g().shared_left -= rounded;
  char* p = g().arena + g().arena_used;
  g().arena_used += rounded + kGuardBytes;
  unpoison(p, bytes);
  // NaN; volatile, or the loop becomes a call of memset, which sanitizers watch.
  for (volatile char* q = p; q != p + bytes; ++q) *q = static_cast<char>(0xff);
  g().arrays.push_back({p, bytes});
  return p;
}

void async_record(const AsyncCopy& copy, Place place) {
  g().current->place = place;
  const auto misaligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 != 0; };
  if (misaligned(copy.to) || (misaligned(copy.from) && copy.valid > 0)) {
    fail("async_copy16 of an address that is no multiple of 16");
  }
  if (copy.valid < 0 || copy.valid > 16) fail("async_copy16 of less than 0 or more than 16 bytes");
  const char* p = static_cast<const char*>(copy.to);
  if (p < g().arena || p >= g().arena + kArenaBytes) {
    fail("async_copy16 to memory that is not shared");
  }
  if (!g().current->copies.push(copy)) fail("too many copies of a thread are on the way");
}

void async_close_group() { g().current->copies.close_group(); }

bool async_next(int keep, AsyncCopy* copy) {
  return g().current->copies.pop(static_cast<size_t>(keep), copy);
}

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  if (g().running) fail("a kernel launches a kernel");
  check_shape(grid, block, shared_bytes);
  const size_t n = size_t{block.x} * block.y * block.z;
  const size_t blocks = size_t{grid.x} * grid.y * grid.z;
  const size_t stack_bytes = kStackBytes * n * (under_thread_sanitizer() ? blocks : 1);
  if (g().arena == nullptr) {
    g().arena = map_pages(kArenaBytes);
    poison(g().arena, kArenaBytes);
  }
  char* const stacks = map_pages(stack_bytes);
  unpoison(stacks, stack_bytes);  // Of whatever lay there before.
  while (g().pool.size() < n) g().pool.push_back(std::make_unique<Thread>());
  g().threads.clear();
  for (size_t i = 0; i < n; ++i) g().threads.push_back(g().pool[i].get());
  g().arrays.reserve(256);  // A thread that allocates would seem to touch what others touch.
  g().body = &kernel;
  g().error.clear();
  g().failure = {};
  g().random.seed(options.seed);
  g().tokens.assign(under_thread_sanitizer() ? blocks : 1, {});
  poison(g().arena, g().arena_used);  // The arrays of the last launch.
  g().arena_used = kGuardBytes;
  release(&g().start_token);
  std::deque<void*> clocks;
  g().running = true;
  run_blocks(grid, block, shared_bytes, clocks, stacks);
  g().running = false;
  acquire(&g().end_token);
  give_clocks_back(clocks);
  unmap_pages(stacks, stack_bytes);
  if (!g().error.empty()) throw std::runtime_error("[sim] " + g().error);
}

}  // namespace temper::sim
