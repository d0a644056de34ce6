// Adapters on one matrix: the products and their gradients.
#include <algorithm>

#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/nn/adapter.h"

namespace temper {
namespace {

/// Rows that a thread takes: a matrix of so few output rows is one panel, which products would not
/// share. No bit depends on it.
constexpr int64_t kRowGrain = 64;
/// Columns of dA that a thread takes, whole pairs of steps.
constexpr int64_t kColumnGrain = 128;

std::unique_ptr<Parameter> matrix(std::string name, int64_t n, int64_t k, Trainable trainable) {
  auto p = std::make_unique<Parameter>();
  p->name = std::move(name);
  p->n = n;
  p->k = k;
  p->matrix = true;
  p->value = float_zeros(p->elements());
  if (trainable == Trainable::kYes) p->grad = float_zeros(p->elements());
  return p;
}

std::unique_ptr<Parameter> vector(std::string name, int64_t n, Trainable trainable) {
  auto p = std::make_unique<Parameter>();
  p->name = std::move(name);
  p->n = n;
  p->value = float_zeros(n);
  if (trainable == Trainable::kYes) p->grad = float_zeros(n);
  return p;
}

void scale_columns(float* rows, int64_t count, int64_t stride, const LinearAdapter::Part& part) {
  for (int64_t r = 0; r < count; ++r) {
    float* row = rows + r * stride + part.rank_begin;
    for (int64_t i = 0; i < part.rank; ++i) row[i] *= part.scale;
  }
}

/// dA += du^T x. An element is one chain over ascending rows, so threads may take panels of A's
/// rows and blocks of its columns.
void gradient_of_a(const float* dlow, const float* x, Parameter& a, int64_t rows) {
  const int64_t depth = kernels::panel_depth(a.k);
  for (int64_t n0 = 0; n0 < a.n; n0 += kernels::kPanel) {
    const int64_t n = std::min(kernels::kPanel, a.n - n0);
    parallel_for(a.k, kColumnGrain, [&](int64_t begin, int64_t end) {
      kernels::linear_backward_weight(
          {.dy = dlow + n0,
           .dy_stride = a.n,
           .x = x + begin,
           .x_stride = a.k,
           .dweight = a.grad_data() + (n0 * depth) + begin * kernels::kPanel,
           .rows = rows,
           .n = n,
           .k = end - begin});
    });
  }
}

}  // namespace

LinearAdapter::LinearAdapter(const Parameter& of, std::vector<Part> parts,
                             const AdapterConfig& config, Trainable trainable,
                             std::shared_ptr<Workspace> workspace)
    : matrix_(of), parts_(std::move(parts)), work_(std::move(workspace)) {
  int64_t rank = 0;
  std::vector<ParameterPart> places;
  for (Part& p : parts_) {
    p.rank_begin = rank;
    rank += p.rank;
    places.push_back({peft_name_a(p.module), p.rank_begin, p.rank});
    const auto place = std::find_if(of.parts.begin(), of.parts.end(), [&](const auto& part) {
      return part.name == p.module + ".weight";
    });
    TEMPER_CHECK(place != of.parts.end(), "[adapter] ", of.name, " has no module ", p.module);
    p.row_begin = place->row_begin;
    p.b = matrix(p.module + ".lora_B", place->rows, p.rank, trainable);
    p.b->parts = {{peft_name_b(p.module), 0, place->rows}};
    if (!config.use_dora) continue;
    p.m = vector(p.module + ".lora_magnitude_vector", place->rows, trainable);
    p.m->parts = {{peft_name_m(p.module), 0, place->rows}};
  }
  a_ = matrix(of.name + ".lora_A", rank, of.k, trainable);
  a_->parts = std::move(places);
}

std::vector<Parameter*> LinearAdapter::parameters() const {
  std::vector<Parameter*> out{a_.get()};
  for (const Part& p : parts_) {
    out.push_back(p.b.get());
    if (p.m) out.push_back(p.m.get());
  }
  return out;
}

/// low = s x A^T, each part's columns by its own s.
void LinearAdapter::down(const float* x, int64_t rows) {
  float* low = work_->low.ensure(static_cast<size_t>(rows * a_->n));
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::linear({.x = x + begin * a_->k,
                     .x_stride = a_->k,
                     .weight = a_->packed(),
                     .y = low + begin * a_->n,
                     .y_stride = a_->n,
                     .rows = end - begin});
    for (const Part& p : parts_) scale_columns(low + begin * a_->n, end - begin, a_->n, p);
  });
}

/// y += low B^T.
void LinearAdapter::add_low(float* y, int64_t rows) const {
  for (const Part& p : parts_) {
    kernels::linear({.x = work_->low.data() + p.rank_begin,
                     .x_stride = a_->n,
                     .weight = p.b->packed(),
                     .y = y + p.row_begin,
                     .y_stride = matrix_.n,
                     .rows = rows,
                     .add = true});
  }
}

void LinearAdapter::forward(const kernels::LinearArgs& args) {
  const float* x = args.x;
  if (drops()) {
    float* kept = work_->x.ensure(static_cast<size_t>(args.rows * a_->k));
    drop_out(work_->dropout, a_->name, args.x, args.rows, a_->k, kept);
    x = kept;
  }
  refresh_factors();
  down(x, args.rows);
  if (scales_) return forward_scaled(args, drops() ? x : nullptr);
  kernels::linear(args);
  add_low(args.y, args.rows);
}

void LinearAdapter::backward(const BackwardArgs& g) {
  const float* x = g.x;
  if (drops()) {
    float* kept = work_->x.ensure(static_cast<size_t>(g.rows * a_->k));
    drop_out(work_->dropout, a_->name, g.x, g.rows, a_->k, kept);
    x = kept;
  }
  refresh_factors();
  down(x, g.rows);
  const float* dz = g.dy;
  if (!factors_.empty()) {
    backward_magnitudes(x, g.dy, g.rows);  // Leaves d loss / d z in the workspace.
    dz = work_->z.data();
  }
  backward_weights(x, dz, g.rows);
  const bool whole = !drops() || !scales_;  // Else W has the input as it is, and as it is dropped.
  kernels::linear_backward_input({.dy = drops() ? g.dy : dz,
                                  .dy_stride = matrix_.n,
                                  .weight = matrix_.packed(),
                                  .dx = g.dx,
                                  .dx_stride = a_->k,
                                  .rows = g.rows});
  if (drops()) return add_share(g, whole ? nullptr : dz);
  kernels::linear_backward_input({.dy = work_->dlow.data(),
                                  .dy_stride = a_->n,
                                  .weight = a_->packed(),
                                  .dx = g.dx,
                                  .dx_stride = a_->k,
                                  .rows = g.rows,
                                  .add = true});
}

/// dx += what goes through the dropped input: dlow A, and with factors ((g - 1) dy) W.
void LinearAdapter::add_share(const BackwardArgs& g, const float* dz) {
  float* share = work_->share.ensure(static_cast<size_t>(g.rows * a_->k));
  if (dz != nullptr) {
    float* rest = work_->z.data();
    const int64_t count = g.rows * matrix_.n;
    for (int64_t i = 0; i < count; ++i) rest[i] = dz[i] - g.dy[i];
    kernels::linear_backward_input({.dy = rest,
                                    .dy_stride = matrix_.n,
                                    .weight = matrix_.packed(),
                                    .dx = share,
                                    .dx_stride = a_->k,
                                    .rows = g.rows});
  }
  kernels::linear_backward_input({.dy = work_->dlow.data(),
                                  .dy_stride = a_->n,
                                  .weight = a_->packed(),
                                  .dx = share,
                                  .dx_stride = a_->k,
                                  .rows = g.rows,
                                  .add = dz != nullptr});
  drop_out(work_->dropout, a_->name, share, g.rows, a_->k, share);
  const int64_t count = g.rows * a_->k;
  for (int64_t i = 0; i < count; ++i) g.dx[i] += share[i];
}

void LinearAdapter::backward_weights(const float* x, const float* dz, int64_t rows) {
  float* dlow = work_->dlow.ensure(static_cast<size_t>(rows * a_->n));
  for (const Part& p : parts_) {
    kernels::linear_backward_weight({.dy = dz + p.row_begin,
                                     .dy_stride = matrix_.n,
                                     .x = work_->low.data() + p.rank_begin,
                                     .x_stride = a_->n,
                                     .dweight = p.b->grad_data(),
                                     .rows = rows,
                                     .n = p.b->n,
                                     .k = p.rank});
    parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::linear_backward_input({.dy = dz + begin * matrix_.n + p.row_begin,
                                      .dy_stride = matrix_.n,
                                      .weight = p.b->packed(),
                                      .dx = dlow + begin * a_->n + p.rank_begin,
                                      .dx_stride = a_->n,
                                      .rows = end - begin});
      scale_columns(dlow + begin * a_->n, end - begin, a_->n, p);
    });
  }
  gradient_of_a(dlow, x, *a_, rows);
}

}  // namespace temper
