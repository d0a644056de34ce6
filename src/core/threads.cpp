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

/// Fork-join pool. Workers spin for a moment before they sleep: kernels follow each other within
/// microseconds, and a futex wake costs more than many of them.
class Pool {
 public:
  explicit Pool(int n) {
    for (int i = 1; i < n; ++i) workers_.emplace_back([this, i] { work(i); });
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    stop_.store(true, std::memory_order_relaxed);
    wake();
    for (auto& w : workers_) w.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int parts, const std::function<void(int)>& job) {
    job_ = &job;
    parts_ = parts;
    error_ = nullptr;
    pending_.store(size() - 1, std::memory_order_relaxed);
    wake();
    call(0);
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins > kSpins) std::this_thread::yield();
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr int kSpins = 2000;

  void wake() {
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }

  void call(int index) {
    if (index >= parts_) return;
    inside_parallel = true;
    try {
      (*job_)(index);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    inside_parallel = false;
  }

  void work(int index) {
    uint32_t seen = 0;
    while (true) {
      uint32_t now = epoch_.load(std::memory_order_acquire);
      for (int spins = 0; now == seen && spins < kSpins; ++spins) {
        now = epoch_.load(std::memory_order_acquire);
      }
      if (now == seen) {
        epoch_.wait(seen, std::memory_order_acquire);
        continue;
      }
      seen = now;
      if (stop_.load(std::memory_order_relaxed)) return;
      call(index);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::atomic<uint32_t> epoch_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int)>* job_ = nullptr;
  int parts_ = 0;
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
  const int parts = static_cast<int>(std::min<int64_t>(blocks, num_threads()));
  if (parts <= 1 || inside_parallel) {
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
