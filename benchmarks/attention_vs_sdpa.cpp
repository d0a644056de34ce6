// Tree attention against LibTorch's scaled_dot_product_attention on what a group becomes without
// trees: G full texts, the prompt repeated in each. Heads of a 135M model (9 queries, 3 keys, 64
// wide), a prompt of 256 tokens and 8 completions of 128. Keys and values are repeated for the
// query heads before the peer's clock starts, and their gradients are not summed back. Peers in
// float32 and bfloat16, causal or masked. As a control, the peer is also given the sharing by hand
// ("split": the prompt once, completions behind it under a mask).
// Usage: attention_vs_sdpa [rounds]
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/GradMode.h>
#include <malloc.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "roof.h"
#include "rounds.h"
#include "temper/core/rng.h"
#include "temper/core/threads.h"
#include "temper/core/torch.h"
#include "temper/kernels/tree_attention.h"

namespace {

using namespace temper::kernels;
using temper::benchmarks::Paired;

constexpr int kHeads = 9, kKvHeads = 3, kDim = 64;
constexpr int64_t kPrompt = 256, kGroup = 8, kLength = 128;
constexpr int64_t kText = kPrompt + kLength, kRows = kPrompt + kGroup * kLength;
constexpr int64_t kWidth = kHeads * kDim, kKvWidth = kKvHeads * kDim;

std::vector<float> noise(int64_t n, uint64_t seed) {
  temper::RngStream rng(seed, temper::RngPurpose::kTest, 1);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& v : out) v = 2 * static_cast<float>(rng.next_uniform()) - 1;
  return out;
}

/// Row of the tree that holds position t of text g.
int64_t tree_row(int64_t g, int64_t t) {
  return t < kPrompt ? t : kPrompt + g * kLength + (t - kPrompt);
}

/// Our side: the tree's rows and everything that is written.
struct Tree {
  std::vector<float> q = noise(kRows * kWidth, 1), k = noise(kRows * kKvWidth, 2);
  std::vector<float> v = noise(kRows * kKvWidth, 3), dout = noise(kRows * kWidth, 4);
  std::vector<float> out = std::vector<float>(q.size()), lse = std::vector<float>(kRows * kHeads);
  std::vector<float> dq = out, dk = std::vector<float>(k.size()), dv = dk;
  std::vector<KeySpan> spans = {{0, kPrompt}};
  std::vector<TreeAttentionArgs::Query> queries = {};

  Tree() {
    for (int32_t t = 0; t < kPrompt; ++t) queries.push_back({0, 1, t + 1, t});
    for (int64_t g = 0; g < kGroup; ++g) {
      const auto begin = static_cast<int32_t>(spans.size());
      spans.push_back({0, kPrompt});
      spans.push_back({tree_row(g, kPrompt), kLength});
      for (int32_t t = kPrompt; t < kText; ++t) queries.push_back({begin, begin + 2, t + 1, t});
    }
  }
  TreeAttentionArgs args() {
    return {.q = q.data(),
            .q_stride = kWidth,
            .k = k.data(),
            .v = v.data(),
            .kv_stride = kKvWidth,
            .out = out.data(),
            .out_stride = kWidth,
            .lse = lse.data(),
            .spans = spans,
            .queries = queries,
            .heads = kHeads,
            .kv_heads = kKvHeads,
            .head_dim = kDim,
            .scale = 0.125f,
            .window = 0};
  }
  void forward() { tree_attention(args()); }
  void both() {
    forward();
    std::fill(dk.begin(), dk.end(), 0.0f);
    std::fill(dv.begin(), dv.end(), 0.0f);
    tree_attention_backward({.forward = args(),
                             .dout = dout.data(),
                             .dout_stride = kWidth,
                             .dq = dq.data(),
                             .dq_stride = kWidth,
                             .dk = dk.data(),
                             .dv = dv.data(),
                             .dkv_stride = kKvWidth});
  }
  /// (query, key) pairs that are computed.
  [[nodiscard]] double pairs() const {
    double total = 0;
    for (const auto& query : queries) total += query.visible;
    return total;
  }
};

/// [texts, kHeads, length, kDim] of rows with `heads` heads; text g has positions [from, from +
/// length).
at::Tensor texts_of(const std::vector<float>& rows, int heads, int64_t texts, int64_t from,
                    int64_t length) {
  at::Tensor t = at::empty({texts, kHeads, length, kDim}, at::kFloat);
  float* to = t.data_ptr<float>();
  for (int64_t g = 0; g < texts; ++g) {
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t i = 0; i < length; ++i, to += kDim) {
        const int64_t head = h / (kHeads / heads);
        std::copy_n(rows.data() + (tree_row(g, from + i) * heads + head) * kDim, kDim, to);
      }
    }
  }
  return t;
}

/// One call of scaled_dot_product_attention with its gradients.
struct Attention {
  at::Tensor q, k, v, dout;
  std::optional<at::Tensor> mask = {};
  bool causal = false;

  at::Tensor forward() const {
    return at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, 0.125);
  }
  void both() const {
    for (const at::Tensor& t : {q, k, v}) t.mutable_grad() = at::Tensor();
    forward().backward(dout);
  }
};

/// Rows see keys up to `before` plus their own index.
at::Tensor mask_of(int64_t rows, int64_t before) {
  return at::ones({rows, before + rows}, at::kBool).tril(before);
}

/// What the peer is given.
struct Peer {
  std::string name;
  std::vector<Attention> calls;

  Peer(std::string what, at::ScalarType type, std::vector<Attention> of)
      : name(std::move(what)), calls(std::move(of)) {
    for (Attention& a : calls) {
      for (at::Tensor* t : {&a.q, &a.k, &a.v}) *t = t->to(type, false, true).requires_grad_(true);
      a.dout = a.dout.to(type, false, true);
    }
  }
  void forward() const {
    const c10::NoGradGuard no_grad;
    for (const Attention& a : calls) (void)a.forward();
  }
  void both() const {
    for (const Attention& a : calls) a.both();
  }
};

Attention texts(const Tree& tree, int64_t count, int64_t from, int64_t length) {
  return {.q = texts_of(tree.q, kHeads, count, from, length),
          .k = texts_of(tree.k, kKvHeads, count, 0, from + length),
          .v = texts_of(tree.v, kKvHeads, count, 0, from + length),
          .dout = texts_of(tree.dout, kHeads, count, from, length)};
}

std::vector<Peer> peers_of(const Tree& tree) {
  std::vector<Peer> peers;
  for (const auto& [type, suffix] : {std::pair{at::kFloat, "fp32"}, {at::kBFloat16, "bf16"}}) {
    Attention causal = texts(tree, kGroup, 0, kText);
    causal.causal = true;
    peers.emplace_back(std::string("causal ") + suffix, type, std::vector{causal});
    Attention masked = texts(tree, kGroup, 0, kText);
    masked.mask = mask_of(kText, 0);
    peers.emplace_back(std::string("masked ") + suffix, type, std::vector{masked});
    Attention prompt = texts(tree, 1, 0, kPrompt);
    prompt.causal = true;
    Attention completions = texts(tree, kGroup, kPrompt, kLength);
    completions.mask = mask_of(kLength, kPrompt);
    peers.emplace_back(std::string("split ") + suffix, type, std::vector{prompt, completions});
  }
  return peers;
}

/// Largest difference of our results from those of the peer in double, over full texts.
double worst_difference(Tree& tree) {
  tree.both();
  Attention a = texts(tree, kGroup, 0, kText);
  a.causal = true;
  // A prompt's row stands in every text: its share of the gradient is one of kGroup.
  a.dout.slice(2, 0, kPrompt).div_(static_cast<double>(kGroup));
  const Peer exact("double", at::kDouble, {a});
  exact.both();
  const at::Tensor out = exact.calls[0].forward().detach();
  std::vector<double> dq(tree.dq.size()), dk(tree.dk.size()), dv(tree.dv.size());
  double worst = 0;
  const auto at = [](const at::Tensor& t, int64_t g, int64_t h, int64_t i) {
    return t.data_ptr<double>() + ((g * kHeads + h) * kText + i) * kDim;
  };
  const at::Tensor gq = exact.calls[0].q.grad().contiguous();
  const at::Tensor gk = exact.calls[0].k.grad().contiguous();
  const at::Tensor gv = exact.calls[0].v.grad().contiguous();
  const at::Tensor dense = out.contiguous();
  for (int64_t g = 0; g < kGroup; ++g) {
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t i = 0; i < kText; ++i) {
        const int64_t row = tree_row(g, i);
        for (int64_t d = 0; d < kDim; ++d) {
          const auto q_at = static_cast<size_t>((row * kHeads + h) * kDim + d);
          const auto k_at = static_cast<size_t>((row * kKvHeads + h / 3) * kDim + d);
          worst = std::max(worst, std::fabs(at(dense, g, h, i)[d] - tree.out[q_at]));
          dq[q_at] += at(gq, g, h, i)[d];
          dk[k_at] += at(gk, g, h, i)[d];
          dv[k_at] += at(gv, g, h, i)[d];
        }
      }
    }
  }
  for (size_t i = 0; i < dq.size(); ++i) worst = std::max(worst, std::fabs(dq[i] - tree.dq[i]));
  for (size_t i = 0; i < dk.size(); ++i) worst = std::max(worst, std::fabs(dk[i] - tree.dk[i]));
  for (size_t i = 0; i < dv.size(); ++i) worst = std::max(worst, std::fabs(dv[i] - tree.dv[i]));
  return worst;
}

/// What the kernel must do at least, and what it took of the machine.
struct Work {
  const char* name;
  double flops;
  double bytes;  // Every array read or written once.
};

void print(const Work& work, const std::string& peer, const Paired& p,
           const temper::benchmarks::Roof& roof) {
  std::printf(
      "{\"pass\": \"%s\", \"peer\": \"%s\", \"peer_seconds_over_ours\": %.3f, \"interval_95\": "
      "[%.3f, %.3f], \"rounds\": %d, \"ours_ms\": %.3f, \"peer_ms\": %.3f, \"flops\": %.4g, "
      "\"bytes\": %.4g, \"share_of_fma_roof\": %.3f, \"share_of_read_roof\": %.4f, "
      "\"cores_of_others\": %.2f}\n",
      work.name, peer.c_str(), p.ratio, p.low, p.high, p.rounds, p.ours * 1e3, p.other * 1e3,
      work.flops, work.bytes, work.flops / p.ours / roof.fma, work.bytes / p.ours / roof.read,
      p.other_load);
  std::fflush(stdout);
}

/// Every peer in turn, and the fastest beside us of those that compute full texts once more, as the
/// result. Ratios choose it: the host drifts from one peer to the next.
void compare(Tree& tree, const std::vector<Peer>& peers, int rounds, bool backward) {
  const temper::benchmarks::RoofProbe probe;
  const double flops = tree.pairs() * kHeads * kDim * (backward ? 14 : 4);
  const double q_bytes = 4.0 * kRows * kWidth, kv_bytes = 4.0 * kRows * kKvWidth;
  const Work work{backward ? "forward + backward" : "forward", flops,
                  backward ? 6 * q_bytes + 8 * kv_bytes : 2 * q_bytes + 2 * kv_bytes};
  const auto time = [&](const Peer& peer) {
    return temper::benchmarks::paired(
        rounds, [&] { backward ? tree.both() : tree.forward(); },
        [&] { backward ? peer.both() : peer.forward(); });
  };
  const Peer* best = nullptr;
  double least = 0;
  for (const Peer& peer : peers) {
    const Paired p = time(peer);
    print(work, peer.name, p, probe.measure());
    if (!peer.name.starts_with("split") && (best == nullptr || p.ratio < least)) {
      best = &peer;
      least = p.ratio;
    }
  }
  print(work, "fastest of full texts: " + best->name, time(*best), probe.measure());
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 20;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: attention_vs_sdpa [rounds]\n");
    return 2;
  }
  // Or the C library returns the peer's results to the system after each call.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  at::set_num_threads(temper::num_threads());
  Tree tree;
  const double difference = worst_difference(tree);
  std::printf("{\"threads\": %d, \"worst_difference_from_double\": %.2e}\n", temper::num_threads(),
              difference);
  if (!(difference < 1e-4)) {
    std::fprintf(stderr, "results differ: nothing is timed\n");
    return 1;
  }
  const std::vector<Peer> peers = peers_of(tree);
  compare(tree, peers, rounds, false);
  compare(tree, peers, rounds, true);
}
