#pragma once
// Launches of linear_logprob: a tile of products by `linear`, then its rows, then the products of
// its gradient.

#include "cuda/linear_logprob_rows.cuh"
#include "cuda/products.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// An empty text, or why the options cannot be.
inline const char* head_problem(const LinearLogprobArgs& g) {
  if (g.rows < 0) return "[linear_logprob] rows must be >= 0";
  if (g.head.n < 1 || g.head.n > kMostIds) {
    return "[linear_logprob] the vocabulary must have 1 to 4,194,304 ids";
  }
  if (g.support < 0 || g.support > g.head.n) {
    return "[linear_logprob] support must be in [0, vocabulary]";
  }
  if (!(g.softcap >= 0) || !(g.reference.softcap >= 0)) {
    return "[linear_logprob] a softcap must not be negative";
  }
  if (g.top_k < 0 || g.top_k > kMaxTopK) return "[linear_logprob] top_k must be in [0, 64]";
  if (g.top_k > 0 && (g.top_ids == nullptr || g.top_logprobs == nullptr)) {
    return "[linear_logprob] top_k needs top_ids and top_logprobs";
  }
  if (g.reference.hidden == nullptr) return "";
  if (g.reference.head.n != g.head.n) {
    return "[linear_logprob] policy and reference must have one vocabulary";
  }
  return g.reference.kl == nullptr ? "[linear_logprob] a reference needs an array for kl" : "";
}

inline const char* backward_problem(const LinearLogprobBackwardArgs& g) {
  const char* problem = head_problem(g.forward);
  if (*problem != 0) return problem;
  const LinearLogprobArgs& f = g.forward;
  if (f.max == nullptr || f.log_sum == nullptr || g.dlogprob == nullptr || g.dhidden == nullptr) {
    return "[linear_logprob_backward] expected max, log_sum, dlogprob and dhidden";
  }
  if (g.dentropy != nullptr && f.entropy == nullptr) {
    return "[linear_logprob_backward] an entropy gradient needs the forward's entropy";
  }
  const ReferenceHead& ref = f.reference;
  if (g.dkl != nullptr && (ref.hidden == nullptr || ref.max == nullptr || ref.log_sum == nullptr)) {
    return "[linear_logprob_backward] a KL gradient needs the forward's reference with its max and "
           "log_sum";
  }
  return "";
}

/// The workspace in its parts, and how the rows are launched.
struct HeadPlan {
  HeadTile tile;
  float* hidden;  // [tile rows, k], for the backward.
  int threads;
};

inline HeadPlan plan_head(const LinearLogprobArgs& g, float* workspace, int threads) {
  const int64_t rows = g.rows < kHeadTileRows ? g.rows : kHeadTileRows;
  HeadPlan p{{workspace, nullptr, panel_count(g.head.n) * kPanel, 0, rows}, nullptr, threads};
  float* next = workspace + rows * p.tile.padded;
  if (g.reference.hidden != nullptr) {
    p.tile.reference = next;
    next += rows * p.tile.padded;
  }
  p.hidden = next;
  return p;
}

inline Status launch_products(const LinearLogprobArgs& g, const HeadTile& t, Stream stream) {
  const Status status = product(LinearArgs{.x = g.hidden + t.first * g.hidden_stride,
                                           .x_stride = g.hidden_stride,
                                           .weight = g.head,
                                           .y = t.z,
                                           .y_stride = t.padded,
                                           .rows = t.rows},
                                stream);
  if (!status.ok() || t.reference == nullptr) return status;
  const ReferenceHead& ref = g.reference;
  return product(LinearArgs{.x = ref.hidden + t.first * ref.hidden_stride,
                            .x_stride = ref.hidden_stride,
                            .weight = ref.head,
                            .y = t.reference,
                            .y_stride = t.padded,
                            .rows = t.rows},
                 stream);
}

inline Status launch_rows_forward(const LinearLogprobArgs& g, const HeadTile& t, int threads,
                                  Stream stream) {
  const size_t shared = RowScratch::bytes(t.padded) + (g.top_k > 0 ? CutScratch::bytes() : 0);
  return launch(rows_forward, static_cast<unsigned>(t.rows), static_cast<unsigned>(threads), shared,
                stream, g, t);
}

/// Products or, if `finished`, logits of a tile to its share of both gradients.
inline Status launch_tile_backward(const LinearLogprobBackwardArgs& g, const HeadPlan& p,
                                   bool finished, Stream stream) {
  const HeadTile& t = p.tile;
  const LinearLogprobArgs& f = g.forward;
  const auto rows = static_cast<unsigned>(t.rows);
  Status status =
      launch(rows_backward, rows, static_cast<unsigned>(p.threads), 0, stream, g, t, finished);
  if (!status.ok()) return status;
  status = product(LinearBackwardInputArgs{.dy = t.z,
                                           .dy_stride = t.padded,
                                           .weight = f.head,
                                           .dx = g.dhidden + t.first * g.dhidden_stride,
                                           .dx_stride = g.dhidden_stride,
                                           .rows = t.rows},
                   stream);
  if (!status.ok() || g.dweight == nullptr) return status;
  status = launch(copy_rows_with_gradient, rows, kElementThreads, 0, stream, g, t, p.hidden);
  if (!status.ok()) return status;
  return product(LinearBackwardWeightArgs{.dy = t.z,
                                          .dy_stride = t.padded,
                                          .x = p.hidden,
                                          .x_stride = f.head.k,
                                          .dweight = g.dweight,
                                          .rows = t.rows,
                                          .n = f.head.n,
                                          .k = f.head.k,
                                          .product = f.head.product},
                 stream);
}

/// Calls body(plan) for each tile, its rows set, until one fails.
template <class Body>
Status for_tiles(const LinearLogprobArgs& g, float* workspace, int threads, const Body& body) {
  if (!row_threads_ok(threads)) return invalid_argument("[linear_logprob] odd number of threads");
  HeadPlan p = plan_head(g, workspace, threads);
  for (int64_t row = 0; row < g.rows; row += kHeadTileRows) {
    p.tile.first = row;
    p.tile.rows = g.rows - row < kHeadTileRows ? g.rows - row : kHeadTileRows;
    const Status status = body(p);
    if (!status.ok()) return status;
  }
  return {};
}

inline Status launch_linear_logprob(const LinearLogprobArgs& g, float* workspace, Stream stream,
                                    int threads = kRowThreads) {
  const char* problem = head_problem(g);
  if (*problem != 0) return invalid_argument(problem);
  return for_tiles(g, workspace, threads, [&](const HeadPlan& p) {
    const Status status = launch_products(g, p.tile, stream);
    return status.ok() ? launch_rows_forward(g, p.tile, threads, stream) : status;
  });
}

inline Status launch_linear_logprob_backward(LinearLogprobBackwardArgs g, float* workspace,
                                             Stream stream, int threads = kRowThreads) {
  const char* problem = backward_problem(g);
  if (*problem != 0) return invalid_argument(problem);
  if (g.dkl == nullptr) g.forward.reference.hidden = nullptr;  // Its logits would not be read.
  return for_tiles(g.forward, workspace, threads, [&](const HeadPlan& p) {
    const Status status = launch_products(g.forward, p.tile, stream);
    return status.ok() ? launch_tile_backward(g, p, false, stream) : status;
  });
}

inline Status launch_linear_logprob_train(const LinearLogprobTrainArgs& args, float* workspace,
                                          Stream stream, int threads = kRowThreads) {
  const LinearLogprobBackwardArgs& g = args.pass;
  const char* problem = backward_problem(g);
  if (*problem != 0) return invalid_argument(problem);
  return for_tiles(g.forward, workspace, threads, [&](const HeadPlan& p) {
    Status status = launch_products(g.forward, p.tile, stream);
    if (status.ok()) status = launch_rows_forward(g.forward, p.tile, threads, stream);
    if (!status.ok()) return status;
    if (args.coefficients) args.coefficients(p.tile.first, p.tile.first + p.tile.rows);
    return launch_tile_backward(g, p, true, stream);
  });
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
