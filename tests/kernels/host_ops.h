#pragma once
// Cases that run on the CPU, on the emulator and on a GPU are templates over a device: a type with
// `Buffer<T>` (from a size, then filled with 0xff bytes, or from a vector; `data()`, `values()`)
// and the ops as static functions that take a device's pointers. This is the CPU's.

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda_sim/tsan_size.h"
#include "temper/kernels/adamw.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/gae.h"
#include "temper/kernels/group_advantages.h"
#include "temper/kernels/kl_penalty.h"
#include "temper/kernels/masked_stats.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/swiglu.h"

namespace temper::test {

/// A size above 2^16.
inline constexpr int64_t kMany = tsan_size(70001, 1025);

template <class T>
class HostBuffer {
 public:
  explicit HostBuffer(size_t n) : values_(n) {
    if (n > 0) std::memset(static_cast<void*>(values_.data()), 0xff, n * sizeof(T));
  }
  explicit HostBuffer(std::vector<T> values) : values_(std::move(values)) {}
  T* data() { return values_.data(); }
  std::vector<T> values() { return values_; }

 private:
  std::vector<T> values_;
};

struct HostOps {
  template <class T>
  using Buffer = HostBuffer<T>;

  static bool kl_penalty(const kernels::KlPenaltyArgs& a) { return kernels::kl_penalty(a), true; }
  static bool shape_rewards(const kernels::ShapeRewardsArgs& a) {
    return kernels::shape_rewards(a), true;
  }
  static bool gae(const kernels::GaeArgs& a) { return kernels::gae(a), true; }
  static bool group_advantages(const kernels::GroupAdvantagesArgs& a) {
    return kernels::group_advantages(a), true;
  }
  static bool masked_stats(const kernels::cuda::MaskedStatsArgs& a) {
    *a.stats = kernels::masked_stats(a.x, a.mask, a.count);
    return true;
  }
  static bool whiten(const kernels::WhitenArgs& a) { return kernels::whiten(a), true; }
  static bool adamw(kernels::AdamWArgs a, const float* grad_scale) {
    if (grad_scale != nullptr) a.grad_scale = *grad_scale;
    return kernels::adamw(a), true;
  }
  static bool sum_of_squares(const float* x, int64_t count, double*, double* sum) {
    *sum = kernels::sum_of_squares(x, count);
    return true;
  }
  static bool clip_factor(const kernels::cuda::ClipArgs& a) {
    *a.norm = kernels::global_norm({a.squares, static_cast<size_t>(a.buffers)});
    *a.factor = static_cast<float>(kernels::clip_factor(*a.norm, a.max_norm));
    return true;
  }
  static bool rms_norm(const kernels::RmsNormArgs& a) { return kernels::rms_norm(a), true; }
  static bool rms_norm_backward(const kernels::RmsNormBackwardArgs& a) {
    return kernels::rms_norm_backward(a), true;
  }
  static bool rope(const kernels::cuda::RopeArgs& a, int64_t positions) {
    kernels::RopeTable table;
    table.positions = positions;
    table.half = a.half;
    table.cos.assign(a.cos, a.cos + positions * a.half);
    table.sin.assign(a.sin, a.sin + positions * a.half);
    kernels::rope(a.x, a.row_stride, {a.positions, static_cast<size_t>(a.rows)}, a.heads, table,
                  a.inverse);
    return true;
  }
  static bool embedding(const kernels::PackedWeight& w, std::span<const int32_t> ids, float* out) {
    return kernels::embedding(w, ids, out), true;
  }
  static bool swiglu(const float* gate_up, float* y, int64_t rows, int64_t width) {
    return kernels::swiglu(gate_up, y, rows, width), true;
  }
  static bool swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                              int64_t width) {
    return kernels::swiglu_backward(dy, gate_up, dgate_up, rows, width), true;
  }
  static bool add_inplace(float* x, const float* y, int64_t n) {
    return kernels::add_inplace(x, y, n), true;
  }
};

}  // namespace temper::test
