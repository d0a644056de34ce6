// Matrix products at the shapes of SmolLM2-135M. Counters: FLOP/s, and for few rows the bytes of
// weights read a second (what bounds decoding).
#include <benchmark/benchmark.h>

#include <vector>

#include "temper/kernels/linear.h"

namespace {

using temper::kernels::PackedWeight;
using temper::kernels::Product;

struct Buffers {
  std::vector<float> x, y, panels;
  std::vector<uint16_t> half;
  Buffers(int64_t rows, int64_t n, int64_t k)
      : x(static_cast<size_t>(rows * k), 0.5f),
        y(static_cast<size_t>(rows * n), 0.25f),
        panels(static_cast<size_t>(temper::kernels::panel_elements(n, k)), 0.125f),
        half(panels.size()) {
    temper::kernels::panels_to_bf16(panels.data(), static_cast<int64_t>(panels.size()),
                                    half.data());
  }
};

void report(benchmark::State& state, double bytes) {
  const double flops = 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2));
  state.counters["FLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
  state.counters["weight_B/s"] = benchmark::Counter(bytes * static_cast<double>(state.iterations()),
                                                    benchmark::Counter::kIsRate);
}

enum class Kind { kFloat, kBf16, kDot };

template <Kind kKind>
PackedWeight weight(const Buffers& b, int64_t n, int64_t k) {
  return {b.panels.data(), kKind == Kind::kFloat ? nullptr : b.half.data(), n, k,
          kKind == Kind::kDot ? Product::kDot : Product::kFma};
}

template <Kind kKind>
void forward(benchmark::State& state) {
  const int64_t rows = state.range(0), n = state.range(1), k = state.range(2);
  Buffers b(rows, n, k);
  for (auto _ : state) {
    temper::kernels::linear({.x = b.x.data(),
                             .x_stride = k,
                             .weight = weight<kKind>(b, n, k),
                             .y = b.y.data(),
                             .y_stride = n,
                             .rows = rows});
  }
  report(state, static_cast<double>(n * k * (kKind == Kind::kFloat ? 4 : 2)));
}

template <Kind kKind>
void backward_input(benchmark::State& state) {
  const int64_t rows = state.range(0), n = state.range(1), k = state.range(2);
  Buffers b(rows, n, k);
  for (auto _ : state) {
    temper::kernels::linear_backward_input({.dy = b.y.data(),
                                            .dy_stride = n,
                                            .weight = weight<kKind>(b, n, k),
                                            .dx = b.x.data(),
                                            .dx_stride = k,
                                            .rows = rows});
  }
  report(state, static_cast<double>(n * k * 2));
}

template <Kind kKind>
void backward_weight(benchmark::State& state) {
  const int64_t rows = state.range(0), n = state.range(1), k = state.range(2);
  Buffers b(rows, n, k);
  for (auto _ : state) {
    temper::kernels::linear_backward_weight({.dy = b.y.data(),
                                             .dy_stride = n,
                                             .x = b.x.data(),
                                             .x_stride = k,
                                             .dweight = b.panels.data(),
                                             .rows = rows,
                                             .n = n,
                                             .k = k,
                                             .product = weight<kKind>(b, n, k).product});
  }
  report(state, static_cast<double>(n * k * 8));
}

void shapes(benchmark::internal::Benchmark* b) {
  for (const int64_t rows : {1, 4, 8, 16, 64, 512}) {
    b->Args({rows, 960, 576})->Args({rows, 3072, 576})->Args({rows, 576, 1536});
  }
  for (const int64_t rows : {1, 8, 64, 128}) b->Args({rows, 49152, 576});
}

#define TEMPER_PRODUCTS(kind)                                 \
  BENCHMARK(forward<kind>)->Apply(shapes)->UseRealTime();       \
  BENCHMARK(backward_input<kind>)->Apply(shapes)->UseRealTime(); \
  BENCHMARK(backward_weight<kind>)->Apply(shapes)->UseRealTime()
TEMPER_PRODUCTS(Kind::kFloat);
TEMPER_PRODUCTS(Kind::kBf16);
TEMPER_PRODUCTS(Kind::kDot);

}  // namespace
