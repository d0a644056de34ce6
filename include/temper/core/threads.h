#pragma once

#include <cstdint>
#include <functional>

namespace temper {

/// Threads that kernels use, the caller included. At least 1.
[[nodiscard]] int num_threads();

/// Sets the number of threads. Not to be called while a `parallel_for` runs.
/// The bits of every result are the same for every value.
void set_num_threads(int n);

/// Calls `body(begin, end)` on contiguous, disjoint parts of [0, n), a few a thread, and waits.
/// Parts are multiples of `grain` long (the last may be shorter); which thread runs one is left to
/// chance, so `body` must not care. A nested call runs serially.
/// The first exception of a part is rethrown here after all parts ended.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace temper
