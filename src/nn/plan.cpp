// Checks a batch and works out which keys each of its rows sees.
#include <algorithm>

#include "temper/core/error.h"
#include "temper/nn/causal_lm.h"

namespace temper {

void CausalLM::check_batch(const TokenBatch& batch, const KvStore* kv) const {
  TEMPER_CHECK(batch.rows() > 0, "[forward] the batch has no tokens");
  TEMPER_CHECK(batch.positions.size() == batch.ids.size(), "[forward] ", batch.ids.size(),
               " ids but ", batch.positions.size(), " positions");
  for (size_t i = 0; i < batch.ids.size(); ++i) {
    TEMPER_CHECK(batch.ids[i] >= 0 && batch.ids[i] < config_.vocab_size, "[forward] id ",
                 batch.ids[i], " at row ", i, " is outside [0, ", config_.vocab_size, ")");
    TEMPER_CHECK(batch.positions[i] >= 0 && batch.positions[i] < config_.max_positions,
                 "[forward] position ", batch.positions[i], " at row ", i,
                 " is outside the model's context of ", config_.max_positions, " tokens");
  }
  int64_t next = 0;
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    TEMPER_CHECK(segment.start == next && segment.length > 0, "[forward] segment ", s,
                 " must start at row ", next, " and have rows");
    TEMPER_CHECK(segment.parent < static_cast<int32_t>(s), "[forward] segment ", s,
                 " comes before its parent ", segment.parent);
    TEMPER_CHECK(segment.node < 0 || (kv != nullptr && segment.parent < 0), "[forward] segment ", s,
                 " continues a KvStore node: it needs a KvStore and no parent in the batch");
    TEMPER_CHECK(kv == nullptr || segment.node >= 0, "[forward] segment ", s,
                 " has no node, but the batch runs over a KvStore");
    next += segment.length;
  }
  TEMPER_CHECK(next == batch.rows(), "[forward] segments cover ", next, " of ", batch.rows(),
               " rows");
}

AttentionPlan CausalLM::make_plan(const TokenBatch& batch, KvStore* kv) const {
  AttentionPlan plan;
  plan.queries.reserve(batch.ids.size());
  std::vector<std::pair<int32_t, int32_t>> ranges;  // Spans of each segment.
  std::vector<int64_t> totals;                      // Keys of each segment with its ancestors.
  for (const Segment& segment : batch.segments) {
    const int32_t begin = static_cast<int32_t>(plan.spans.size());
    int64_t before = 0;
    if (segment.node >= 0) {
      before = kv->total_length(segment.node);
      for (int32_t i = 0; i < segment.length; ++i) plan.slots.push_back(kv->append(segment.node));
      kv->append_spans(segment.node, plan.spans);
    } else {
      if (segment.parent >= 0) {
        const auto [first, last] = ranges[static_cast<size_t>(segment.parent)];
        before = totals[static_cast<size_t>(segment.parent)];
        for (int32_t i = first; i < last; ++i) {
          plan.spans.push_back(kernels::KeySpan(plan.spans[static_cast<size_t>(i)]));
        }
      }
      plan.spans.push_back({segment.start, segment.length});
    }
    const int32_t end = static_cast<int32_t>(plan.spans.size());
    ranges.emplace_back(begin, end);
    totals.push_back(before + segment.length);
    for (int32_t i = 0; i < segment.length; ++i) {
      const int32_t visible = static_cast<int32_t>(before + i + 1);
      plan.queries.push_back(
          {begin, end, visible, batch.positions[static_cast<size_t>(segment.start + i)]});
    }
  }
  return plan;
}

void CausalLM::ensure_rope(std::span<const int32_t> positions) {
  const int64_t needed = *std::max_element(positions.begin(), positions.end()) + 1;
  if (needed <= work_->rope.positions) return;
  const int64_t count = std::min(config_.max_positions, std::max<int64_t>(needed, 2048) * 2);
  kernels::Llama3Scaling scaling;
  if (config_.rope_scaling) {
    scaling = {config_.rope_scaling->factor, config_.rope_scaling->low_freq_factor,
               config_.rope_scaling->high_freq_factor,
               static_cast<double>(config_.rope_scaling->original_max_positions)};
  }
  work_->rope = kernels::make_rope_table(config_.head_dim, count, config_.rope_theta,
                                   config_.rope_scaling ? &scaling : nullptr);
}

}  // namespace temper
