// Magnitudes of an adapted matrix's output columns, and the merge of an adapter into its matrix.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "temper/core/threads.h"
#include "temper/kernels/embedding.h"
#include "temper/nn/adapter.h"

namespace temper {
namespace {

/// Columns that a thread takes: whole cache lines, so that no two threads write one.
constexpr int64_t kColumnGrain = 64;

}  // namespace

/// rows += s B A for rows [first, first + count) of a part.
void LinearAdapter::add_delta(const Part& p, int64_t first, int64_t count, double* rows) const {
  const int64_t k = a_->k;
  std::vector<float> a(static_cast<size_t>(p.rank * k));
  a_->get_part({"", p.rank_begin, p.rank}, a_->value, a.data());
  std::vector<float> b(static_cast<size_t>(count * p.rank));
  p.b->get_part({"", first, count}, p.b->value, b.data());
  parallel_for(count, 4, [&](int64_t begin, int64_t end) {
    std::vector<double> sum(static_cast<size_t>(k));
    for (int64_t row = begin; row < end; ++row) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t j = 0; j < p.rank; ++j) {
        const double factor = double{p.scale} * double{b[static_cast<size_t>(row * p.rank + j)]};
        const float* from = a.data() + j * k;
        for (int64_t i = 0; i < k; ++i) sum[static_cast<size_t>(i)] += factor * double{from[i]};
      }
      double* to = rows + row * k;
      for (int64_t i = 0; i < k; ++i) to[i] += sum[static_cast<size_t>(i)];
    }
  });
}

/// |W + s B A| of each output row of a part, in double: what products read of W, in order of k.
std::vector<double> LinearAdapter::row_norms(const Part& p) const {
  constexpr int64_t kRows = 256;  // In one piece.
  const int64_t n = p.b->n, k = a_->k;
  std::vector<double> norms(static_cast<size_t>(n));
  std::vector<float> base;
  std::vector<double> rows;
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t count = std::min(kRows, n - first);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(p.row_begin + first));
    base.resize(static_cast<size_t>(count * k));
    kernels::embedding(matrix_.packed(), ids, base.data());  // It reads rows of any panels.
    rows.assign(base.begin(), base.end());
    add_delta(p, first, count, rows.data());
    parallel_for(count, 4, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        double sum = 0;
        for (const double v :
             std::span(rows).subspan(static_cast<size_t>(r * k), static_cast<size_t>(k))) {
          sum += v * v;
        }
        norms[static_cast<size_t>(first + r)] = std::sqrt(sum);
      }
    });
  }
  return norms;
}

void LinearAdapter::reset_magnitudes() {
  for (const Part& p : parts_) {
    if (!p.m) continue;
    const auto norms = row_norms(p);
    std::copy(norms.begin(), norms.end(), p.m->data());
    ++p.m->version;
  }
}

/// Makes g anew after a change of weights. Norms take about as long as a forward of as many rows as
/// the adapter has ranks.
void LinearAdapter::refresh_factors() {
  if (parts_.front().m == nullptr) return;
  std::vector<int64_t> versions{matrix_.version};
  for (const Parameter* p : parameters()) versions.push_back(p->version);
  if (versions == versions_) return;
  factors_.assign(static_cast<size_t>(matrix_.n), 1.0f);
  norms_.assign(static_cast<size_t>(matrix_.n), 1.0f);
  for (const Part& p : parts_) {
    const auto norms = row_norms(p);
    for (size_t i = 0; i < norms.size(); ++i) {
      const size_t at = static_cast<size_t>(p.row_begin) + i;
      if (norms[i] == 0) continue;  // No direction to scale: its column is 0 at any length.
      norms_[at] = static_cast<float>(norms[i]);
      factors_[at] = p.m->data()[i] / norms_[at];
    }
  }
  scales_ = std::any_of(factors_.begin(), factors_.end(), [](float g) { return g != 1.0f; });
  versions_ = std::move(versions);
}

/// y = or += g (x W^T + low B^T) + bias; where parts of x were dropped for the adapter, as PEFT has
/// it, x W^T + bias + (g - 1) (dropped W^T) + g low B^T.
void LinearAdapter::forward_scaled(const kernels::LinearArgs& args, const float* dropped) {
  const int64_t n = matrix_.n;
  float* z = work_->z.ensure(static_cast<size_t>(args.rows * n));
  kernels::LinearArgs product = args;
  product.bias = nullptr;
  product.y = z;
  product.add = false;
  if (dropped != nullptr) {
    kernels::linear(args);
    product.x = dropped;
  }
  kernels::linear(product);
  std::vector<float> lost;  // The product of the dropped input, before the adapter's is added.
  if (dropped != nullptr) lost.assign(z, z + args.rows * n);
  add_low(z, args.rows);
  parallel_for(n, kColumnGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < args.rows; ++r) {
      float* y = args.y + r * args.y_stride;
      const float* from = z + r * n;
      for (int64_t j = begin; j < end; ++j) {
        float v = factors_[static_cast<size_t>(j)] * from[j];
        if (dropped != nullptr) {
          y[j] += v - lost[static_cast<size_t>(r * n + j)];
          continue;
        }
        if (args.bias != nullptr) v += args.bias[j];
        y[j] = args.add ? y[j] + v : v;
      }
    }
  });
}

/// Adds to the gradients of m: one chain over ascending rows of dy z / norm. Leaves g dy in z.
void LinearAdapter::backward_magnitudes(const float* x, const float* dy, int64_t rows) {
  const int64_t n = matrix_.n;
  float* z = work_->z.ensure(static_cast<size_t>(rows * n));
  kernels::linear(
      {.x = x, .x_stride = a_->k, .weight = matrix_.packed(), .y = z, .y_stride = n, .rows = rows});
  add_low(z, rows);
  for (const Part& p : parts_) {
    float* grad = p.m->grad_data();
    parallel_for(p.m->n, kColumnGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = r * n + p.row_begin;
        for (int64_t j = begin; j < end; ++j) {
          grad[j] += dy[at + j] * (z[at + j] / norms_[static_cast<size_t>(p.row_begin + j)]);
        }
      }
    });
  }
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t j = 0; j < n; ++j) {
        z[r * n + j] = factors_[static_cast<size_t>(j)] * dy[r * n + j];
      }
    }
  });
}

void LinearAdapter::merge(const ParameterPart& part, float* rows) {
  constexpr int64_t kRows = 256;
  const int64_t k = a_->k;
  refresh_factors();
  for (const Part& p : parts_) {
    if (p.row_begin != part.row_begin) continue;
    std::vector<double> sum;
    for (int64_t first = 0; first < part.rows; first += kRows) {
      const int64_t count = std::min(kRows, part.rows - first);
      float* to = rows + first * k;
      sum.assign(to, to + count * k);
      add_delta(p, first, count, sum.data());
      for (int64_t r = 0; r < count; ++r) {
        const auto row = static_cast<size_t>(p.row_begin + first + r);
        const double g = p.m ? double{factors_[row]} : 1.0;
        for (int64_t i = 0; i < k; ++i) {
          to[r * k + i] = static_cast<float>(g * sum[static_cast<size_t>(r * k + i)]);
        }
      }
    }
  }
}

}  // namespace temper
