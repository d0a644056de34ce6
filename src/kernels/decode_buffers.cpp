#include "temper/kernels/decode.h"

namespace temper::kernels::cuda {
namespace {

/// Cuts pieces that begin at multiples of 256 bytes.
class Cutter {
 public:
  explicit Cutter(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}

  float* take(int64_t floats) {
    unsigned char* p = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (static_cast<size_t>(floats) * sizeof(float) + 255) / 256 * 256;
    return reinterpret_cast<float*>(p);
  }
  size_t used() const { return used_; }

 private:
  unsigned char* memory_;
  size_t used_ = 0;
};

DecodeBuffers cut(const DecodeModel& m, int64_t batch, Cutter& from) {
  const int64_t q = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim;
  DecodeBuffers b;
  b.x = from.take(batch * m.hidden);
  b.h = from.take(batch * m.hidden);
  b.qkv = from.take(batch * (q + 2 * kv));
  b.q = from.take(batch * q);
  b.k = from.take(batch * kv);
  b.attention = from.take(batch * q);
  b.gate_up = from.take(batch * 2 * m.intermediate);
  b.gated = from.take(batch * m.intermediate);
  b.logits = from.take(linear_sample_workspace(batch, m.head.n));
  return b;
}

}  // namespace

size_t decode_buffer_bytes(const DecodeModel& model, int64_t batch) {
  Cutter from(nullptr);
  (void)cut(model, batch, from);
  return from.used();
}

DecodeBuffers place_decode_buffers(const DecodeModel& model, int64_t batch, void* memory) {
  Cutter from(memory);
  return cut(model, batch, from);
}

}  // namespace temper::kernels::cuda
