#include "temper/kernels/linear.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/gemm-inl.h"
#include "temper/core/dtype.h"
#include "temper/core/threads.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Rows that are multiplied with one panel before the next panel: they stay in the L2 cache.
constexpr int64_t kRowBlock = 192;
/// Products of this many k are summed from zero before their sum is added to the output: the
/// rounding error grows with the chunk, not with k. Part of the exactness contract.
constexpr int64_t kDepthChunk = 128;
/// Rows of W that one pass of the input gradient holds transposed.
constexpr int64_t kTransposeBlock = 1024;
/// Rows of x and dy that one pass of the weight gradient reads before it stores its accumulators.
constexpr int64_t kWeightRowBlock = 256;

template <class B>
B panel_of(const PackedWeight& w, int64_t panel);
template <>
BFloat panel_of<BFloat>(const PackedWeight& w, int64_t panel) {
  return {w.f32 + panel * panel_depth(w.k) * kPanel};
}
template <>
BBf16 panel_of<BBf16>(const PackedWeight& w, int64_t panel) {
  return {w.bf16 + panel * panel_depth(w.k) * kPanel};
}

/// Few rows: NP panels side by side, so that enough independent chains hide the fma latency and
/// several streams of weights are in flight.
template <int MR, int NP, class B>
void few_rows(const LinearArgs& g, int64_t panel) {
  B b[NP];
  for (int q = 0; q < NP; ++q) b[q] = panel_of<B>(g.weight, panel + q);
  constexpr int kVectors = kTileColumns / kLanes;
  static_assert(kTileColumns == 32 || NP == 1, "several panels need whole-panel tiles");
  for (int64_t k = 0; k < g.weight.k; k += kDepthChunk) {
    const bool first = k == 0;
    B bk[NP];
    for (int q = 0; q < NP; ++q) bk[q] = b[q].at(k);
    tile<MR, NP, kVectors>(AMatrix{g.x + k, g.x_stride, 1}, bk, 0,
                           std::min(kDepthChunk, g.weight.k - k),
                           TileOut{g.y + panel * kPanel, g.y_stride, Start::kZero,
                                   first && !g.add ? Finish::kStore : Finish::kAdd,
                                   first && g.bias != nullptr ? g.bias + panel * kPanel : nullptr});
  }
}

/// All depth chunks of one panel for some rows.
template <class B>
void chunked_rows(int64_t rows, const AMatrix& a, const B& b, int64_t depth, const TileOut& out) {
  for (int64_t k = 0; k < depth; k += kDepthChunk) {
    TileOut chunk = out;
    if (k > 0) {
      chunk.finish = Finish::kAdd;
      chunk.bias = nullptr;
    }
    panel_rows(rows, AMatrix{a.p + k, a.row_stride, 1}, b.at(k), std::min(kDepthChunk, depth - k),
               chunk);
  }
}

template <class B>
void one_panel(const LinearArgs& g, int64_t panel, int64_t row, int64_t rows) {
  const int64_t n0 = panel * kPanel;
  const int64_t valid = std::min(kPanel, g.weight.n - n0);
  const AMatrix a{g.x + row * g.x_stride, g.x_stride, 1};
  const B b = panel_of<B>(g.weight, panel);
  const Finish finish = g.add ? Finish::kAdd : Finish::kStore;
  if (valid == kPanel) {
    chunked_rows(rows, a, b, g.weight.k,
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
  chunked_rows(
      rows, a, b, g.weight.k,
      TileOut{wide.data(), kPanel, Start::kZero, finish, g.bias == nullptr ? nullptr : bias});
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(wide.data() + r * kPanel, valid, g.y + (row + r) * g.y_stride + n0);
  }
}

template <class B>
void linear_panels(const LinearArgs& g, int64_t begin, int64_t end) {
  const int64_t whole = std::min(end, g.weight.n / kPanel);
  int64_t panel = begin;
  if constexpr (kTileColumns != 32) {
    // One panel at a time fills these registers.
  } else if (g.rows <= 3) {
    for (; panel + 4 <= whole; panel += 4) {
      if (g.rows == 1) few_rows<1, 4, B>(g, panel);
      if (g.rows == 2) few_rows<2, 4, B>(g, panel);
      if (g.rows == 3) few_rows<3, 4, B>(g, panel);
    }
  } else if (g.rows <= 6) {
    for (; panel + 2 <= whole; panel += 2) {
      if (g.rows == 4) few_rows<4, 2, B>(g, panel);
      if (g.rows == 5) few_rows<5, 2, B>(g, panel);
      if (g.rows == 6) few_rows<6, 2, B>(g, panel);
    }
  }
  for (int64_t row = 0; row < g.rows; row += kRowBlock) {
    const int64_t rows = std::min(kRowBlock, g.rows - row);
    for (int64_t p = panel; p < end; ++p) one_panel<B>(g, p, row, rows);
  }
}

void Linear(const LinearArgs& g) {
  parallel_for(panel_count(g.weight.n), 4, [&](int64_t begin, int64_t end) {
    if (g.weight.bf16 != nullptr) {
      linear_panels<BBf16>(g, begin, end);
    } else {
      linear_panels<BFloat>(g, begin, end);
    }
  });
}

/// W[n0 .. n0 + count, k0 .. k0 + 32) as rows of 32 floats; columns past k are zero.
void transpose_block(const PackedWeight& w, int64_t n0, int64_t count, int64_t k0, float* out) {
  const DF d;
  const hn::Rebind<int32_t, DF> di;
  const int64_t columns = std::min(kPanel, w.k - k0);
  if (columns < kPanel) std::fill_n(out, count * kPanel, 0.0f);
  const bool half = w.bf16 != nullptr;
  float widened[kPanel * kPanel];
  for (int64_t n = 0; n < count; n += kPanel) {
    const int64_t offset = ((n0 + n) / kPanel * panel_depth(w.k) + k0) * kPanel;
    const float* source = half ? widened : w.f32 + offset;
    if (half) {
      const BBf16 b{w.bf16 + offset};
      for (int64_t k = 0; k < columns; k += 2) {
        for (int c = 0; c < kPanel; c += kLanes) {
          hn::StoreU(b.load<0>(k, c), d, widened + k * kPanel + c);
          hn::StoreU(b.load<1>(k, c), d, widened + (k + 1) * kPanel + c);
        }
      }
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

/// One 32-wide strip of dx.
void input_strip(const LinearBackwardInputArgs& g, int64_t strip, std::vector<float>& transposed,
                 std::vector<float>& wide) {
  const PackedWeight& w = g.weight;
  const int64_t k0 = strip * kPanel;
  const int64_t columns = std::min(kPanel, w.k - k0);
  float* c = g.dx + k0;
  int64_t stride = g.dx_stride;
  if (columns < kPanel) {
    wide.assign(static_cast<size_t>(g.rows * kPanel), 0.0f);
    for (int64_t r = 0; g.add && r < g.rows; ++r) {
      std::copy_n(g.dx + r * g.dx_stride + k0, columns, wide.data() + r * kPanel);
    }
    c = wide.data();
    stride = kPanel;
  }
  for (int64_t n0 = 0; n0 < w.n; n0 += kTransposeBlock) {
    const int64_t count = std::min(kTransposeBlock, w.n - n0);
    transpose_block(w, n0, count, k0, transposed.data());
    const Finish finish = n0 == 0 && !g.add ? Finish::kStore : Finish::kAdd;
    chunked_rows(g.rows, AMatrix{g.dy + n0, g.dy_stride, 1}, BFloat{transposed.data()},
                 count, TileOut{c, stride, Start::kZero, finish, nullptr});
  }
  for (int64_t r = 0; columns < kPanel && r < g.rows; ++r) {
    std::copy_n(wide.data() + r * kPanel, columns, g.dx + r * g.dx_stride + k0);
  }
}

void LinearBackwardInput(const LinearBackwardInputArgs& g) {
  parallel_for(panel_count(g.weight.k), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> transposed(static_cast<size_t>(kTransposeBlock * kPanel));
    std::vector<float> wide;
    for (int64_t strip = begin; strip < end; ++strip) input_strip(g, strip, transposed, wide);
  });
}

void LinearBackwardWeight(const LinearBackwardWeightArgs& g) {
  parallel_for(panel_count(g.n), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> strip(static_cast<size_t>(kWeightRowBlock * kPanel));
    for (int64_t m0 = 0; m0 < g.rows; m0 += kWeightRowBlock) {
      const int64_t count = std::min(kWeightRowBlock, g.rows - m0);
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t n0 = panel * kPanel;
        const int64_t valid = std::min(kPanel, g.n - n0);
        for (int64_t m = 0; m < count; ++m) {
          const float* from = g.dy + (m0 + m) * g.dy_stride + n0;
          float* to = strip.data() + m * kPanel;
          std::copy_n(from, valid, to);
          std::fill_n(to + valid, kPanel - valid, 0.0f);
        }
        panel_rows(g.k, AMatrix{g.x + m0 * g.x_stride, 1, g.x_stride}, BFloat{strip.data()},
                   count,
                   TileOut{g.dweight + panel * panel_depth(g.k) * kPanel, kPanel, Start::kFromC, Finish::kStore,
                           nullptr});
        for (int64_t m = 0; g.dbias != nullptr && m < count; ++m) {
          for (int64_t n = 0; n < valid; ++n)
            g.dbias[n0 + n] += strip[static_cast<size_t>(m * kPanel + n)];
        }
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(Linear);
HWY_EXPORT(LinearBackwardInput);
HWY_EXPORT(LinearBackwardWeight);

void linear(const LinearArgs& args) {
  if (args.rows > 0 && args.weight.n > 0) HWY_DYNAMIC_DISPATCH(Linear)(args);
}

void linear_backward_input(const LinearBackwardInputArgs& args) {
  if (args.rows > 0) HWY_DYNAMIC_DISPATCH(LinearBackwardInput)(args);
}

void linear_backward_weight(const LinearBackwardWeightArgs& args) {
  if (args.rows > 0) HWY_DYNAMIC_DISPATCH(LinearBackwardWeight)(args);
}

void pack_rows(const float* rows, int64_t n, int64_t k, int64_t row_begin, float* panels) {
  parallel_for(n, kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = row_begin + r;
      float* to = panels + row / kPanel * panel_depth(k) * kPanel + row % kPanel;
      for (int64_t i = 0; i < k; ++i) to[i * kPanel] = rows[r * k + i];
    }
  });
}

void unpack_rows(const float* panels, int64_t row_begin, int64_t n, int64_t k, float* rows) {
  parallel_for(n, kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = row_begin + r;
      const float* from = panels + row / kPanel * panel_depth(k) * kPanel + row % kPanel;
      for (int64_t i = 0; i < k; ++i) rows[r * k + i] = from[i * kPanel];
    }
  });
}

void panels_to_bf16(const float* panels, int64_t elements, uint16_t* out) {
  constexpr int64_t kPair = 2 * kPanel;
  parallel_for(elements / kPair, 512, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const float* from = panels + g * kPair;
      uint16_t* to = out + g * kPair;
      for (int64_t i = 0; i < kPanel; ++i) {
        to[2 * i] = float_to_bf16(from[i]);
        to[2 * i + 1] = float_to_bf16(from[kPanel + i]);
      }
    }
  });
}

}  // namespace temper::kernels
#endif
