#pragma once
// A small model and three sequences behind a shared prompt, decoded by the CPU's ops with plain
// bookkeeping. A device's decode step has to draw the same tokens with the same numbers.

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/core/rng.h"
#include "temper/kernels/decode.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/swiglu.h"

namespace temper::test {

using Floats = std::vector<float>;

inline constexpr int64_t kHidden = 32, kHeads = 4, kKvHeads = 2, kHeadDim = 8, kWide = 48;
inline constexpr int64_t kVocabulary = 90, kLayers = 2, kPositions = 32;
inline constexpr int64_t kQ = kHeads * kHeadDim, kKv = kKvHeads * kHeadDim;
inline constexpr int64_t kBatch = 3, kPageRows = 4, kPages = 8, kPrompt = 5, kSpanRoom = 4;
inline constexpr int32_t kLimits[kBatch] = {7, 3, 6};
inline constexpr int32_t kOwnPages[kBatch][2] = {{2, 3}, {5, 4}, {7, 6}};  // In a row; not; back.
inline constexpr int32_t kFirstIds[kBatch] = {11, 60, 89};
inline constexpr int64_t kLogRows = 7;
inline constexpr kernels::cuda::DecodeKey kKey{1234567890123ull, 9};

struct DecodeOptions {
  bool half = false;     // bf16 weights.
  bool f16 = false;      // Half-precision weights.
  bool qk_norm = false;  // As Qwen3.
  bool bias = false;     // As Qwen2.
  int32_t stop_id = -1;
};

/// Puts arrays into buffers of one kind and keeps them.
template <template <class> class Buffer>
class CaseMemory {
 public:
  template <class T>
  Buffer<T>& buffer(const std::vector<T>& values) {
    auto made = std::make_shared<Buffer<T>>(values);
    kept_.push_back(made);
    return *made;
  }
  template <class T>
  T* put(const std::vector<T>& values) {
    return buffer(values).data();
  }

 private:
  std::vector<std::shared_ptr<void>> kept_;
};

/// The case in one kind of memory: `args` is what decode_step takes.
template <template <class> class Buffer>
struct DecodeCase {
  DecodeOptions options;
  CaseMemory<Buffer> memory;
  std::vector<kernels::cuda::DecodeLayer> layers;
  kernels::cuda::DecodeStepArgs args;
  Buffer<kernels::SampledToken>* log = nullptr;
  Buffer<kernels::cuda::DecodeSequence>* sequences = nullptr;
  std::vector<Buffer<float>*> caches;
  uint32_t seed = 1;

  explicit DecodeCase(const DecodeOptions& o) : options(o) {
    for (int64_t l = 0; l < kLayers; ++l) layers.push_back(layer());
    make_model();
    make_rows();
  }

  kernels::PackedWeight weight(int64_t n, int64_t k) {
    const Floats rows = random_floats(n * k, seed++, 0.5f);
    Floats panels(static_cast<size_t>(kernels::panel_elements(n, k)), 0.0f);
    kernels::pack_rows(rows.data(), n, k, 0, panels.data());
    std::vector<uint16_t> half(panels.size());
    (options.f16 ? kernels::panels_to_f16 : kernels::panels_to_bf16)(
        panels.data(), static_cast<int64_t>(panels.size()), half.data());
    return {.f32 = memory.put(panels),
            .bf16 = options.half ? memory.put(half) : nullptr,
            .n = n,
            .k = k,
            .f16 = options.f16 ? memory.put(half) : nullptr};
  }
  float* scales(int64_t n) {
    Floats v = random_floats(n, seed++, 0.2f);
    for (float& x : v) x += 1.0f;
    return memory.put(v);
  }
  float* bias(int64_t n) { return options.bias ? memory.put(random_floats(n, seed++)) : nullptr; }

  kernels::cuda::DecodeLayer layer() {
    kernels::cuda::DecodeLayer l;
    l.norm_in = scales(kHidden);
    l.qkv = weight(kQ + 2 * kKv, kHidden);
    l.qkv_bias = bias(kQ + 2 * kKv);
    if (options.qk_norm) {
      l.q_norm = scales(kHeadDim);
      l.k_norm = scales(kHeadDim);
    }
    l.o = weight(kHidden, kQ);
    l.norm_mid = scales(kHidden);
    l.gate_up = weight(2 * kWide, kHidden);
    l.down = weight(kHidden, kWide);
    for (float** cache : {&l.keys, &l.values}) {  // The prompt's rows and what nobody may read.
      Floats rows = random_floats(kPages * kPageRows * kKv, seed++);
      std::fill(rows.begin() + kPrompt * kKv, rows.end(), NAN);
      caches.push_back(&memory.buffer(rows));
      *cache = caches.back()->data();
    }
    return l;
  }
  void make_model() {
    auto& m = args.model;
    m.layers = layers;
    m.hidden = kHidden;
    m.heads = kHeads;
    m.kv_heads = kKvHeads;
    m.head_dim = kHeadDim;
    m.intermediate = kWide;
    m.eps = 1e-5f;
    m.embedding = weight(kVocabulary, kHidden);
    m.final_norm = scales(kHidden);
    m.head = weight(kVocabulary, kHidden);
    m.allowed = kVocabulary - 3;
    const kernels::RopeTable table = kernels::make_rope_table(kHeadDim, kPositions, 10000.0);
    m.rope_cos = memory.put(table.cos);
    m.rope_sin = memory.put(table.sin);
  }
  void make_rows() {
    using kernels::cuda::DecodeSequence;
    std::vector<int32_t> positions(kBatch, kPrompt), pages;
    std::vector<int64_t> slots;
    std::vector<kernels::TreeAttentionArgs::Query> queries;
    std::vector<kernels::KeySpan> spans(kBatch * kSpanRoom, {-1, -1});
    std::vector<DecodeSequence> state;
    std::vector<double> uniforms;
    for (int32_t r = 0; r < kBatch; ++r) {
      const int32_t span = r * static_cast<int32_t>(kSpanRoom);
      slots.push_back(kOwnPages[r][0] * kPageRows);
      spans[static_cast<size_t>(span)] = {0, kPrompt};
      spans[static_cast<size_t>(span) + 1] = {slots.back(), 1};
      queries.push_back({span, span + 2, kPrompt + 1, kPrompt});
      state.push_back({static_cast<uint64_t>(r) + 40, 0, kLimits[r], 1, 2 * r, 1, 0});
      const auto bits =
          keyed_random(kKey.seed, RngPurpose::kSample, kKey.step, state.back().sequence, 0);
      uniforms.push_back(uniform_from_bits(bits[0], bits[1]));
      pages.insert(pages.end(), {kOwnPages[r][0], kOwnPages[r][1]});
    }
    auto& r = args.rows;
    r.batch = kBatch;
    r.ids = memory.put(std::vector<int32_t>(kFirstIds, kFirstIds + kBatch));
    r.positions = memory.put(positions);
    r.slots = memory.put(slots);
    r.queries = memory.put(queries);
    r.spans = memory.put(spans);
    r.span_count = std::ssize(spans);
    r.pages = memory.put(pages);
    sequences = &memory.buffer(state);
    r.sequences = sequences->data();
    r.params = memory.put(std::vector<kernels::SamplingParams>{
        {}, {.temperature = 0.0f}, {.temperature = 0.7f, .top_k = 20, .top_p = 0.9f}});
    r.uniforms = memory.put(uniforms);
    r.key = memory.put(std::vector<kernels::cuda::DecodeKey>{kKey});
    r.stop_ids = memory.put(std::vector<int32_t>{options.stop_id});
    r.stop_count = 1;
    r.page_rows = kPageRows;
    r.sampled = memory.put(std::vector<kernels::SampledToken>(kBatch));
    log = &memory.buffer(std::vector<kernels::SampledToken>(kBatch * kLogRows));
    r.log = log->data();
    r.log_rows = kLogRows;
    args.buffers = kernels::cuda::place_decode_buffers(
        args.model, kBatch,
        memory.put(Floats(kernels::cuda::decode_buffer_bytes(args.model, kBatch) / 4 + 64, NAN)));
  }
};

/// A sequence as a text: what the CPU remembers of it.
struct DecodeText {
  int32_t id;
  std::vector<int64_t> rows;  // Of the cache, in logical order.
  std::vector<kernels::SampledToken> drawn;
};

/// Steps of the CPU on a case in host memory.
template <template <class> class Buffer>
class DecodeReference {
 public:
  explicit DecodeReference(DecodeCase<Buffer>& c) : m_(c.args.model), c_(c) {
    for (int64_t r = 0; r < kBatch; ++r) {
      DecodeText t{kFirstIds[r], {}, {}};
      for (int64_t i = 0; i < kPrompt; ++i) t.rows.push_back(i);
      t.rows.push_back(kOwnPages[r][0] * kPageRows);
      texts_.push_back(t);
    }
  }
  const std::vector<DecodeText>& texts() const { return texts_; }

  /// One token for one sequence, alone.
  void step(int64_t r) {
    DecodeText& t = texts_[static_cast<size_t>(r)];
    if (done(r)) return;
    Floats x(kHidden), h(kHidden);
    const std::vector<int32_t> id{t.id}, position{static_cast<int32_t>(t.rows.size()) - 1};
    kernels::embedding(m_.embedding, id, x.data());
    for (const auto& l : m_.layers) layer(l, t, position, x);
    kernels::rms_norm({x.data(), m_.final_norm, h.data(), nullptr, 1, kHidden, m_.eps});
    draw(r, t, h);
  }
  bool done(int64_t r) const {
    const auto& d = texts_[static_cast<size_t>(r)].drawn;
    return std::ssize(d) == kLimits[r] || (!d.empty() && d.back().id == c_.options.stop_id);
  }

 private:
  static void product(const Floats& x, const kernels::PackedWeight& w, const float* bias, Floats& y,
                      bool add) {
    kernels::linear({.x = x.data(),
                     .x_stride = w.k,
                     .weight = w,
                     .bias = bias,
                     .y = y.data(),
                     .y_stride = w.n,
                     .rows = 1,
                     .add = add});
  }
  void layer(const kernels::cuda::DecodeLayer& l, const DecodeText& t,
             const std::vector<int32_t>& position, Floats& x) {
    Floats h(kHidden), qkv(kQ + 2 * kKv), out(kQ), gate_up(2 * kWide), gated(kWide);
    kernels::rms_norm({x.data(), l.norm_in, h.data(), nullptr, 1, kHidden, m_.eps});
    product(h, l.qkv, l.qkv_bias, qkv, false);
    float* q = qkv.data();
    float* k = q + kQ;
    if (l.q_norm != nullptr) {
      kernels::rms_norm({q, l.q_norm, q, nullptr, kHeads, kHeadDim, m_.eps});
      kernels::rms_norm({k, l.k_norm, k, nullptr, kKvHeads, kHeadDim, m_.eps});
    }
    const auto table = kernels::make_rope_table(kHeadDim, kPositions, 10000.0);
    kernels::rope(q, kQ + 2 * kKv, position, kHeads, table, false);
    kernels::rope(k, kQ + 2 * kKv, position, kKvHeads, table, false);
    std::copy_n(k, kKv, l.keys + t.rows.back() * kKv);
    std::copy_n(k + kKv, kKv, l.values + t.rows.back() * kKv);
    attend(l, t, q, out);
    product(out, l.o, l.o_bias, x, true);
    kernels::rms_norm({x.data(), l.norm_mid, h.data(), nullptr, 1, kHidden, m_.eps});
    product(h, l.gate_up, l.gate_up_bias, gate_up, false);
    kernels::swiglu(gate_up.data(), gated.data(), 1, kWide);
    product(gated, l.down, l.down_bias, x, true);
  }
  /// Every key is a span of its own: the cut of a list does not change bits.
  void attend(const kernels::cuda::DecodeLayer& l, const DecodeText& t, const float* q,
              Floats& out) {
    std::vector<kernels::KeySpan> spans;
    for (const int64_t row : t.rows) spans.push_back({row, 1});
    const auto keys = static_cast<int32_t>(spans.size());
    const std::vector<kernels::TreeAttentionArgs::Query> query{{0, keys, keys, keys - 1}};
    kernels::TreeAttentionArgs a{};
    a.q = q;
    a.q_stride = kQ;
    a.k = l.keys;
    a.v = l.values;
    a.kv_stride = kKv;
    a.out = out.data();
    a.out_stride = kQ;
    a.spans = spans;
    a.queries = query;
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.head_dim = kHeadDim;
    a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(kHeadDim)));
    kernels::tree_attention(a);
  }
  void draw(int64_t r, DecodeText& t, const Floats& h) {
    const auto bits =
        keyed_random(kKey.seed, RngPurpose::kSample, kKey.step, static_cast<uint64_t>(r) + 40,
                     static_cast<uint32_t>(t.drawn.size()));
    const kernels::SampleRow row{c_.args.rows.params + r, {}, uniform_from_bits(bits[0], bits[1])};
    kernels::SampledToken token;
    kernels::linear_sample({.hidden = h.data(),
                            .hidden_stride = kHidden,
                            .head = m_.head,
                            .allowed = m_.allowed,
                            .rows = {&row, 1},
                            .out = {&token, 1}});
    t.drawn.push_back(token);
    if (done(r)) return;
    t.id = token.id;
    const int64_t own = std::ssize(t.rows) - kPrompt;
    t.rows.push_back(kOwnPages[r][own / kPageRows] * kPageRows + own % kPageRows);
  }

  const kernels::cuda::DecodeModel& m_;
  DecodeCase<Buffer>& c_;
  std::vector<DecodeText> texts_;
};

}  // namespace temper::test
