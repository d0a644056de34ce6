#pragma once

// Paired timing: ours and the other in turn, many rounds, judged by the ratio within a round, since
// a host drifts by more than most differences within minutes.

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace temper::benchmarks {

template <class F>
double seconds_of(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  const size_t n = v.size();
  return n == 0 ? 0 : n % 2 != 0 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/// CPU seconds of the whole machine and of this process; what is between them others spent.
struct CpuTimes {
  double machine = 0;
  double own = 0;
};

inline CpuTimes cpu_times() {
  CpuTimes t;
  std::ifstream stat("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0;
  if (stat >> name >> user >> nice >> system) {
    t.machine = (user + nice + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  timespec own{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
  t.own = static_cast<double>(own.tv_sec) + 1e-9 * static_cast<double>(own.tv_nsec);
  return t;
}

/// What `paired` found.
struct Paired {
  double ratio = 0;       ///< Median over rounds of other seconds / our seconds.
  double low = 0;         ///< 95 % bootstrap interval of that median.
  double high = 0;
  double ours = 0;        ///< Median seconds, context only.
  double other = 0;
  int rounds = 0;
  double other_load = 0;  ///< Cores that other processes kept busy meanwhile, on average.
};

/// Runs `ours` and `other` in turn after one untimed call each. Fixed resampling seed.
template <class Ours, class Other>
Paired paired(int rounds, const Ours& ours, const Other& other) {
  ours();
  other();
  std::vector<double> a, b, ratios;
  const CpuTimes before = cpu_times();
  const double wall = seconds_of([&] {
    for (int r = 0; r < rounds; ++r) {
      a.push_back(seconds_of(ours));
      b.push_back(seconds_of(other));
      ratios.push_back(b.back() / a.back());
    }
  });
  const CpuTimes after = cpu_times();
  std::vector<double> medians;
  uint64_t state = 88172645463325252ull;
  for (int i = 0; i < 2000; ++i) {
    std::vector<double> sample;
    for (int r = 0; r < rounds; ++r) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      sample.push_back(ratios[state % ratios.size()]);
    }
    medians.push_back(median(std::move(sample)));
  }
  std::sort(medians.begin(), medians.end());
  const double others = (after.machine - before.machine) - (after.own - before.own);
  return {median(ratios), medians[50], medians[1949], median(a), median(b), rounds,
          std::max(0.0, others / wall)};
}

}  // namespace temper::benchmarks
