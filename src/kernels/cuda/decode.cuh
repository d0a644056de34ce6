#pragma once
// A step of decoding: the small kernels between the ops, and the ops in order. `Ops` are the public
// functions, or their launchers on the emulator.

#include "cuda/elementwise.cuh"
#include "cuda/philox.cuh"
#include "temper/core/rng.h"
#include "temper/kernels/decode.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// A column range of a row-major array.
struct DecodeColumns {
  float* p;
  int64_t stride;
  int64_t width;
};

/// q and k, neighbours in rows of qkv, to arrays of their own.
__global__ void __launch_bounds__(kElementThreads)
    split_qk(const float* qkv, int64_t stride, int64_t rows, DecodeColumns q, DecodeColumns k) {
  const int64_t width = q.width + k.width;
  for_elements(rows * width, [&](int64_t i) {
    const int64_t row = i / width, column = i % width;
    float* to = column < q.width ? q.p + row * q.stride + column
                                 : k.p + row * k.stride + (column - q.width);
    *to = qkv[row * stride + column];
  });
}

/// Keys and values of the new rows to their slots in a layer's cache.
__global__ void __launch_bounds__(kElementThreads)
    write_kv(DecodeColumns k, DecodeColumns v, const int64_t* slots, int64_t rows, float* keys,
             float* values) {
  for_elements(rows * k.width, [&](int64_t i) {
    const int64_t row = i / k.width, column = i % k.width;
    const int64_t to = slots[row] * k.width + column;
    keys[to] = k.p[row * k.stride + column];
    values[to] = v.p[row * v.stride + column];
  });
}

__device__ __forceinline__ bool is_stop(const DecodeRows& r, int32_t id) {
  bool stop = false;
  for (int64_t i = 0; i < r.stop_count; ++i) stop = stop || r.stop_ids[i] == id;
  return stop;
}

/// One thread a row: see decode_advance.
__global__ void __launch_bounds__(kElementThreads) advance_rows(DecodeRows r) {
  for_elements(r.batch, [&](int64_t row) {
    DecodeSequence& s = r.sequences[row];
    if (s.active == 0) return;
    const SampledToken token = r.sampled[row];
    r.log[row * r.log_rows + s.drawn] = token;
    ++s.drawn;
    if (s.drawn >= s.limit || is_stop(r, token.id)) {
      s.active = 0;
      return;
    }
    const int64_t page = r.pages[s.page_begin + s.length / r.page_rows];
    const int64_t slot = page * r.page_rows + s.length % r.page_rows;
    ++s.length;
    TreeAttentionArgs::Query& query = r.queries[row];
    KeySpan& last = r.spans[query.span_end - 1];
    if (last.first_row + last.count == slot) {
      ++last.count;
    } else {
      r.spans[query.span_end] = {slot, 1};
      ++query.span_end;
    }
    ++query.visible;
    ++query.position;
    ++r.positions[row];
    r.slots[row] = slot;
    r.ids[row] = token.id;
    const Words4 bits = keyed_words(r.key->seed, static_cast<uint32_t>(RngPurpose::kSample),
                                    r.key->step, s.sequence, static_cast<uint32_t>(s.drawn));
    r.uniforms[row] = uniform_from_words(bits.v[0], bits.v[1]);
  });
}

inline Status launch_decode_advance(const DecodeRows& r, Stream stream) {
  if (r.batch < 0 || r.page_rows < 1) {
    return invalid_argument("[decode] expected batch >= 0 and page_rows >= 1");
  }
  return launch(advance_rows, element_blocks(r.batch), kElementThreads, 0, stream, r);
}

/// Remembers the first failure of a sequence of launches, and launches nothing after it.
class LaunchChain {
 public:
  template <class Launch>
  LaunchChain& then(const Launch& launch) {
    if (status_.ok()) status_ = launch();
    return *this;
  }
  Status status() const { return status_; }

 private:
  Status status_;
};

template <class Ops>
class DecodeStep {
 public:
  DecodeStep(const DecodeStepArgs& a, Stream stream)
      : m_(a.model),
        r_(a.rows),
        b_(a.buffers),
        stream_(stream),
        q_width_(m_.heads * m_.head_dim),
        kv_width_(m_.kv_heads * m_.head_dim) {}

  Status run() {
    LaunchChain chain;
    chain.then([&] { return Ops::embedding(m_.embedding, r_.ids, r_.batch, b_.x, stream_); });
    for (const DecodeLayer& layer : m_.layers) {
      chain.then([&] { return attention(layer); }).then([&] { return mlp(layer); });
    }
    return chain.then([&] { return norm(b_.x, m_.final_norm, b_.h, r_.batch, m_.hidden); })
        .then([&] { return sample(); })
        .then([&] { return launch_decode_advance(r_, stream_); })
        .status();
  }

 private:
  Status norm(const float* x, const float* weight, float* y, int64_t rows, int64_t width) const {
    return Ops::rms_norm({x, weight, y, nullptr, rows, width, m_.eps}, stream_);
  }
  LinearArgs product(const float* x, const PackedWeight& w, const float* bias, float* y) const {
    return {.x = x,
            .x_stride = w.k,
            .weight = w,
            .bias = bias,
            .y = y,
            .y_stride = w.n,
            .rows = r_.batch};
  }
  Status turn(const DecodeColumns& c, int64_t heads) const {
    RopeArgs a;
    a.x = c.p;
    a.row_stride = c.stride;
    a.positions = r_.positions;
    a.rows = r_.batch;
    a.heads = heads;
    a.cos = m_.rope_cos;
    a.sin = m_.rope_sin;
    a.half = m_.head_dim / 2;
    return Ops::rope(a, stream_);
  }

  /// Norms of q and k, which want rows without gaps.
  Status norm_heads(const DecodeLayer& l) const {
    return LaunchChain()
        .then([&] {
          return launch(split_qk, element_blocks(r_.batch * (q_width_ + kv_width_)),
                        kElementThreads, 0, stream_, static_cast<const float*>(b_.qkv),
                        q_width_ + 2 * kv_width_, r_.batch, DecodeColumns{b_.q, q_width_, q_width_},
                        DecodeColumns{b_.k, kv_width_, kv_width_});
        })
        .then([&] { return norm(b_.q, l.q_norm, b_.q, r_.batch * m_.heads, m_.head_dim); })
        .then([&] { return norm(b_.k, l.k_norm, b_.k, r_.batch * m_.kv_heads, m_.head_dim); })
        .status();
  }

  Status attend(const DecodeLayer& l, const DecodeColumns& q) const {
    TreeAttentionArgs a{};
    a.q = q.p;
    a.q_stride = q.stride;
    a.k = l.keys;
    a.v = l.values;
    a.kv_stride = kv_width_;
    a.out = b_.attention;
    a.out_stride = q_width_;
    a.spans = {r_.spans, static_cast<size_t>(r_.span_count)};
    a.queries = {r_.queries, static_cast<size_t>(r_.batch)};
    a.heads = static_cast<int>(m_.heads);
    a.kv_heads = static_cast<int>(m_.kv_heads);
    a.head_dim = static_cast<int>(m_.head_dim);
    a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(m_.head_dim)));
    a.window = l.window;
    return Ops::tree_attention(a, stream_);
  }

  Status attention(const DecodeLayer& l) const {
    const int64_t width = q_width_ + 2 * kv_width_;
    DecodeColumns q{b_.qkv, width, q_width_}, k{b_.qkv + q_width_, width, kv_width_};
    const DecodeColumns v{b_.qkv + q_width_ + kv_width_, width, kv_width_};
    LaunchChain chain;
    chain.then([&] { return norm(b_.x, l.norm_in, b_.h, r_.batch, m_.hidden); }).then([&] {
      return Ops::linear(product(b_.h, l.qkv, l.qkv_bias, b_.qkv), stream_);
    });
    if (l.q_norm != nullptr) {
      chain.then([&] { return norm_heads(l); });
      q = {b_.q, q_width_, q_width_};
      k = {b_.k, kv_width_, kv_width_};
    }
    return chain.then([&] { return turn(q, m_.heads); })
        .then([&] { return turn(k, m_.kv_heads); })
        .then([&] {
          return launch(write_kv, element_blocks(r_.batch * kv_width_), kElementThreads, 0, stream_,
                        k, v, static_cast<const int64_t*>(r_.slots), r_.batch, l.keys, l.values);
        })
        .then([&] { return attend(l, q); })
        .then([&] {
          LinearArgs o = product(b_.attention, l.o, l.o_bias, b_.x);
          o.add = true;
          return Ops::linear(o, stream_);
        })
        .status();
  }

  Status mlp(const DecodeLayer& l) const {
    return LaunchChain()
        .then([&] { return norm(b_.x, l.norm_mid, b_.h, r_.batch, m_.hidden); })
        .then([&] {
          LinearArgs gate_up = product(b_.h, l.gate_up, l.gate_up_bias, b_.gate_up);
          gate_up.swiglu = b_.gated;
          return Ops::linear(gate_up, stream_);
        })
        .then([&] {
          LinearArgs down = product(b_.gated, l.down, l.down_bias, b_.x);
          down.add = true;
          return Ops::linear(down, stream_);
        })
        .status();
  }

  Status sample() const {
    LinearSampleArgs a;
    a.hidden = b_.h;
    a.hidden_stride = m_.hidden;
    a.head = m_.head;
    a.allowed = m_.allowed;
    a.rows = r_.batch;
    a.params = r_.params;
    a.uniforms = r_.uniforms;
    a.out = r_.sampled;
    a.softcap = m_.softcap;
    a.support = m_.support;
    return Ops::linear_sample(a, b_.logits, stream_);
  }

  const DecodeModel& m_;
  const DecodeRows& r_;
  const DecodeBuffers& b_;
  Stream stream_;
  int64_t q_width_;
  int64_t kv_width_;
};

/// An empty text, or why a step cannot run.
inline const char* decode_problem(const DecodeStepArgs& a) {
  const DecodeModel& m = a.model;
  if (a.rows.batch < 1) return "[decode] batch must be >= 1";
  if (m.kv_heads < 1 || m.heads % m.kv_heads != 0 || m.head_dim < 2 || m.head_dim % 2 != 0) {
    return "[decode] expected kv_heads that divide heads and an even head_dim";
  }
  for (const DecodeLayer& l : m.layers) {
    if (l.qkv.n != (m.heads + 2 * m.kv_heads) * m.head_dim || l.qkv.k != m.hidden) {
      return "[decode] qkv must be [(heads + 2 kv_heads) head_dim, hidden]";
    }
    if (l.o.n != m.hidden || l.o.k != m.heads * m.head_dim) {
      return "[decode] o must be [hidden, heads head_dim]";
    }
    if (l.gate_up.n != 2 * m.intermediate || l.gate_up.k != m.hidden || l.down.n != m.hidden ||
        l.down.k != m.intermediate) {
      return "[decode] gate_up must be [2 intermediate, hidden] and down [hidden, intermediate]";
    }
    if ((l.q_norm == nullptr) != (l.k_norm == nullptr)) {
      return "[decode] q_norm and k_norm come together";
    }
  }
  if (m.embedding.k != m.hidden || m.head.k != m.hidden) {
    return "[decode] embedding and head must have `hidden` columns";
  }
  return "";
}

template <class Ops>
Status launch_decode_step(const DecodeStepArgs& args, Stream stream) {
  const char* problem = decode_problem(args);
  if (*problem != 0) return invalid_argument(problem);
  return DecodeStep<Ops>(args, stream).run();
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
