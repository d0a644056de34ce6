#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "cpu/blocks-inl.h"
#include "cpu/operands-inl.h"
#include "cpu/workspace.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"
#include "temper/kernels/linear.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Rows of dy that meet all strips of a part before the next rows do: with one chunk of steps they
/// stay in the L1 cache.
constexpr int64_t kInputRowBlock = 48;
/// Rows of x and dy that one pass of the weight gradient reads before it stores its accumulators.
constexpr int64_t kWeightRowBlock = 256;

/// Rows [0, depth) of 16-bit panels in float32; `depth` is rounded up to pairs.
template <class B>
void widen_panel(const B& b, int64_t depth, float* out) {
  for (int64_t k = 0; k < depth; k += 2) {
    for (int c = 0; c < kPanel; c += kLanes) {
      hn::StoreU(b.template load<0>(k, c), DF(), out + k * kPanel + c);
      hn::StoreU(b.template load<1>(k, c), DF(), out + (k + 1) * kPanel + c);
    }
  }
}

/// Steps [k0, k0 + depth) of an int8 panel in float32, scaled. They lie in one chunk of scales.
void scale_panel(const PackedWeight& w, int64_t panel, int64_t k0, int64_t depth, float* out) {
  const DF d;
  const hn::Rebind<int8_t, DF> narrow;
  const hn::Rebind<int32_t, DF> wide;
  const int8_t* bytes = w.i8 + (panel * panel_depth(w.k) + k0) * kPanel;
  const float* scales = w.scales + (k0 / kScaleChunk * panel_count(w.n) + panel) * kPanel;
  for (int64_t i = 0; i < depth * kPanel; i += kLanes) {
    const VF v = hn::ConvertTo(d, hn::PromoteTo(wide, hn::LoadU(narrow, bytes + i)));
    hn::StoreU(hn::Mul(v, hn::LoadU(d, scales + i % kPanel)), d, out + i);
  }
}

/// W[n0 .. n0 + count, k0 .. k0 + 32) as rows of 32 floats; columns past k are zero.
void transpose_block(const PackedWeight& w, int64_t n0, int64_t count, int64_t k0, float* out) {
  const DF d;
  const hn::Rebind<int32_t, DF> di;
  const int64_t columns = std::min(kPanel, w.k - k0);
  if (columns < kPanel) std::fill_n(out, count * kPanel, 0.0f);
  float widened[kPanel * kPanel];
  for (int64_t n = 0; n < count; n += kPanel) {
    const int64_t offset = ((n0 + n) / kPanel * panel_depth(w.k) + k0) * kPanel;
    const float* source = widened;
    if (w.codes4 != nullptr) {
      widen_blocks(w, w.codes4, (n0 + n) / kPanel, k0, columns, widened);
    } else if (w.codes8 != nullptr) {
      widen_blocks(w, w.codes8, (n0 + n) / kPanel, k0, columns, widened);
    } else if (w.i8 != nullptr) {
      scale_panel(w, (n0 + n) / kPanel, k0, columns, widened);
    } else if (w.bf16 != nullptr) {
      widen_panel(BBf16{w.bf16 + offset}, columns, widened);
    } else if (w.f16 != nullptr) {
      widen_panel(BHalf{w.f16 + offset}, columns, widened);
    } else {
      source = w.f32 + offset;
    }
    const int64_t rows = std::min(kPanel, count - n);
    const auto index = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(kPanel)));
    for (int64_t r = 0; r < rows; ++r) {
      float* to = out + (n + r) * kPanel;
      int64_t k = 0;
      for (; k + kLanes <= columns; k += kLanes) {
        hn::StoreU(hn::GatherIndex(d, source + k * kPanel + r, index), d, to + k);
      }
      for (; k < columns; ++k) to[k] = source[k * kPanel + r];
    }
  }
}

/// dx in float32 activations: dy as it lies times transposed strips of W.
struct FmaInput {
  using Operands = FmaOperands<BFloat>;
  using Element = float;
  static constexpr int64_t kStrip = Operands::kChunk * kPanel;  // Elements of a strip of one chunk.
  const LinearBackwardInputArgs& g;

  void transpose(int64_t n0, int64_t count, int64_t k0, float* strip) const {
    transpose_block(g.weight, n0, count, k0, strip);
  }
  Operands operands(int64_t n0, const float* strip) const {
    return {AMatrix{g.dy + n0, g.dy_stride, 1}, {strip}, 0};
  }
};

/// dx in bf16 words.
struct DotInput {
  using Operands = DotOperands;
  using Element = uint32_t;
  static constexpr int64_t kStrip = Operands::kChunk / 2 * kPanel;
  const LinearBackwardInputArgs& g;
  PackedRows dy;
  DotKernels kernels;

  void transpose(int64_t n0, int64_t count, int64_t k0, uint32_t* strip) const {
    const PackedWeight& w = g.weight;
    const auto* words = reinterpret_cast<const uint32_t*>(w.bf16);
    const int64_t depth = panel_depth(w.k);
    const int64_t pairs = (std::min(kPanel, depth - k0) + 1) / 2;
    for (int64_t n = 0; n < count; n += kPanel) {
      kernels.transpose_panel(words + ((n0 + n) / kPanel * depth + k0) * kPanel / 2, pairs,
                              strip + n / 2 * kPanel);
    }
  }
  Operands operands(int64_t n0, const uint32_t* strip) const {
    return {kernels, dy.words + n0 / 2, dy.stride, 1, strip, 0};
  }
};

/// A strip of dx that is cut by the end of a row, in full width.
class WideStrip {
 public:
  WideStrip(const LinearBackwardInputArgs& g, int64_t k0)
      : g_(g), k0_(k0), columns_(g.weight.k - k0), wide_(static_cast<size_t>(g.rows * kPanel)) {
    for (int64_t r = 0; g.add && r < g.rows; ++r) {
      std::copy_n(g.dx + r * g.dx_stride + k0, columns_, wide_.data() + r * kPanel);
    }
  }
  float* data() { return wide_.data(); }
  void hand_back() const {
    for (int64_t r = 0; r < g_.rows; ++r) {
      std::copy_n(wide_.data() + r * kPanel, columns_, g_.dx + r * g_.dx_stride + k0_);
    }
  }

 private:
  const LinearBackwardInputArgs& g_;
  int64_t k0_;
  int64_t columns_;
  std::vector<float> wide_;
};

/// Strips [begin, end) of dx, 32 columns each, a chunk of n at a time.
template <class Input>
void input_strips(const LinearBackwardInputArgs& g, const Input& input, int64_t begin,
                  int64_t end) {
  const PackedWeight& w = g.weight;
  std::optional<WideStrip> last;
  if (end * kPanel > w.k) last.emplace(g, (end - 1) * kPanel);
  std::vector<typename Input::Element> strips(static_cast<size_t>((end - begin) * Input::kStrip));
  constexpr int64_t kChunk = Input::Operands::kChunk;
  for (int64_t n0 = 0; n0 < w.n; n0 += kChunk) {
    const int64_t count = std::min(kChunk, w.n - n0);
    const Finish finish = n0 == 0 && !g.add ? Finish::kStore : Finish::kAdd;
    for (int64_t s = begin; s < end; ++s) {
      input.transpose(n0, count, s * kPanel, strips.data() + (s - begin) * Input::kStrip);
    }
    for (int64_t row = 0; row < g.rows; row += kInputRowBlock) {
      const int64_t rows = std::min(kInputRowBlock, g.rows - row);
      for (int64_t s = begin; s < end; ++s) {
        const bool cut = last && s + 1 == end;
        const TileOut out{cut ? last->data() + row * kPanel : g.dx + row * g.dx_stride + s * kPanel,
                          cut ? kPanel : g.dx_stride, Start::kZero, finish, nullptr};
        input.operands(n0, strips.data() + (s - begin) * Input::kStrip)
            .run({row, rows, 0, 1}, 0, count, out);
      }
    }
  }
  if (last) last->hand_back();
}

void LinearBackwardInput(const LinearBackwardInputArgs& g) {
  const bool dot = g.weight.product == Product::kDot;
  PackedRows dy{};
  if (dot) dy = pack_rows_to_words(g.dy, g.dy_stride, g.rows, g.weight.n);
  parallel_for(panel_count(g.weight.k), 1, [&](int64_t begin, int64_t end) {
    if (dot) {
      input_strips(g, DotInput{g, dy, dot_kernels()}, begin, end);
    } else {
      input_strips(g, FmaInput{g}, begin, end);
    }
  });
}

/// dbias += column sums of dy, rows in order.
void bias_gradient(const LinearBackwardWeightArgs& g, int64_t n0, int64_t m0, int64_t count) {
  const int64_t valid = std::min(kPanel, g.n - n0);
  for (int64_t m = m0; m < m0 + count; ++m) {
    for (int64_t n = n0; n < n0 + valid; ++n) g.dbias[n] += g.dy[m * g.dy_stride + n];
  }
}

void fma_weight_block(const LinearBackwardWeightArgs& g, int64_t panel, int64_t m0, int64_t count,
                      float* strip) {
  const int64_t n0 = panel * kPanel;
  const int64_t valid = std::min(kPanel, g.n - n0);
  for (int64_t m = 0; m < count; ++m) {
    float* to = strip + m * kPanel;
    std::copy_n(g.dy + (m0 + m) * g.dy_stride + n0, valid, to);
    std::fill_n(to + valid, kPanel - valid, 0.0f);
  }
  panel_rows(g.k, AMatrix{g.x + m0 * g.x_stride, 1, g.x_stride}, BFloat{strip}, count,
             TileOut{g.dweight + panel * panel_depth(g.k) * kPanel, kPanel, Start::kFromC,
                     Finish::kStore, nullptr});
}

/// What the dot form of the weight gradient has packed.
struct DotWeight {
  DotKernels kernels;
  PackedRows x;  // Words of two rows each, [pairs of rows][stride].
};

void dot_weight_block(const LinearBackwardWeightArgs& g, const DotWeight& w, int64_t panel,
                      int64_t m0, int64_t count, uint32_t* strip) {
  static constexpr float kZeros[kPanel] = {};
  const int64_t n0 = panel * kPanel;
  const int64_t valid = std::min(kPanel, g.n - n0);
  const int64_t pairs = (count + 1) / 2;
  for (int64_t p = 0; p < pairs; ++p) {
    const float* low = g.dy + (m0 + 2 * p) * g.dy_stride + n0;
    const float* high = 2 * p + 1 < count ? low + g.dy_stride : kZeros;
    pair_rows(low, high, valid, strip + p * kPanel);
    std::fill(strip + p * kPanel + valid, strip + (p + 1) * kPanel, 0u);
  }
  w.kernels.block({w.x.words + m0 / 2 * w.x.stride, 1, w.x.stride, strip, 0, pairs, g.k, 1},
                  TileOut{g.dweight + panel * panel_depth(g.k) * kPanel, kPanel, Start::kFromC,
                          Finish::kStore, nullptr});
}

void LinearBackwardWeight(const LinearBackwardWeightArgs& g) {
  const bool dot = g.product == Product::kDot;
  DotWeight w{dot_kernels(), {}};
  if (dot) w.x = pair_rows_to_words(g.x, g.x_stride, g.rows, g.k);
  parallel_for(panel_count(g.n), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> strip(static_cast<size_t>(dot ? 0 : kWeightRowBlock * kPanel));
    std::vector<uint32_t> words(static_cast<size_t>(dot ? kWeightRowBlock / 2 * kPanel : 0));
    for (int64_t m0 = 0; m0 < g.rows; m0 += kWeightRowBlock) {
      const int64_t count = std::min(kWeightRowBlock, g.rows - m0);
      for (int64_t panel = begin; panel < end; ++panel) {
        if (dot) {
          dot_weight_block(g, w, panel, m0, count, words.data());
        } else {
          fma_weight_block(g, panel, m0, count, strip.data());
        }
        if (g.dbias != nullptr) bias_gradient(g, panel * kPanel, m0, count);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(LinearBackwardInput);
HWY_EXPORT(LinearBackwardWeight);

void linear_backward_input(const LinearBackwardInputArgs& args) {
  if (const auto op = replacement(&KernelTable::linear_backward_input)) return op(args);
  TEMPER_CHECK(product_has_panels(args.weight),
               "[linear_backward_input] Product::kDot needs bf16 panels");
  if (args.rows > 0) HWY_DYNAMIC_DISPATCH(LinearBackwardInput)(args);
}

void linear_backward_weight(const LinearBackwardWeightArgs& args) {
  if (const auto op = replacement(&KernelTable::linear_backward_weight)) return op(args);
  if (args.rows > 0) HWY_DYNAMIC_DISPATCH(LinearBackwardWeight)(args);
}

}  // namespace temper::kernels
#endif
