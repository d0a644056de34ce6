// The LM head at the size of the default model: log-probs, entropies and gradients of 2048 tokens
// over 49,152 ids. For each form: operations a second, their share of the roof probed in the same
// run, and the most memory that a first call holds beyond its arguments.
// Usage: logprob_bench [Google Benchmark's flags]
#include <benchmark/benchmark.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "peak_memory.h"
#include "roof.h"
#include "temper/core/rng.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/sampling.h"

namespace {

using namespace temper;
using namespace temper::kernels;

constexpr int64_t kRows = 2048, kVocabulary = 49152, kWidth = 576;
enum class Kind { kFloat, kBf16, kDot };

std::vector<float> random_floats(int64_t n, uint64_t seed, float scale) {
  RngStream rng(seed, RngPurpose::kTest, 1);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& v : out) v = scale * static_cast<float>(2 * rng.next_uniform() - 1);
  return out;
}

/// Arguments that live as long as the process, so that every form is timed on the same memory.
struct Head {
  std::vector<float> hidden = random_floats(kRows * kWidth, 1, 1.7f);
  std::vector<float> panels = random_floats(panel_elements(kVocabulary, kWidth), 2, 0.035f);
  std::vector<uint16_t> half = std::vector<uint16_t>(panels.size());
  std::vector<float> dweight = std::vector<float>(panels.size());
  std::vector<float> dhidden = std::vector<float>(hidden.size());
  std::vector<float> logprob, entropy, max, log_sum, dlogprob, dentropy;
  std::vector<int32_t> targets;
  benchmarks::RoofProbe probe;

  Head() {
    panels_to_bf16(panels.data(), static_cast<int64_t>(panels.size()), half.data());
    for (auto* v : {&logprob, &entropy, &max, &log_sum, &dlogprob, &dentropy}) v->resize(kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      targets.push_back(static_cast<int32_t>(r * 7919 % kVocabulary));
    }
  }

  [[nodiscard]] LinearLogprobBackwardArgs args(Kind kind) {
    const PackedWeight head{panels.data(), kind == Kind::kFloat ? nullptr : half.data(),
                            kVocabulary, kWidth,
                            kind == Kind::kDot ? Product::kDot : Product::kFma};
    return {.forward = {.hidden = hidden.data(),
                        .hidden_stride = kWidth,
                        .head = head,
                        .targets = targets.data(),
                        .rows = kRows,
                        .logprob = logprob.data(),
                        .entropy = entropy.data(),
                        .max = max.data(),
                        .log_sum = log_sum.data()},
            .dlogprob = dlogprob.data(),
            .dentropy = dentropy.data(),
            .dhidden = dhidden.data(),
            .dhidden_stride = kWidth,
            .dweight = dweight.data()};
  }
};

Head& head() {
  static Head h;
  return h;
}

void fill_coefficients(int64_t begin, int64_t end) {
  Head& h = head();
  for (int64_t r = begin; r < end; ++r) {
    const size_t at = static_cast<size_t>(r);
    h.dlogprob[at] = (r % 2 == 0 ? -1.0f : 0.5f) / kRows;
    h.dentropy[at] = -0.001f / kRows;
  }
}

/// Times `op`, which does `products` matrix products of rows x width x vocabulary.
template <class Op>
void measure(benchmark::State& state, Kind kind, int products, const Op& op) {
  const LinearLogprobBackwardArgs args = head().args(kind);
  fill_coefficients(0, kRows);
  // In a thread of its own, whose workspaces end with it.
  double extra = 0;
  std::thread([&] { extra = benchmarks::peak_extra_bytes([&] { op(args); }); }).join();
  const benchmarks::Roof before = head().probe.measure();
  for (auto _ : state) op(args);
  const benchmarks::Roof after = head().probe.measure();
  const double flops = 2.0 * products * kRows * kVocabulary * kWidth;
  const double roof = kind == Kind::kDot && before.dot > 0 ? (before.dot + after.dot) / 2
                                                           : (before.fma + after.fma) / 2;
  using benchmark::Counter;
  const auto total = flops * static_cast<double>(state.iterations());
  state.counters["FLOP/s"] = Counter(total, Counter::kIsRate);
  state.counters["of_roof"] = Counter(total / roof, Counter::kIsRate);
  state.counters["roof_FLOP/s"] = roof;
  state.counters["roof_read_B/s"] = (before.read + after.read) / 2;
  state.counters["extra_MB"] = extra / 1e6;
  const double weight = static_cast<double>(head().panels.size()) * (kind == Kind::kFloat ? 4 : 2);
  state.counters["weight_bytes"] = weight;
}

template <Kind kKind>
void forward(benchmark::State& state) {
  measure(state, kKind, 1, [](const auto& a) { linear_logprob(a.forward); });
}

template <Kind kKind>
void two_passes(benchmark::State& state) {
  measure(state, kKind, 4, [](const auto& a) {
    linear_logprob(a.forward);
    linear_logprob_backward(a);
  });
}

template <Kind kKind>
void one_pass(benchmark::State& state) {
  measure(state, kKind, 3, [](const auto& a) { linear_logprob_train({a, fill_coefficients}); });
}

template <Kind kKind>
void sample(benchmark::State& state) {
  const SamplingParams params;
  std::vector<SampleRow> rows;
  std::vector<SampledToken> out(kRows);
  for (int64_t r = 0; r < kRows; ++r) {
    rows.push_back({&params, {}, static_cast<double>(r) / kRows});
  }
  measure(state, kKind, 1, [&](const auto& a) {
    linear_sample({.hidden = a.forward.hidden,
                   .hidden_stride = kWidth,
                   .head = a.forward.head,
                   .allowed = kVocabulary,
                   .rows = rows,
                   .out = out});
  });
}

#define TEMPER_HEAD(kind)                                                    \
  BENCHMARK(forward<kind>)->UseRealTime()->Unit(benchmark::kMillisecond);    \
  BENCHMARK(sample<kind>)->UseRealTime()->Unit(benchmark::kMillisecond);     \
  BENCHMARK(two_passes<kind>)->UseRealTime()->Unit(benchmark::kMillisecond); \
  BENCHMARK(one_pass<kind>)->UseRealTime()->Unit(benchmark::kMillisecond)
TEMPER_HEAD(Kind::kFloat);
TEMPER_HEAD(Kind::kBf16);
TEMPER_HEAD(Kind::kDot);

}  // namespace
