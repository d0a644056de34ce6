#include "temper/core/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

TEST(ParallelFor, CoversEveryIndexOnceAtAnyThreadCount) {
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (const int64_t n : {0, 1, 31, 32, 33, 1025}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
      parallel_for(n, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) hits[static_cast<size_t>(i)]++;
      });
      for (const auto& h : hits) EXPECT_EQ(h.load(), 1);
    }
  }
  set_num_threads(2);
}

TEST(ParallelFor, RethrowsTheBodysError) {
  set_num_threads(3);
  EXPECT_THROW(parallel_for(30, 1,
                            [](int64_t begin, int64_t) {
                              if (begin > 0) fail("part failed");
                            }),
               Error);
  int64_t sum = 0;  // The pool still works after a failure.
  parallel_for(4, 4, [&](int64_t begin, int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 4);
  set_num_threads(2);
}

TEST(ParallelFor, NestedCallsRunSerially) {
  set_num_threads(2);
  std::atomic<int> total{0};
  parallel_for(4, 1, [&](int64_t begin, int64_t end) {
    parallel_for(10, 1,
                 [&](int64_t b, int64_t e) { total += static_cast<int>((e - b) * (end - begin)); });
  });
  EXPECT_EQ(total.load(), 40);
}

}  // namespace
}  // namespace temper
