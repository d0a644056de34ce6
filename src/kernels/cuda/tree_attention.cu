#include "cuda/tree_attention.cuh"

#include "cuda/tree_attention_backward.cuh"

namespace temper::kernels::cuda {

Status tree_attention(const TreeAttentionArgs& args, int64_t rows_per_list, Stream stream) {
  return launch_tree_attention(args, rows_per_list, stream);
}

Status tree_attention_backward(const TreeAttentionBackwardArgs& args,
                               const TreeAttentionWorkspace& workspace, Stream stream) {
  return launch_tree_attention_backward(args, workspace, stream);
}

}  // namespace temper::kernels::cuda
