#include "temper/ops/reference.h"

#include "reference_ops.h"
#include "temper/core/error.h"

namespace temper::ops {

const kernels::KernelTable& reference_kernels() {
  static constexpr kernels::KernelTable table{
      .embedding = reference::embedding,
      .embedding_bf16 = reference::embedding_bf16,
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
      .linear_sample = reference::linear_sample,
      .sampling_distribution = reference::sampling_distribution,
      .adamw = reference::adamw,
      .sum_of_squares = reference::sum_of_squares,
  };
  return table;
}

void select_kernels(std::string_view name) {
  TEMPER_CHECK(name == "cpu" || name == "reference", "[select_kernels] expected \"cpu\" or ",
               "\"reference\", got \"", name, "\"");
  kernels::replace_kernels(name == "reference" ? &reference_kernels() : nullptr);
}

}  // namespace temper::ops
