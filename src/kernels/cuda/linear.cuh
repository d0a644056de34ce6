#pragma once
// Which kernel a product takes. The contracts are in linear.h; launch shapes never change bits.

#include "cuda/linear_few.cuh"
#include "cuda/swiglu.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// An empty text, or why a weight cannot be read.
inline const char* weight_problem(const PackedWeight& w) {
  if (w.n < 1 || w.k < 1) return "[linear] a weight must have n >= 1 and k >= 1";
  if (w.frozen()) return "[linear] int8 panels and blocks are read on the CPU alone";
  const void* p = read_panels(w);
  if (p == nullptr) return "[linear] the weight has no panels";
  if (!product_has_panels(w)) return "[linear] Product::kDot needs bf16 panels";
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
    return "[linear] panels must begin at a multiple of 16 bytes";
  }
  return "";
}

/// Blocks over columns and rows; false where the grid has no room for the rows.
inline bool plan_blocks(int64_t rows, int64_t block_rows, int64_t columns, int64_t block_columns,
                        dim3* grid) {
  const int64_t x = (columns + block_columns - 1) / block_columns;
  const int64_t y = (rows + block_rows - 1) / block_rows;
  *grid = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
  return x < int64_t{1} << 31 && y <= 65535;
}
inline Status too_large() {
  return invalid_argument("[linear] too many rows for one launch: at most 4,194,240");
}

template <class A, class B>
Status launch_fma_rows(const A& a, const B& b, const RowsOut& out, int64_t depth, Stream stream) {
  dim3 grid;
  if (!plan_blocks(out.rows, kFmaRows, out.columns, kFmaColumns, &grid)) return too_large();
  return launch(fma_rows<B>, grid, kProductThreads, tile_shared<float, A, B>(), stream, a, b, out, depth);
}
template <class B>
Status launch_dot_rows(const DotRowsA& a, const B& b, const RowsOut& out, int64_t depth,
                       Stream stream) {
  dim3 grid;
  if (!plan_blocks(out.rows, kDotRows, out.columns, kDotColumns, &grid)) return too_large();
  return launch(dot_rows<B>, grid, kProductThreads, tile_shared<uint32_t, DotRowsA, B>(), stream, a, b, out,
                depth);
}

template <int kRows>
Status launch_fma_few(const RowsView& x, const PackedWeight& w, const RowsOut& out, Stream stream) {
  const auto kernel = w.bf16 != nullptr  ? fma_few<kRows, Bf16Words>
                      : w.f16 != nullptr ? fma_few<kRows, HalfWords>
                                         : fma_few<kRows, FloatWords>;
  return launch(kernel, static_cast<unsigned>(panel_count(w.n)), kProductThreads,
                few_shared<kRows>(), stream, x, view_panels(w), out, w.k);
}

/// The launch for at most kFewRows rows.
inline Status launch_few(const RowsView& x, const PackedWeight& w, const RowsOut& out,
                         Stream stream) {
  if (w.product == Product::kDot) {
    return launch(dot_few, static_cast<unsigned>(panel_count(w.n)), kProductThreads,
                  few_shared<kFewRows>(), stream, x, view_panels(w), out, w.k);
  }
  if (out.rows == 1) return launch_fma_few<1>(x, w, out, stream);
  if (out.rows <= 4) return launch_fma_few<4>(x, w, out, stream);
  return launch_fma_few<kFewRows>(x, w, out, stream);
}

/// The launch for any number of rows.
inline Status launch_many(const RowsView& x, const PackedWeight& w, const RowsOut& out,
                          Stream stream) {
  const PanelsView panels = view_panels(w);
  if (w.product == Product::kDot) {
    return launch_dot_rows(DotRowsA{x}, DotPanels{{}, panels}, out, w.k, stream);
  }
  if (w.bf16 != nullptr) {
    return launch_fma_rows(FmaRowsA{x}, FmaPanelsHalf<Bf16Words>{{}, panels}, out, w.k, stream);
  }
  if (w.f16 != nullptr) {
    return launch_fma_rows(FmaRowsA{x}, FmaPanelsHalf<HalfWords>{{}, panels}, out, w.k, stream);
  }
  return launch_fma_rows(FmaRowsA{x}, FmaPanelsF32{{}, panels}, out, w.k, stream);
}

/// `few` is the largest number of rows for which decode's launch shape is taken, 0 to kFewRows.
inline Status launch_linear(const LinearArgs& g, Stream stream, int64_t few = kFewRows) {
  if (g.rows < 0) return invalid_argument("[linear] rows must be >= 0");
  const char* problem = weight_problem(g.weight);
  if (*problem != 0) return invalid_argument(problem);
  const PackedWeight& w = g.weight;
  if (g.swiglu != nullptr && (w.n % 2 != 0 || g.y_stride != w.n)) {
    return invalid_argument("[linear] swiglu needs an even n and y_stride == n");
  }
  if (g.rows == 0) return {};
  const RowsView x = view_rows(g.x, g.x_stride, g.rows, w.k);
  const RowsOut out{g.y, g.y_stride, g.rows, w.n, g.bias, g.add, rows_aligned(g.y, g.y_stride)};
  const Status status =
      g.rows <= few ? launch_few(x, w, out, stream) : launch_many(x, w, out, stream);
  if (!status.ok() || g.swiglu == nullptr) return status;
  return launch_swiglu(g.y, g.swiglu, g.rows, w.n / 2, stream);
}

inline Status launch_linear_backward_input(const LinearBackwardInputArgs& g, Stream stream) {
  if (g.rows < 0) return invalid_argument("[linear] rows must be >= 0");
  const char* problem = weight_problem(g.weight);
  if (*problem != 0) return invalid_argument(problem);
  if (g.rows == 0) return {};
  const PackedWeight& w = g.weight;
  const RowsView dy = view_rows(g.dy, g.dy_stride, g.rows, w.n);
  const RowsOut out{
      g.dx, g.dx_stride, g.rows, w.k, nullptr, g.add, rows_aligned(g.dx, g.dx_stride)};
  const PanelsView panels = view_panels(w);
  if (w.product == Product::kDot) {
    return launch_dot_rows(DotRowsA{dy}, DotTransposed{panels}, out, w.n, stream);
  }
  if (w.bf16 != nullptr) {
    return launch_fma_rows(FmaRowsA{dy}, FmaTransposedHalf<Bf16Words>{panels}, out, w.n, stream);
  }
  if (w.f16 != nullptr) {
    return launch_fma_rows(FmaRowsA{dy}, FmaTransposedHalf<HalfWords>{panels}, out, w.n, stream);
  }
  return launch_fma_rows(FmaRowsA{dy}, FmaTransposedF32{panels}, out, w.n, stream);
}

/// dbias += column sums of dy, rows in order: a thread a column.
__global__ void __launch_bounds__(kElementThreads) bias_gradient(RowsView dy, float* dbias) {
  for_elements(dy.columns, [&](int64_t column) {
    float sum = dbias[column];
#pragma unroll 8
    for (int64_t row = 0; row < dy.rows; ++row) sum += dy.p[row * dy.stride + column];
    dbias[column] = sum;
  });
}

inline Status launch_linear_backward_weight(const LinearBackwardWeightArgs& g, Stream stream) {
  if (g.rows < 0 || g.n < 1 || g.k < 1) {
    return invalid_argument("[linear] expected rows >= 0, n >= 1 and k >= 1");
  }
  if (reinterpret_cast<uintptr_t>(g.dweight) % 16 != 0) {
    return invalid_argument("[linear] panels must begin at a multiple of 16 bytes");
  }
  if (g.rows == 0) return {};
  const RowsView dy = view_rows(g.dy, g.dy_stride, g.rows, g.n);
  const RowsView x = view_rows(g.x, g.x_stride, g.rows, g.k);
  const WeightOut out{g.dweight, g.n, g.k, panel_depth(g.k)};
  const bool dot = g.product == Product::kDot;
  dim3 grid;
  if (!plan_blocks(g.k, dot ? kDotRows : kFmaRows, g.n, kDotColumns, &grid)) return too_large();
  const Status status =
      dot ? launch(dot_weight, grid, kProductThreads, tile_shared<uint32_t, DotColumnsA, DotRowsB>(), stream,
                   DotColumnsA{x}, DotRowsB{{}, dy}, out, g.rows)
          : launch(fma_weight, grid, kProductThreads, tile_shared<float, FmaColumnsA, FmaRowsB>(), stream,
                   FmaColumnsA{x}, FmaRowsB{{}, dy}, out, g.rows);
  if (!status.ok() || g.dbias == nullptr) return status;
  return launch(bias_gradient, element_blocks(g.n), kElementThreads, 0, stream, dy, g.dbias);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
