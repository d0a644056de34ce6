// Tree attention on the shape of a 135M model (9 heads, 3 key/value heads of 64). FLOPs count the
// keys that rows see: 4 a key, head and dimension forward, 10 backward.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "temper/core/threads.h"
#include "temper/kernels/tree_attention.h"

namespace {

using temper::kernels::KeySpan;
using temper::kernels::TreeAttentionArgs;
using temper::kernels::TreeAttentionBackwardArgs;

constexpr int kHeads = 9;
constexpr int kKvHeads = 3;
constexpr int kHeadDim = 64;

std::vector<float> noise(int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  uint32_t state = 1;
  for (float& x : out) {
    state = state * 1664525u + 1013904223u;
    x = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}

struct Problem {
  std::vector<KeySpan> spans = {};
  std::vector<TreeAttentionArgs::Query> queries = {};
  int64_t key_rows = 0;
  std::vector<float> q = {}, k = {}, v = {}, out = {}, lse = {};

  TreeAttentionArgs args() {
    const int64_t rows = std::ssize(queries);
    q = noise(rows * kHeads * kHeadDim);
    k = noise(key_rows * kKvHeads * kHeadDim);
    v = k;
    out.resize(q.size());
    lse.resize(static_cast<size_t>(rows * kHeads));
    return {.q = q.data(),
            .q_stride = kHeads * kHeadDim,
            .k = k.data(),
            .v = v.data(),
            .kv_stride = kKvHeads * kHeadDim,
            .out = out.data(),
            .out_stride = kHeads * kHeadDim,
            .lse = lse.data(),
            .spans = spans,
            .queries = queries,
            .heads = kHeads,
            .kv_heads = kKvHeads,
            .head_dim = kHeadDim,
            .scale = 0.125f,
            .window = 0};
  }

  double keys_seen() const {
    double total = 0;
    for (const auto& query : queries) total += query.visible;
    return total;
  }
};

/// `children` segments behind one prompt, as in a training batch. No children: the prompt alone.
Problem training(int64_t prompt, int64_t children, int64_t length) {
  Problem p;
  const auto add = [&](int64_t before, int64_t rows) {
    const auto begin = static_cast<int32_t>(p.spans.size());
    if (before > 0) p.spans.push_back({0, before});
    p.spans.push_back({p.key_rows, rows});
    for (int64_t i = 0; i < rows; ++i) {
      p.queries.push_back(
          {begin, static_cast<int32_t>(p.spans.size()), static_cast<int32_t>(before + i + 1), 0});
    }
    p.key_rows += rows;
  };
  add(0, prompt);
  for (int64_t c = 0; c < children; ++c) add(prompt, length);
  return p;
}

/// One new row each of `rows` sequences over pages of 32; groups of `group` share all but a page.
Problem decode(int64_t rows, int64_t group, int64_t context) {
  Problem p;
  const int64_t shared = context / 32 - 1;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t base = row / group * (shared + group) * 32;
    const auto begin = static_cast<int32_t>(p.spans.size());
    for (int64_t page = 0; page < shared; ++page) p.spans.push_back({base + page * 32, 32});
    p.spans.push_back({base + (shared + row % group) * 32, 32});
    p.queries.push_back(
        {begin, static_cast<int32_t>(p.spans.size()), static_cast<int32_t>(shared * 32 + 32), 0});
    p.key_rows = base + (shared + group) * 32;
  }
  return p;
}

void report(benchmark::State& state, const Problem& p, double flops_a_key) {
  const double flops = p.keys_seen() * kHeads * kHeadDim * flops_a_key;
  const double times = static_cast<double>(state.iterations());
  state.counters["FLOPs"] = flops;
  state.counters["GFLOP/s"] = benchmark::Counter(flops * times / 1e9, benchmark::Counter::kIsRate);
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(p.queries.size()) * times,
                                                  benchmark::Counter::kIsRate);
}

void run_forward(benchmark::State& state, Problem p, int64_t threads) {
  temper::set_num_threads(static_cast<int>(threads));
  const TreeAttentionArgs args = p.args();
  for (auto _ : state) tree_attention(args);
  report(state, p, 4);
}

void Prefill(benchmark::State& state) {
  run_forward(state, training(state.range(0), 0, 0), state.range(1));
}
BENCHMARK(Prefill)
    ->ArgNames({"length", "threads"})
    ->ArgsProduct({{128, 512, 2048}, {1, 2}})
    ->UseRealTime();

void Group(benchmark::State& state) { run_forward(state, training(256, 8, 128), state.range(0)); }
BENCHMARK(Group)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

void Decode(benchmark::State& state) {
  run_forward(state, decode(state.range(0), state.range(1), 512), state.range(2));
}
BENCHMARK(Decode)
    ->ArgNames({"rows", "group", "threads"})
    ->ArgsProduct({{1, 64}, {1, 8}, {1, 2}})
    ->UseRealTime();

void run_backward(benchmark::State& state, Problem p, int64_t threads) {
  temper::set_num_threads(static_cast<int>(threads));
  const TreeAttentionArgs args = p.args();
  tree_attention(args);
  const std::vector<float> dout = noise(std::ssize(p.q));
  std::vector<float> dq(p.q.size()), dk(p.k.size()), dv(p.v.size());
  const TreeAttentionBackwardArgs gradients{.forward = args,
                                            .dout = dout.data(),
                                            .dout_stride = args.out_stride,
                                            .dq = dq.data(),
                                            .dq_stride = args.q_stride,
                                            .dk = dk.data(),
                                            .dv = dv.data(),
                                            .dkv_stride = args.kv_stride};
  for (auto _ : state) tree_attention_backward(gradients);
  report(state, p, 10);
}

void PrefillBackward(benchmark::State& state) {
  run_backward(state, training(state.range(0), 0, 0), state.range(1));
}
BENCHMARK(PrefillBackward)
    ->ArgNames({"length", "threads"})
    ->ArgsProduct({{128, 512, 2048}, {1, 2}})
    ->UseRealTime();

void GroupBackward(benchmark::State& state) {
  run_backward(state, training(256, 8, 128), state.range(0));
}
BENCHMARK(GroupBackward)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

}  // namespace
