#include "temper/kernels/linear_logprob.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_logprob.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "cpu/logits-inl.h"
#include "cpu/logits_tile.h"
#include "cpu/workspace.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

void FinishRows(const LinearLogprobArgs& g, const LogitsTile& t) {
  parallel_for(t.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      finish_logits(t.z + r * t.stride, support_of(g), t.padded, g.softcap);
      if (t.reference == nullptr) continue;
      finish_logits(t.reference + r * t.stride, support_of(g), t.padded, g.reference.softcap);
    }
  });
}

void top_k_of_row(const LinearLogprobArgs& g, const float* z, int64_t padded, const RowStats& s,
                  int64_t row) {
  float values[kMaxTopK];
  int32_t* ids = g.top_ids + row * g.top_k;
  float* logprobs = g.top_logprobs + row * g.top_k;
  const int64_t found = row_top_k(z, padded, g.top_k, values, ids);
  for (int64_t i = 0; i < found; ++i) {
    logprobs[i] = row_logprob(s, values[i], g.inverse_temperature);
  }
  std::fill(ids + found, ids + g.top_k, -1);
  std::fill(logprobs + found, logprobs + g.top_k, -INFINITY);
}

void reference_of_row(const LinearLogprobArgs& g, const float* z, const float* reference,
                      int64_t padded, const RowStats& s, int64_t row) {
  const ReferenceHead& ref = g.reference;
  const RowStats q = row_stats(reference, padded, g.inverse_temperature, nullptr);
  ref.kl[row] = row_kl(z, s, reference, q, padded, g.inverse_temperature);
  if (ref.logprob != nullptr) {
    ref.logprob[row] = row_logprob(q, reference[g.targets[row]], g.inverse_temperature);
  }
  if (ref.max != nullptr) ref.max[row] = q.max;
  if (ref.log_sum != nullptr) ref.log_sum[row] = row_log_sum(q);
}

void RowsForward(const LinearLogprobArgs& g, const LogitsTile& t, int64_t first) {
  parallel_for(t.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* z = t.z + r * t.stride;
      const RowStats s = row_stats(z, t.padded, g.inverse_temperature, nullptr);
      const int64_t row = first + r;
      g.logprob[row] = row_logprob(s, z[g.targets[row]], g.inverse_temperature);
      if (g.entropy != nullptr) g.entropy[row] = row_entropy(s);
      if (g.max != nullptr) g.max[row] = s.max;
      if (g.log_sum != nullptr) g.log_sum[row] = row_log_sum(s);
      if (g.top_k > 0) top_k_of_row(g, z, t.padded, s, row);
      if (t.reference != nullptr) {
        reference_of_row(g, z, t.reference + r * t.stride, t.padded, s, row);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(FinishRows);
HWY_EXPORT(RowsForward);

void check_head(const LinearLogprobArgs& g) {
  TEMPER_CHECK(g.support >= 0 && g.support <= g.head.n, "[linear_logprob] support must be in [0, ",
               g.head.n, "], got ", g.support);
  TEMPER_CHECK(g.softcap >= 0 && g.reference.softcap >= 0,
               "[linear_logprob] a softcap must not be negative, got ", g.softcap, " and ",
               g.reference.softcap);
  TEMPER_CHECK(g.top_k >= 0 && g.top_k <= kMaxTopK, "[linear_logprob] top_k must be in [0, ",
               kMaxTopK, "], got ", g.top_k);
  TEMPER_CHECK(g.top_k == 0 || (g.top_ids != nullptr && g.top_logprobs != nullptr),
               "[linear_logprob] top_k needs top_ids and top_logprobs");
  if (g.reference.hidden == nullptr) return;
  TEMPER_CHECK(g.reference.head.n == g.head.n, "[linear_logprob] a reference over ",
               g.reference.head.n, " ids cannot be compared with a policy over ", g.head.n);
  TEMPER_CHECK(g.reference.kl != nullptr, "[linear_logprob] a reference needs an array for kl");
}

LogitsTile allocate_tile(const LinearLogprobArgs& g, int64_t rows) {
  const int64_t padded = panel_count(g.head.n) * kPanel;
  const int64_t stride = logit_stride(padded);
  const auto floats = static_cast<size_t>(rows * stride);
  return {workspace(Workspace::kLogits, floats),
          g.reference.hidden == nullptr ? nullptr : workspace(Workspace::kReference, floats),
          padded, stride, rows};
}

void compute_logits(const LinearLogprobArgs& g, const HiddenRows& hidden, const LogitsTile& tile) {
  linear({.x = hidden.policy,
          .x_stride = hidden.policy_stride,
          .weight = g.head,
          .y = tile.z,
          .y_stride = tile.stride,
          .rows = tile.rows});
  if (tile.reference != nullptr) {
    linear({.x = hidden.reference,
            .x_stride = hidden.reference_stride,
            .weight = g.reference.head,
            .y = tile.reference,
            .y_stride = tile.stride,
            .rows = tile.rows});
  }
  HWY_DYNAMIC_DISPATCH(FinishRows)(g, tile);
}

void write_statistics(const LinearLogprobArgs& g, const LogitsTile& tile, int64_t row) {
  HWY_DYNAMIC_DISPATCH(RowsForward)(g, tile, row);
}

void linear_logprob(const LinearLogprobArgs& args) {
  check_head(args);
  if (const auto op = replacement(&KernelTable::linear_logprob)) return op(args);
  LogitsTile tile = allocate_tile(args, std::min(kHeadTileRows, args.rows));
  for (int64_t row = 0; row < args.rows; row += kHeadTileRows) {
    tile.rows = std::min(kHeadTileRows, args.rows - row);
    compute_logits(args, rows_from(args, row), tile);
    write_statistics(args, tile, row);
  }
}

}  // namespace temper::kernels
#endif
