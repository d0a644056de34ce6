#pragma once

#include <cstdint>
#include <span>

namespace temper::kernels {

struct AdamWArgs;
struct GaeArgs;
struct GroupAdvantagesArgs;
struct KlPenaltyArgs;
struct LinearArgs;
struct LinearBackwardInputArgs;
struct LinearBackwardWeightArgs;
struct LinearDivergenceArgs;
struct LinearDivergenceTrainArgs;
struct LinearLogprobArgs;
struct LinearLogprobBackwardArgs;
struct LinearSampleArgs;
struct MaskedStats;
struct PackedWeight;
struct RmsNormArgs;
struct RmsNormBackwardArgs;
struct RopeTable;
struct SamplingParams;
struct ShapeRewardsArgs;
struct TreeAttentionArgs;
struct TreeAttentionBackwardArgs;
struct WhitenArgs;

/// Another implementation of the ops: a function for each public one, with its signature and its
/// contract, less the fixed bits. Null keeps the built-in CPU kernel of that op. What only lays
/// memory out (`pack_rows`, `unpack_rows`, `panels_to_bf16`, `panels_to_f16`, `make_rope_table`) is
/// shared.
struct KernelTable {
  void (*embedding)(const PackedWeight&, std::span<const int32_t>, float*) = nullptr;
  void (*linear)(const LinearArgs&) = nullptr;
  void (*linear_backward_input)(const LinearBackwardInputArgs&) = nullptr;
  void (*linear_backward_weight)(const LinearBackwardWeightArgs&) = nullptr;
  void (*rms_norm)(const RmsNormArgs&) = nullptr;
  void (*rms_norm_backward)(const RmsNormBackwardArgs&) = nullptr;
  void (*rope)(float*, int64_t, std::span<const int32_t>, int64_t, const RopeTable&,
               bool) = nullptr;
  void (*swiglu)(const float*, float*, int64_t, int64_t) = nullptr;
  void (*swiglu_backward)(const float*, const float*, float*, int64_t, int64_t) = nullptr;
  void (*add_inplace)(float*, const float*, int64_t) = nullptr;
  void (*tree_attention)(const TreeAttentionArgs&) = nullptr;
  void (*tree_attention_backward)(const TreeAttentionBackwardArgs&) = nullptr;
  void (*linear_logprob)(const LinearLogprobArgs&) = nullptr;
  void (*linear_logprob_backward)(const LinearLogprobBackwardArgs&) = nullptr;
  void (*linear_divergence)(const LinearDivergenceArgs&) = nullptr;
  void (*linear_divergence_train)(const LinearDivergenceTrainArgs&) = nullptr;
  void (*linear_sample)(const LinearSampleArgs&) = nullptr;
  void (*sampling_distribution)(std::span<const float>, const SamplingParams&,
                                std::span<const int32_t>, std::span<float>) = nullptr;
  void (*kl_penalty)(const KlPenaltyArgs&) = nullptr;
  void (*shape_rewards)(const ShapeRewardsArgs&) = nullptr;
  void (*gae)(const GaeArgs&) = nullptr;
  void (*group_advantages)(const GroupAdvantagesArgs&) = nullptr;
  MaskedStats (*masked_stats)(const float*, const uint8_t*, int64_t) = nullptr;
  void (*whiten)(const WhitenArgs&) = nullptr;
  void (*adamw)(const AdamWArgs&) = nullptr;
  double (*sum_of_squares)(const float*, int64_t) = nullptr;
};

/// The table in use, or null: the built-in CPU kernels.
[[nodiscard]] const KernelTable* kernel_table();

/// Makes every op of the process go through `table`, which must outlive its use; null restores the
/// built-in kernels. Not to be called while a kernel runs.
void replace_kernels(const KernelTable* table);

/// What stands in for one op, or null. An op begins with its checks and then
/// `if (const auto op = replacement(&KernelTable::linear)) return op(args);`
template <class F>
[[nodiscard]] F replacement(F KernelTable::*op) {
  const KernelTable* table = kernel_table();
  return table == nullptr ? nullptr : table->*op;
}

}  // namespace temper::kernels
