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

enum class Kind { kFloat, kBf16, kDot, kHalf, kInt8 };

constexpr size_t element_bytes(Kind kind) {
  return kind == Kind::kFloat ? 4 : kind == Kind::kInt8 ? 1 : 2;
}

constexpr int64_t kColdBytes = int64_t{256} << 20;

struct Buffers {
  int64_t rows, n, k;
  std::vector<float> x, y, panels, scales;
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
    bytes = panels.size() * element_bytes(kind);
    copies = std::max<size_t>(1, kColdBytes / bytes);
    weights.reset(static_cast<char*>(temper::allocate_aligned(copies * bytes)));
    pack(kind);
    for (size_t i = 1; i < copies; ++i) {
      std::memcpy(weights.get() + i * bytes, weights.get(), bytes);
    }
  }
  PackedWeight weight(Kind kind) {
    const void* p = weights.get() + turn++ % copies * bytes;
    PackedWeight w{.n = n, .k = k};
    switch (kind) {
      case Kind::kFloat: w.f32 = static_cast<const float*>(p); break;
      case Kind::kBf16: w.bf16 = static_cast<const uint16_t*>(p); break;
      case Kind::kDot:
        w.bf16 = static_cast<const uint16_t*>(p);
        w.product = Product::kDot;
        break;
      case Kind::kHalf: w.f16 = static_cast<const uint16_t*>(p); break;
      case Kind::kInt8:
        w.i8 = static_cast<const int8_t*>(p);
        w.scales = scales.data();
        break;
    }
    return w;
  }

 private:
  void pack(Kind kind) {
    void* to = weights.get();
    const int64_t elements = std::ssize(panels);
    switch (kind) {
      case Kind::kFloat: std::memcpy(to, panels.data(), bytes); break;
      case Kind::kBf16:
      case Kind::kDot:
        temper::kernels::panels_to_bf16(panels.data(), elements, static_cast<uint16_t*>(to));
        break;
      case Kind::kHalf:
        temper::kernels::panels_to_f16(panels.data(), elements, static_cast<uint16_t*>(to));
        break;
      case Kind::kInt8:
        scales.resize(static_cast<size_t>(temper::kernels::scale_elements(n, k)));
        temper::kernels::panels_to_int8(panels.data(), n, k, static_cast<int8_t*>(to),
                                        scales.data());
        break;
    }
  }
};

/// Runs `call` for the benchmark and reports its rates.
template <class Call>
void measure(benchmark::State& state, Kind kind, double weight_bytes, const Call& call) {
  static const temper::benchmarks::RoofProbe probe;
  const temper::benchmarks::Roof before = probe.measure();  // And after: the rate of reading drifts.
  const double seconds = temper::benchmarks::seconds_of([&] {
    for (auto _ : state) call();
  });
  const temper::benchmarks::Roof after = probe.measure();
  const double flops = 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2));
  const double calls_a_second = static_cast<double>(state.iterations()) / seconds;
  const double peak = kind == Kind::kDot ? std::max(before.dot, after.dot)
                                         : std::max(before.fma, after.fma);
  const double read = (before.read + after.read) / 2;
  state.counters["GFLOP/s"] = flops * calls_a_second / 1e9;
  state.counters["of_peak"] = peak > 0 ? flops * calls_a_second / peak : 0;
  state.counters["weight_GB/s"] = weight_bytes * calls_a_second / 1e9;
  state.counters["of_read"] = weight_bytes * calls_a_second / read;
}

constexpr double weight_bytes(const Buffers& b, Kind kind) {
  return static_cast<double>(b.n * b.k) * static_cast<double>(element_bytes(kind));
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
BENCHMARK(forward<Kind::kHalf>)->Apply(shapes)->UseRealTime();
BENCHMARK(backward_input<Kind::kHalf>)->Apply(shapes)->UseRealTime();
BENCHMARK(forward<Kind::kInt8>)->Apply(shapes)->UseRealTime();  // Frozen weights: no gradients.

}  // namespace
