#include "temper/core/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

thread_local bool inside_parallel = false;
constexpr int kPartsPerThread = 4;

/// Fork-join pool. A job is cut into parts that whoever is free takes in turn, so a caller whose
/// workers are late (asleep, or pushed off their core) does the work itself instead of waiting.
/// Workers spin for a moment before they sleep: kernels follow each other within microseconds, and
/// a futex wake costs more than many of them.
class Pool {
 public:
  explicit Pool(int n) {
    for (int i = 1; i < n; ++i) workers_.emplace_back([this] { work(); });
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    stop_.store(true, std::memory_order_relaxed);
    publish(0);
    for (auto& w : workers_) w.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int parts, const std::function<void(int)>& job) {
    job_ = &job;
    error_ = nullptr;
    pending_.store(parts, std::memory_order_relaxed);
    publish(parts);
    while (take_part()) {
    }
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins > kSpins) std::this_thread::yield();
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr int kSpins = 2000;

  // What is to be had: the job's number in the high half, its parts and the next one in the low
  // half. A part is taken by advancing the word, which fails when the job has moved on; so a late
  // worker never reads the description of a job that is over.
  static uint32_t parts_of(uint64_t ticket) { return (ticket >> 16) & 0xffffu; }
  static uint32_t next_of(uint64_t ticket) { return ticket & 0xffffu; }

  void publish(int parts) {
    const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store((number << 32) | (static_cast<uint64_t>(parts) << 16), std::memory_order_release);
    epoch_.store(static_cast<uint32_t>(number), std::memory_order_release);
    epoch_.notify_all();
  }

  /// Runs one part of the present job; false when none is left.
  bool take_part() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    do {
      if (next_of(ticket) >= parts_of(ticket)) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                            std::memory_order_acquire));
    inside_parallel = true;
    try {
      (*job_)(static_cast<int>(next_of(ticket)));
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    inside_parallel = false;
    pending_.fetch_sub(1, std::memory_order_release);
    return true;
  }

  void work() {
    uint32_t seen = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
      while (take_part()) {
      }
      uint32_t now = epoch_.load(std::memory_order_acquire);
      for (int spins = 0; now == seen && spins < kSpins; ++spins) {
        now = epoch_.load(std::memory_order_acquire);
      }
      if (now == seen) epoch_.wait(seen, std::memory_order_acquire);
      seen = epoch_.load(std::memory_order_acquire);
    }
  }

  std::vector<std::thread> workers_;
  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint32_t> epoch_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int)>* job_ = nullptr;
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

std::mutex pool_mutex;
std::unique_ptr<Pool> pool;
std::atomic<int> thread_count{0};

int default_threads() {
  if (const char* text = std::getenv("TEMPER_NUM_THREADS")) {
    const int n = std::atoi(text);
    if (n >= 1) return n;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int num_threads() {
  int n = thread_count.load(std::memory_order_relaxed);
  if (n == 0) {
    n = default_threads();
    thread_count.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_num_threads(int n) {
  TEMPER_CHECK(n >= 1 && n <= 1024, "[set_num_threads] expected 1 to 1024 threads, got ", n);
  const std::lock_guard lock(pool_mutex);
  thread_count.store(n, std::memory_order_relaxed);
  pool.reset();
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t blocks = (n + grain - 1) / grain;
  // More parts than threads: a thread that loses its core for a while delays one part, not its
  // half.
  const int parts =
      static_cast<int>(std::min<int64_t>(blocks, int64_t{kPartsPerThread} * num_threads()));
  if (num_threads() == 1 || parts <= 1 || inside_parallel) {
    body(0, n);
    return;
  }
  const std::lock_guard lock(pool_mutex);
  if (!pool || pool->size() != num_threads()) pool = std::make_unique<Pool>(num_threads());
  pool->run(parts, [&](int index) {
    const int64_t begin = blocks * index / parts * grain;
    const int64_t end = std::min<int64_t>(n, blocks * (index + 1) / parts * grain);
    if (begin < end) body(begin, end);
  });
}

}  // namespace temper
