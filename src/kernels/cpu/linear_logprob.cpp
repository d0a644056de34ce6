#include "temper/kernels/linear_logprob.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_logprob.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/logits-inl.h"
#include "cpu/logits_tile.h"
#include "cpu/workspace.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

void RowsForward(const LinearLogprobArgs& g, const LogitsTile& t) {
  parallel_for(t.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* z = t.z + r * t.padded;
      const RowStats s = row_stats(z, t.padded, g.inverse_temperature, nullptr);
      const int64_t row = t.row + r;
      g.logprob[row] = row_logprob(s, z[g.targets[row]], g.inverse_temperature);
      if (g.entropy != nullptr) g.entropy[row] = row_entropy(s);
      if (g.max != nullptr) g.max[row] = s.max;
      if (g.log_sum != nullptr) g.log_sum[row] = static_cast<float>(std::log(s.sum));
    }
  });
}

/// Turns a tile of logits into the gradient of the loss by them, in place.
void RowsBackward(const LinearLogprobBackwardArgs& g, const LogitsTile& t) {
  const LinearLogprobArgs& f = g.forward;
  const DF d;
  parallel_for(t.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = t.row + r;
      float* z = t.z + r * t.padded;
      const float dlogprob = g.dlogprob[row];
      const bool with_entropy = g.dentropy != nullptr && g.dentropy[row] != 0.0f;
      const float dentropy = with_entropy ? g.dentropy[row] : 0.0f;
      const VF scale = hn::Set(d, f.inverse_temperature);
      const VF max = hn::Set(d, f.max[row]);
      const VF log_sum = hn::Set(d, f.log_sum[row]);
      // dz_v = -p_v (g + e (ln p_v + H)) / T, plus g / T at the target.
      const VF constant =
          hn::Set(d, with_entropy ? dlogprob + dentropy * f.entropy[row] : dlogprob);
      const VF slope = hn::Set(d, dentropy);
      const VF minus_scale = hn::Set(d, -f.inverse_temperature);
      for (int64_t i = 0; i < t.padded; i += kLanes) {
        const VF scaled = hn::Mul(hn::LoadU(d, z + i), scale);
        const VF x = hn::Max(hn::Sub(hn::Sub(scaled, max), log_sum), hn::Set(d, kFarBelow));
        const VF p = hn::Mul(vexp(d, x), minus_scale);
        hn::StoreU(hn::Mul(p, hn::MulAdd(slope, x, constant)), d, z + i);
      }
      z[f.targets[row]] += dlogprob * f.inverse_temperature;
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(RowsForward);
HWY_EXPORT(RowsBackward);

namespace {

/// Calls `body` with each tile of logits; columns past the vocabulary are -inf.
template <class Body>
void for_each_tile(const LinearLogprobArgs& g, const Body& body) {
  const int64_t padded = panel_count(g.head.n) * kPanel;
  const int64_t tile_rows = std::min(kHeadTileRows, g.rows);
  float* z = workspace(Workspace::kLogits, static_cast<size_t>(tile_rows * padded));
  for (int64_t row = 0; row < g.rows; row += tile_rows) {
    const int64_t rows = std::min(tile_rows, g.rows - row);
    linear({.x = g.hidden + row * g.hidden_stride,
            .x_stride = g.hidden_stride,
            .weight = g.head,
            .y = z,
            .y_stride = padded,
            .rows = rows});
    for (int64_t r = 0; r < rows; ++r) {
      std::fill(z + r * padded + g.head.n, z + (r + 1) * padded,
                -std::numeric_limits<float>::infinity());
    }
    body(LogitsTile{z, padded, row, rows});
  }
}

}  // namespace

void linear_logprob(const LinearLogprobArgs& args) {
  if (const auto op = replacement(&KernelTable::linear_logprob)) return op(args);
  for_each_tile(args, [&](const LogitsTile& tile) {
    HWY_DYNAMIC_DISPATCH(RowsForward)(args, tile);
  });
}

void linear_logprob_backward(const LinearLogprobBackwardArgs& args) {
  if (const auto op = replacement(&KernelTable::linear_logprob_backward)) return op(args);
  const LinearLogprobArgs& f = args.forward;
  for_each_tile(f, [&](const LogitsTile& tile) {
    HWY_DYNAMIC_DISPATCH(RowsBackward)(args, tile);
    linear_backward_input({.dy = tile.z,
                           .dy_stride = tile.padded,
                           .weight = f.head,
                           .dx = args.dhidden + tile.row * args.dhidden_stride,
                           .dx_stride = args.dhidden_stride,
                           .rows = tile.rows});
    if (args.dweight == nullptr) return;
    linear_backward_weight({.dy = tile.z,
                            .dy_stride = tile.padded,
                            .x = f.hidden + tile.row * f.hidden_stride,
                            .x_stride = f.hidden_stride,
                            .dweight = args.dweight,
                            .rows = tile.rows,
                            .n = f.head.n,
                            .k = f.head.k});
  });
}

}  // namespace temper::kernels
#endif
