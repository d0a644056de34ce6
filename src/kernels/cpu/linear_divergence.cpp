#include "temper/kernels/linear_divergence.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_divergence.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/divergence-inl.h"
#include "cpu/logits_tile.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Which of the three formulas.
DivergenceKind kind_of(float beta) {
  if (beta == 0.0f) return DivergenceKind::kForward;
  return beta == 1.0f ? DivergenceKind::kReverse : DivergenceKind::kMixture;
}

/// What one row's gradient takes, from the row's numbers and the caller's coefficients.
RowDivergenceGradient row_gradient(const LinearDivergenceTrainArgs& g, const RowDivergence& d,
                                   const RowStats& plain, int64_t row) {
  const LinearDivergenceArgs& f = g.forward;
  const DivergenceKind kind = kind_of(f.beta);
  RowDivergenceGradient r{};
  r.scale = f.inverse_temperature;
  r.student_max = d.student.max;
  r.student_log_sum = row_log_sum(d.student);
  r.teacher_max = d.teacher.max;
  r.teacher_log_sum = row_log_sum(d.teacher);
  r.weight = g.ddivergence[row] * f.inverse_temperature;
  if (kind == DivergenceKind::kMixture) r.weight *= 1.0f - f.beta;
  r.offset = d.offset;
  r.beta = f.beta;
  r.plain_max = plain.max;
  r.plain_log_sum = row_log_sum(plain);
  r.logprob = g.dlogprob == nullptr ? 0.0f : g.dlogprob[row];
  r.inverse_softcap = f.student.softcap > 0 ? 1.0f / f.student.softcap : 0.0f;
  return r;
}

/// Writes the outputs of rows [first, first + tile.rows), and with `gradient` turns the student's
/// logits into dz in place.
void DivergenceRows(const LinearDivergenceArgs& f, const LinearDivergenceTrainArgs* gradient,
                    const LogitsTile& t, int64_t first) {
  const DivergenceKind kind = kind_of(f.beta);
  parallel_for(t.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* z = t.z + r * t.stride;
      const float* teacher = t.reference + r * t.stride;
      const int64_t row = first + r;
      const RowDivergence d =
          row_divergence(kind, z, teacher, t.padded, f.inverse_temperature, f.beta);
      const bool apart = f.inverse_temperature != 1.0f;
      const RowStats plain = apart ? row_stats(z, t.padded, 1.0f, nullptr) : d.student;
      f.divergence[row] = d.value;
      if (f.logprob != nullptr) f.logprob[row] = row_logprob(plain, z[f.targets[row]], 1.0f);
      if (f.entropy != nullptr) f.entropy[row] = row_entropy(plain);
      if (f.agree != nullptr) f.agree[row] = same_largest(z, teacher, t.padded) ? 1.0f : 0.0f;
      if (gradient == nullptr) continue;
      const RowDivergenceGradient g = row_gradient(*gradient, d, plain, row);
      const int64_t target = g.logprob != 0.0f ? f.targets[row] : -1;
      divergence_gradient(kind, g, z, teacher, t.padded, target);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(DivergenceRows);

namespace {

void check_divergence(const LinearDivergenceArgs& g) {
  TEMPER_CHECK(g.student.head.n == g.teacher.head.n, "[linear_divergence] a teacher over ",
               g.teacher.head.n, " ids cannot teach a student over ", g.student.head.n);
  constexpr float kLeast = 1e-4f;  // Closer to 0 or 1 than this, float32 loses the smaller weight.
  TEMPER_CHECK(g.beta == 0.0f || g.beta == 1.0f || (g.beta >= kLeast && g.beta <= 1.0f - kLeast),
               "[linear_divergence] beta must be 0, 1 or in [1e-4, 1 - 1e-4], got ", g.beta);
  TEMPER_CHECK(g.inverse_temperature > 0,
               "[linear_divergence] inverse_temperature must be above 0, got ",
               g.inverse_temperature);
  TEMPER_CHECK(g.support >= 0 && g.support <= g.student.head.n,
               "[linear_divergence] support must be in [0, ", g.student.head.n, "], got ",
               g.support);
  TEMPER_CHECK(g.student.softcap >= 0 && g.teacher.softcap >= 0,
               "[linear_divergence] a softcap must not be negative, got ", g.student.softcap,
               " and ", g.teacher.softcap);
  TEMPER_CHECK(g.logprob == nullptr || g.targets != nullptr,
               "[linear_divergence] log-probs need targets");
}

void check_train(const LinearDivergenceTrainArgs& g) {
  check_divergence(g.forward);
  TEMPER_CHECK(!g.forward.student.head.frozen() || g.dweight == nullptr,
               "[linear_divergence_train] int8 weights and blocks are frozen: they get no gradient");
  TEMPER_CHECK(g.dlogprob == nullptr || g.forward.logprob != nullptr,
               "[linear_divergence_train] a log-prob's gradient needs the forward's log-probs");
}

/// Both sides as the log-prob op's tiles know them: the teacher is the reference.
LinearLogprobArgs tile_args(const LinearDivergenceArgs& g) {
  LinearLogprobArgs a;
  a.hidden = g.student.hidden;
  a.hidden_stride = g.student.hidden_stride;
  a.head = g.student.head;
  a.softcap = g.student.softcap;
  a.support = g.support;
  a.rows = g.rows;
  a.reference.hidden = g.teacher.hidden;
  a.reference.hidden_stride = g.teacher.hidden_stride;
  a.reference.head = g.teacher.head;
  a.reference.softcap = g.teacher.softcap;
  return a;
}

/// The tile's dz to its share of both gradients.
void tile_gradients(const LinearDivergenceTrainArgs& g, const LogitsTile& tile, int64_t row) {
  const DivergenceSide& student = g.forward.student;
  linear_backward_input({.dy = tile.z,
                         .dy_stride = tile.stride,
                         .weight = student.head,
                         .dx = g.dhidden + row * g.dhidden_stride,
                         .dx_stride = g.dhidden_stride,
                         .rows = tile.rows});
  if (g.dweight == nullptr) return;
  linear_backward_weight({.dy = tile.z,
                          .dy_stride = tile.stride,
                          .x = student.hidden + row * student.hidden_stride,
                          .x_stride = student.hidden_stride,
                          .dweight = g.dweight,
                          .rows = tile.rows,
                          .n = student.head.n,
                          .k = student.head.k,
                          .product = student.head.product});
}

void run_tiles(const LinearDivergenceArgs& f, const LinearDivergenceTrainArgs* gradient) {
  const LinearLogprobArgs a = tile_args(f);
  LogitsTile tile = allocate_tile(a, std::min(kHeadTileRows, f.rows));
  for (int64_t row = 0; row < f.rows; row += kHeadTileRows) {
    tile.rows = std::min(kHeadTileRows, f.rows - row);
    compute_logits(a, rows_from(a, row), tile);
    HWY_DYNAMIC_DISPATCH(DivergenceRows)(f, gradient, tile, row);
    if (gradient != nullptr) tile_gradients(*gradient, tile, row);
  }
}

}  // namespace

void linear_divergence(const LinearDivergenceArgs& args) {
  check_divergence(args);
  if (const auto op = replacement(&KernelTable::linear_divergence)) return op(args);
  run_tiles(args, nullptr);
}

void linear_divergence_train(const LinearDivergenceTrainArgs& args) {
  check_train(args);
  if (const auto op = replacement(&KernelTable::linear_divergence_train)) return op(args);
  run_tiles(args.forward, &args);
}

}  // namespace temper::kernels
#endif
