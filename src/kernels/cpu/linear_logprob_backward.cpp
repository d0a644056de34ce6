#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_logprob_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "cpu/logits-inl.h"
#include "cpu/logits_tile.h"
#include "cpu/workspace.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// The numbers of one row that its gradient takes.
struct RowGradient {
  float scale;         // 1 / T
  float max, log_sum;  // Of the policy.
  float constant;      // g + e H + c KL
  float entropy;       // e
  float kl;            // c
  float ref_max, ref_log_sum;
  float inverse_softcap;  // 0: none.
};

/// Logits become dz, the target's own term apart: dz_v = -p_v (constant + e x - c (x - y)) / T with
/// x = ln p_v and y = ln q_v.
template <bool kCap, bool kKl>
void gradient_row(const RowGradient& g, float* z, const float* reference, int64_t padded) {
  const DF d;
  const VF scale = hn::Set(d, g.scale);
  const VF minus_scale = hn::Set(d, -g.scale);
  const VF far_below = hn::Set(d, kFarBelow);
  for (int64_t i = 0; i < padded; i += kLanes) {
    const VF raw = hn::LoadU(d, z + i);
    const VF centred = hn::Sub(hn::Mul(raw, scale), hn::Set(d, g.max));
    const VF x = hn::Max(hn::Sub(centred, hn::Set(d, g.log_sum)), far_below);
    const VF p = hn::Mul(vexp(d, x), minus_scale);
    VF factor = hn::MulAdd(hn::Set(d, g.entropy), x, hn::Set(d, g.constant));
    if constexpr (kKl) {
      const VF ref = hn::Sub(hn::Mul(hn::LoadU(d, reference + i), scale), hn::Set(d, g.ref_max));
      const VF y = hn::Max(hn::Sub(ref, hn::Set(d, g.ref_log_sum)), far_below);
      factor = hn::NegMulAdd(hn::Set(d, g.kl), hn::Sub(x, y), factor);
    }
    VF dz = hn::Mul(p, factor);
    if constexpr (kCap) dz = hn::Mul(dz, cap_slope(raw, g.inverse_softcap));
    hn::StoreU(dz, d, z + i);
  }
}

RowGradient row_gradient(const LinearLogprobBackwardArgs& g, int64_t row) {
  const LinearLogprobArgs& f = g.forward;
  RowGradient r{};
  r.scale = f.inverse_temperature;
  r.max = f.max[row];
  r.log_sum = f.log_sum[row];
  r.constant = g.dlogprob[row];
  if (g.dentropy != nullptr && g.dentropy[row] != 0.0f) {
    r.entropy = g.dentropy[row];
    r.constant += r.entropy * f.entropy[row];
  }
  if (g.dkl != nullptr && g.dkl[row] != 0.0f) {
    r.kl = g.dkl[row];
    r.constant += r.kl * f.reference.kl[row];
    r.ref_max = f.reference.max[row];
    r.ref_log_sum = f.reference.log_sum[row];
  }
  r.inverse_softcap = f.softcap > 0 ? 1.0f / f.softcap : 0.0f;
  return r;
}

/// Turns a tile of logits into the gradient of the loss by the products, in place. Row r of the
/// tile is row ids[r] of the call, or zeros if that is negative.
void RowsBackward(const LinearLogprobBackwardArgs& g, const LogitsTile& t, const int64_t* ids) {
  parallel_for(t.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* z = t.z + r * t.stride;
      if (ids[r] < 0) {
        std::fill(z, z + t.padded, 0.0f);
        continue;
      }
      const RowGradient row = row_gradient(g, ids[r]);
      const float* reference = t.reference + (t.reference == nullptr ? 0 : r * t.stride);
      float* target = z + g.forward.targets[ids[r]];
      const float capped = *target * row.inverse_softcap;
      if (row.inverse_softcap > 0) {
        row.kl != 0.0f ? gradient_row<true, true>(row, z, reference, t.padded)
                       : gradient_row<true, false>(row, z, reference, t.padded);
      } else {
        row.kl != 0.0f ? gradient_row<false, true>(row, z, reference, t.padded)
                       : gradient_row<false, false>(row, z, reference, t.padded);
      }
      const float slope = row.inverse_softcap > 0 ? 1.0f - std::min(capped * capped, 1.0f) : 1.0f;
      *target += g.dlogprob[ids[r]] * row.scale * slope;
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(RowsBackward);

namespace {

/// Rows of a call in the order in which they stand in a tile; -1 for zeros.
using RowIds = std::vector<int64_t>;

bool has_gradient(const LinearLogprobBackwardArgs& g, int64_t row) {
  return g.dlogprob[row] != 0.0f || (g.dentropy != nullptr && g.dentropy[row] != 0.0f) ||
         (g.dkl != nullptr && g.dkl[row] != 0.0f);
}

/// The pairs of rows in [begin, end), begin even, that have a gradient. Whole pairs, because kDot
/// adds a weight gradient's rows pair by pair: its bits must not depend on what was left out.
RowIds rows_with_gradient(const LinearLogprobBackwardArgs& g, int64_t begin, int64_t end) {
  RowIds ids;
  for (int64_t row = begin; row < end; row += 2) {
    const bool first = has_gradient(g, row);
    const bool second = row + 1 < end && has_gradient(g, row + 1);
    if (!first && !second) continue;
    ids.push_back(first ? row : -1);
    if (row + 1 < end) ids.push_back(second ? row + 1 : -1);
  }
  return ids;
}

/// Whether the rows lie one after the other, none of them zeros.
bool contiguous(std::span<const int64_t> ids) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] != ids[0] + static_cast<int64_t>(i)) return false;
  }
  return true;
}

void gather(const float* from, int64_t stride, int64_t k, std::span<const int64_t> ids, float* to) {
  for (const int64_t id : ids) {
    if (id < 0) {
      std::fill_n(to, k, 0.0f);
    } else {
      std::copy_n(from + id * stride, k, to);
    }
    to += k;
  }
}

/// The hidden rows of `ids`: where they lie if they may be read there, else copied together.
HiddenRows hidden_rows(const LinearLogprobArgs& f, std::span<const int64_t> ids) {
  if (contiguous(ids)) return rows_from(f, ids[0]);
  const int64_t rows = std::ssize(ids), k = f.head.k;
  const int64_t ref_k = f.reference.hidden == nullptr ? 0 : f.reference.head.k;
  float* copy = workspace(Workspace::kRows, static_cast<size_t>(rows * (k + ref_k)));
  gather(f.hidden, f.hidden_stride, k, ids, copy);
  if (ref_k == 0) return {copy, k, nullptr, 0};
  float* reference = copy + rows * k;
  gather(f.reference.hidden, f.reference.hidden_stride, ref_k, ids, reference);
  return {copy, k, reference, ref_k};
}

/// dhidden = dz W for the rows of a tile.
void hidden_gradient(const LinearLogprobBackwardArgs& g, const LogitsTile& tile,
                     std::span<const int64_t> ids) {
  const int64_t k = g.forward.head.k;
  const bool direct = contiguous(ids);
  float* dx = direct ? g.dhidden + ids[0] * g.dhidden_stride
                     : workspace(Workspace::kGradientRows, static_cast<size_t>(tile.rows * k));
  linear_backward_input({.dy = tile.z,
                         .dy_stride = tile.stride,
                         .weight = g.forward.head,
                         .dx = dx,
                         .dx_stride = direct ? g.dhidden_stride : k,
                         .rows = tile.rows});
  if (direct) return;
  for (const int64_t id : ids) {
    if (id >= 0) std::copy_n(dx, k, g.dhidden + id * g.dhidden_stride);
    dx += k;
  }
}

/// A tile of logits of the rows `ids`, to its share of both gradients.
void tile_backward(const LinearLogprobBackwardArgs& g, const LogitsTile& tile,
                   const HiddenRows& hidden, std::span<const int64_t> ids) {
  HWY_DYNAMIC_DISPATCH(RowsBackward)(g, tile, ids.data());
  hidden_gradient(g, tile, ids);
  if (g.dweight == nullptr) return;
  linear_backward_weight({.dy = tile.z,
                          .dy_stride = tile.stride,
                          .x = hidden.policy,
                          .x_stride = hidden.policy_stride,
                          .dweight = g.dweight,
                          .rows = tile.rows,
                          .n = g.forward.head.n,
                          .k = g.forward.head.k,
                          .product = g.forward.head.product});
}

void clear_hidden_gradient(const LinearLogprobBackwardArgs& g, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    if (!has_gradient(g, row)) {
      std::fill_n(g.dhidden + row * g.dhidden_stride, g.forward.head.k, 0.0f);
    }
  }
}

/// Moves the rows `ids` of a tile that begins at row `first` of the call to the tile's beginning.
void close_ranks(const LogitsTile& tile, int64_t first, std::span<const int64_t> ids) {
  if (std::ssize(ids) == tile.rows) return;
  constexpr int64_t kColumns = 1024;  // In slices of columns, so that rows move in order.
  parallel_for((tile.padded + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    const int64_t from = begin * kColumns;
    const int64_t count = std::min(end * kColumns, tile.padded) - from;
    for (size_t r = 0; r < ids.size(); ++r) {
      const int64_t to = static_cast<int64_t>(r) * tile.stride + from;
      const int64_t source = (ids[r] - first) * tile.stride + from;
      if (ids[r] < 0 || source == to) continue;
      std::copy_n(tile.z + source, count, tile.z + to);
      if (tile.reference == nullptr) continue;
      std::copy_n(tile.reference + source, count, tile.reference + to);
    }
  });
}

void check_backward(const LinearLogprobBackwardArgs& g) {
  check_head(g.forward);
  TEMPER_CHECK(!g.forward.head.frozen() || g.dweight == nullptr,
               "[linear_logprob_backward] int8 weights and blocks are frozen: they get no gradient");
  TEMPER_CHECK(g.dentropy == nullptr || g.forward.entropy != nullptr,
               "[linear_logprob_backward] an entropy gradient needs the forward's entropy");
  TEMPER_CHECK(g.dkl == nullptr ||
                   (g.forward.reference.hidden != nullptr && g.forward.reference.max != nullptr &&
                    g.forward.reference.log_sum != nullptr),
               "[linear_logprob_backward] a KL gradient needs the forward's reference with its "
               "max and log_sum");
}

}  // namespace

void linear_logprob_backward(const LinearLogprobBackwardArgs& args) {
  check_backward(args);
  if (const auto op = replacement(&KernelTable::linear_logprob_backward)) return op(args);
  clear_hidden_gradient(args, 0, args.forward.rows);
  LinearLogprobArgs forward = args.forward;
  if (args.dkl == nullptr) forward.reference.hidden = nullptr;  // Its logits would not be read.
  const RowIds all = rows_with_gradient(args, 0, forward.rows);
  const int64_t total = std::ssize(all);
  LogitsTile tile = allocate_tile(forward, std::min(kHeadTileRows, total));
  for (int64_t begin = 0; begin < total; begin += kHeadTileRows) {
    tile.rows = std::min(kHeadTileRows, total - begin);
    const std::span ids(all.data() + begin, static_cast<size_t>(tile.rows));
    const HiddenRows hidden = hidden_rows(forward, ids);
    compute_logits(forward, hidden, tile);
    tile_backward(args, tile, hidden, ids);
  }
}

void linear_logprob_train(const LinearLogprobTrainArgs& args) {
  const LinearLogprobBackwardArgs& g = args.pass;
  const LinearLogprobArgs& f = g.forward;
  check_backward(g);
  if (replacement(&KernelTable::linear_logprob) != nullptr) {
    linear_logprob(f);
    if (args.coefficients && f.rows > 0) args.coefficients(0, f.rows);
    return linear_logprob_backward(g);
  }
  LogitsTile tile = allocate_tile(f, std::min(kHeadTileRows, f.rows));
  for (int64_t row = 0; row < f.rows; row += kHeadTileRows) {
    tile.rows = std::min(kHeadTileRows, f.rows - row);
    compute_logits(f, rows_from(f, row), tile);
    write_statistics(f, tile, row);
    if (args.coefficients) args.coefficients(row, row + tile.rows);
    clear_hidden_gradient(g, row, row + tile.rows);
    const RowIds ids = rows_with_gradient(g, row, row + tile.rows);
    if (ids.empty()) continue;
    close_ranks(tile, row, ids);
    LogitsTile live = tile;
    live.rows = std::ssize(ids);
    tile_backward(g, live, hidden_rows(f, ids), ids);
  }
}

}  // namespace temper::kernels
#endif
