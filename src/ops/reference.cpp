#include "temper/ops/reference.h"

#include "reference_ops.h"
#include "temper/core/error.h"

namespace temper::ops {

const kernels::KernelTable& reference_kernels() {
  static constexpr kernels::KernelTable table{
      .embedding = reference::embedding,
      .linear = reference::linear,
      .linear_backward_input = reference::linear_backward_input,
      .linear_backward_weight = reference::linear_backward_weight,
      .rms_norm = reference::rms_norm,
      .rms_norm_backward = reference::rms_norm_backward,
      .rope = reference::rope,
      .swiglu = reference::swiglu,
      .swiglu_backward = reference::swiglu_backward,
      .add_inplace = reference::add_inplace,
      .tree_attention = reference::tree_attention,
      .tree_attention_backward = reference::tree_attention_backward,
      .linear_logprob = reference::linear_logprob,
      .linear_logprob_backward = reference::linear_logprob_backward,
      .linear_divergence = reference::linear_divergence,
      .linear_divergence_train = reference::linear_divergence_train,
      .linear_sample = reference::linear_sample,
      .sampling_distribution = reference::sampling_distribution,
      .kl_penalty = reference::kl_penalty,
      .shape_rewards = reference::shape_rewards,
      .gae = reference::gae,
      .group_advantages = reference::group_advantages,
      .masked_stats = reference::masked_stats,
      .whiten = reference::whiten,
      .adamw = reference::adamw,
      .sum_of_squares = reference::sum_of_squares,
  };
  return table;
}

const std::vector<std::string>& kernel_names() {
  static const std::vector<std::string> names = {"cpu", "reference"};
  return names;
}

KernelScope::KernelScope(std::string_view name) : before_(kernels::kernel_table()) {
  TEMPER_CHECK(name == "cpu" || name == "reference",
               "[kernels] expected \"cpu\" or \"reference\", got \"", name, "\"");
  kernels::replace_kernels(name == "reference" ? &reference_kernels() : nullptr);
}

}  // namespace temper::ops
