#include "temper/kernels/linear.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "cpu/blocks-inl.h"
#include "cpu/int8-inl.h"
#include "cpu/operands-inl.h"
#include "cpu/swiglu-inl.h"
#include "cpu/workspace.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"
#include "temper/kernels/swiglu.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Rows that are multiplied with one panel before the next panel: they stay in the L2 cache.
constexpr int64_t kRowBlock = 192;

template <class Operands>
void one_panel(const LinearArgs& g, const Operands& o, int64_t panel, int64_t row, int64_t rows) {
  const int64_t n0 = panel * kPanel;
  const int64_t valid = std::min(kPanel, g.weight.n - n0);
  const Finish finish = g.add ? Finish::kAdd : Finish::kStore;
  if (valid == kPanel) {
    chunked(o, {row, rows, panel, 1}, g.weight.k,
            TileOut{g.y + row * g.y_stride + n0, g.y_stride, Start::kZero, finish,
                    g.bias == nullptr ? nullptr : g.bias + n0});
    return;
  }
  // The last panel is cut: work in a full-width copy and hand back the columns that exist.
  std::vector<float> wide(static_cast<size_t>(rows * kPanel));
  float bias[kPanel] = {};
  if (g.bias != nullptr) std::copy_n(g.bias + n0, valid, bias);
  for (int64_t r = 0; g.add && r < rows; ++r) {
    std::copy_n(g.y + (row + r) * g.y_stride + n0, valid, wide.data() + r * kPanel);
  }
  chunked(o, {row, rows, panel, 1}, g.weight.k,
          TileOut{wide.data(), kPanel, Start::kZero, finish, g.bias == nullptr ? nullptr : bias});
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(wide.data() + r * kPanel, valid, g.y + (row + r) * g.y_stride + n0);
  }
}

/// Panels that few rows take side by side, so that enough independent chains hide the latency of a
/// multiply-add. One row waits for memory instead, which is fastest read as a single stream.
int panels_at_once(int64_t rows) {
  if (kTileColumns != 32) return 1;  // One panel at a time fills these registers.
  return rows == 1 ? 1 : rows <= 3 ? 4 : rows <= 6 ? 2 : 1;
}

/// Multiplications that one thread does sooner than it would share them out: those of an adapter's few
/// rows.
constexpr int64_t kTinyProduct = int64_t{1} << 17;

/// Of `panels`, what a thread takes in a row. For one row that is its share or half a million
/// weights, since every new start costs the memory's latency.
int64_t panels_in_a_row(const LinearArgs& g, int64_t panels) {
  if (g.rows * g.weight.k * panels * kPanel <= kTinyProduct) return panels;
  if (g.rows > 1) return g.swiglu != nullptr ? 1 : panels_at_once(g.rows);
  const int64_t share = (panels + num_threads() - 1) / num_threads();
  const int64_t run = (int64_t{1} << 19) / (panel_depth(g.weight.k) * kPanel);
  return std::min(share, std::max<int64_t>(1, run));
}

template <class Operands>
void linear_panels(const LinearArgs& g, const Operands& o, int64_t begin, int64_t end) {
  const int64_t whole = std::min(end, g.weight.n / kPanel);
  int64_t panel = begin;
  for (int at_once = panels_at_once(g.rows); at_once > 1; at_once /= 2) {
    for (; panel + at_once <= whole; panel += at_once) {
      const int64_t n0 = panel * kPanel;
      chunked(o, {0, g.rows, panel, at_once}, g.weight.k,
              TileOut{g.y + n0, g.y_stride, Start::kZero, g.add ? Finish::kAdd : Finish::kStore,
                      g.bias == nullptr ? nullptr : g.bias + n0});
    }
  }
  for (int64_t row = 0; row < g.rows; row += kRowBlock) {
    const int64_t rows = std::min(kRowBlock, g.rows - row);
    for (int64_t p = panel; p < end; ++p) one_panel(g, o, p, row, rows);
  }
}

/// Gate and up panels together, then their SwiGLU.
template <class Operands>
void swiglu_panels(const LinearArgs& g, const Operands& o) {
  const int64_t width = g.weight.n / 2;
  const int64_t grain = panels_in_a_row(g, width / kPanel);
  parallel_for(width / kPanel, grain, [&](int64_t begin, int64_t end) {
    linear_panels(g, o, begin, end);
    linear_panels(g, o, begin + width / kPanel, end + width / kPanel);
    const int64_t at = begin * kPanel;
    for (int64_t r = 0; r < g.rows; ++r) {
      const float* gate = g.y + r * g.y_stride + at;
      swiglu_columns(gate, gate + width, g.swiglu + r * width + at, end * kPanel - at);
    }
  });
}

template <class Operands>
void all_panels(const LinearArgs& g, const Operands& o) {
  if (g.swiglu != nullptr) return swiglu_panels(g, o);
  const int64_t panels = panel_count(g.weight.n);
  parallel_for(panels, panels_in_a_row(g, panels),
               [&](int64_t begin, int64_t end) { linear_panels(g, o, begin, end); });
}

void Linear(const LinearArgs& g) {
  const PackedWeight& w = g.weight;
  const AMatrix a{g.x, g.x_stride, 1};
  const int64_t panel = panel_depth(w.k) * kPanel;
  if (w.product == Product::kDot) {
    const PackedRows x = pack_rows_to_words(g.x, g.x_stride, g.rows, w.k);
    all_panels(g, DotOperands{dot_kernels(), x.words, x.stride, 1,
                              reinterpret_cast<const uint32_t*>(w.bf16), panel / 2});
  } else if (w.codes4 != nullptr) {
    all_panels(g, BlockOperands<uint8_t>{a, w, w.codes4});
  } else if (w.codes8 != nullptr) {
    all_panels(g, BlockOperands<int8_t>{a, w, w.codes8});
  } else if (w.i8 != nullptr) {
    all_panels(g, Int8Operands{a, w.i8, w.scales, panel, panel_count(w.n) * kPanel});
  } else if (w.bf16 != nullptr) {
    all_panels(g, FmaOperands<BBf16>{a, {w.bf16}, panel});
  } else if (w.f16 != nullptr) {
    all_panels(g, FmaOperands<BHalf>{a, {w.f16}, panel});
  } else {
    all_panels(g, FmaOperands<BFloat>{a, {w.f32}, panel});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(Linear);

void linear(const LinearArgs& args) {
  if (args.rows <= 0 || args.weight.n <= 0) return;
  TEMPER_CHECK(product_has_panels(args.weight), "[linear] Product::kDot needs bf16 panels");
  const auto op = replacement(&KernelTable::linear);
  const bool split = args.swiglu != nullptr && (op != nullptr || args.weight.n % (2 * kPanel) != 0);
  LinearArgs product = args;
  if (split) product.swiglu = nullptr;
  op != nullptr ? op(product) : HWY_DYNAMIC_DISPATCH(Linear)(product);
  if (split) swiglu(args.y, args.swiglu, args.rows, args.weight.n / 2);
}

bool has_dot_instruction() { return dot_avx512bf16() != nullptr; }

}  // namespace temper::kernels
#endif
