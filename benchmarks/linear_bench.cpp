// Matrix products at the shapes of SmolLM2-135M. Counters: operations and bytes of weights a
// second, and their shares of the roofs probed in this process: of the instruction that the product
// uses (fma or bf16 dot), and of reading memory. Each call takes the next of several copies of the
// weight, 256 MiB together, as a decoder that walks its layers does: none is in cache.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "roof.h"
#include "rounds.h"
#include "temper/core/memory.h"
#include "temper/kernels/linear.h"

namespace {

using temper::kernels::PackedWeight;
using temper::kernels::Product;

enum class Kind { kFloat, kBf16, kDot };

constexpr int64_t kColdBytes = int64_t{256} << 20;

struct Buffers {
  int64_t rows, n, k;
  std::vector<float> x, y, panels;
  std::unique_ptr<char, decltype(&std::free)> weights{nullptr, std::free};  // As a model keeps them.
  size_t bytes = 0;
  size_t copies = 1;
  size_t turn = 0;

  Buffers(Kind kind, int64_t rows_, int64_t n_, int64_t k_)
      : rows(rows_),
        n(n_),
        k(k_),
        x(static_cast<size_t>(rows * k), 0.5f),
        y(static_cast<size_t>(rows * n), 0.25f),
        panels(static_cast<size_t>(temper::kernels::panel_elements(n, k)), 0.125f) {
    bytes = panels.size() * (kind == Kind::kFloat ? sizeof(float) : sizeof(uint16_t));
    copies = std::max<size_t>(1, kColdBytes / bytes);
    weights.reset(static_cast<char*>(temper::allocate_aligned(copies * bytes)));
    std::vector<uint16_t> half(panels.size());
    temper::kernels::panels_to_bf16(panels.data(), std::ssize(panels), half.data());
    const void* from = kind == Kind::kFloat ? static_cast<const void*>(panels.data()) : half.data();
    for (size_t i = 0; i < copies; ++i) std::memcpy(weights.get() + i * bytes, from, bytes);
  }
  PackedWeight weight(Kind kind) {
    const void* p = weights.get() + turn++ % copies * bytes;
    if (kind == Kind::kFloat) return {static_cast<const float*>(p), nullptr, n, k};
    return {nullptr, static_cast<const uint16_t*>(p), n, k,
            kind == Kind::kDot ? Product::kDot : Product::kFma};
  }
};

/// Runs `call` for the benchmark and reports its rates.
template <class Call>
void measure(benchmark::State& state, Kind kind, double weight_bytes, const Call& call) {
  const double seconds = temper::benchmarks::seconds_of([&] {
    for (auto _ : state) call();
  });
  const double flops = 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2));
  const double calls_a_second = static_cast<double>(state.iterations()) / seconds;
  static const temper::benchmarks::RoofProbe probe;
  const temper::benchmarks::Roof roof = probe.measure();  // Each time: the rate of reading drifts.
  const double peak = kind == Kind::kDot ? roof.dot : roof.fma;
  state.counters["GFLOP/s"] = flops * calls_a_second / 1e9;
  state.counters["of_peak"] = peak > 0 ? flops * calls_a_second / peak : 0;
  state.counters["weight_GB/s"] = weight_bytes * calls_a_second / 1e9;
  state.counters["of_read"] = weight_bytes * calls_a_second / roof.read;
}

constexpr double weight_bytes(const Buffers& b, Kind kind) {
  return static_cast<double>(b.n * b.k * (kind == Kind::kFloat ? 4 : 2));
}

template <Kind kKind>
void forward(benchmark::State& state) {
  Buffers b(kKind, state.range(0), state.range(1), state.range(2));
  measure(state, kKind, weight_bytes(b, kKind), [&] {
    temper::kernels::linear({.x = b.x.data(),
                             .x_stride = b.k,
                             .weight = b.weight(kKind),
                             .y = b.y.data(),
                             .y_stride = b.n,
                             .rows = b.rows});
  });
}

template <Kind kKind>
void backward_input(benchmark::State& state) {
  Buffers b(kKind, state.range(0), state.range(1), state.range(2));
  measure(state, kKind, weight_bytes(b, kKind), [&] {
    temper::kernels::linear_backward_input({.dy = b.y.data(),
                                            .dy_stride = b.n,
                                            .weight = b.weight(kKind),
                                            .dx = b.x.data(),
                                            .dx_stride = b.k,
                                            .rows = b.rows});
  });
}

/// The gradient is read and written in float32.
template <Kind kKind>
void backward_weight(benchmark::State& state) {
  Buffers b(kKind, state.range(0), state.range(1), state.range(2));
  measure(state, kKind, static_cast<double>(b.n * b.k * 8), [&] {
    temper::kernels::linear_backward_weight(
        {.dy = b.y.data(),
         .dy_stride = b.n,
         .x = b.x.data(),
         .x_stride = b.k,
         .dweight = b.panels.data(),
         .rows = b.rows,
         .n = b.n,
         .k = b.k,
         .product = kKind == Kind::kDot ? Product::kDot : Product::kFma});
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  for (const int64_t rows : {1, 4, 8, 16, 64, 512, 2048}) {
    b->Args({rows, 960, 576})->Args({rows, 576, 576})->Args({rows, 3072, 576})->Args({rows, 576, 1536});
  }
  for (const int64_t rows : {1, 8, 64, 512}) b->Args({rows, 49152, 576});
}

#define TEMPER_PRODUCTS(kind)                                     \
  BENCHMARK(forward<kind>)->Apply(shapes)->UseRealTime();         \
  BENCHMARK(backward_input<kind>)->Apply(shapes)->UseRealTime();  \
  BENCHMARK(backward_weight<kind>)->Apply(shapes)->UseRealTime()
TEMPER_PRODUCTS(Kind::kFloat);
TEMPER_PRODUCTS(Kind::kBf16);
TEMPER_PRODUCTS(Kind::kDot);

}  // namespace
