#pragma once
// Runs tree attention's CUDA kernels with everything that they read in buffers of a device, which
// may be the emulator: Buffer<T> is made of a count or a vector, and has data(), size(), values().

#include <functional>
#include <tuple>
#include <vector>

#include "kernels/attention_case.h"

namespace temper::kernels::attention_case {

/// A launch of the forward, whose arguments lie on the device.
using Launch = std::function<cuda::Status(const TreeAttentionArgs&)>;

/// out, lse
using Outputs = std::tuple<std::vector<float>, std::vector<float>>;

/// `offset` floats lie between the arrays' beginnings and multiples of 64 bytes.
template <template <class> class Buffer>
Outputs run_on_device(const Problem& p, const Launch& launch, size_t offset = 0) {
  std::vector<float> host_out, host_lse;
  TreeAttentionArgs a = p.args(host_out, host_lse);
  Buffer<float> q(p.q, offset), k(p.k, offset), v(p.v, offset);
  Buffer<float> out(host_out.size(), offset), lse(host_lse.size());
  Buffer<KeySpan> spans(p.spans);
  Buffer<TreeAttentionArgs::Query> queries(p.queries);
  a.q = q.data(), a.k = k.data(), a.v = v.data(), a.out = out.data(), a.lse = lse.data();
  a.spans = {spans.data(), spans.size()};
  a.queries = {queries.data(), queries.size()};
  const cuda::Status status = launch(a);
  EXPECT_TRUE(status.ok()) << status.what;
  return {out.values(), lse.values()};
}

inline Outputs cpu_outputs(const Problem& p) {
  const Result r = run(p);
  return {r.out, r.lse};
}

/// dq, dk, dv
using GradientOutputs = std::tuple<std::vector<float>, std::vector<float>, std::vector<float>>;

/// A launch of the backward.
using BackwardLaunch = std::function<cuda::Status(const TreeAttentionBackwardArgs&,
                                                  const cuda::TreeAttentionWorkspace&)>;

/// Gradients that start from zeros, with the CPU's forward.
template <template <class> class Buffer>
GradientOutputs run_backward_on_device(const Problem& p, const std::vector<float>& host_dout,
                                       const BackwardLaunch& launch, size_t offset = 0) {
  Result r;
  TreeAttentionArgs a = p.args(r.out, r.lse);
  tree_attention(a);
  TreeAttentionKeyPlan plan = plan_tree_attention_keys(a);
  Buffer<float> q(p.q, offset), k(p.k, offset), v(p.v, offset), dout(host_dout, offset);
  Buffer<float> out(r.out, offset), lse(r.lse), delta(r.lse.size()), dq(p.q.size(), offset);
  Buffer<float> dk(std::vector<float>(p.k.size()), offset);
  Buffer<float> dv(std::vector<float>(p.v.size()), offset);
  Buffer<KeySpan> spans(p.spans);
  Buffer<TreeAttentionArgs::Query> queries(p.queries);
  Buffer<TreeAttentionKeyPlan::Block> blocks(plan.blocks);
  Buffer<TreeAttentionKeyPlan::Visit> visits(plan.visits);
  a.q = q.data(), a.k = k.data(), a.v = v.data(), a.out = out.data(), a.lse = lse.data();
  a.spans = {spans.data(), spans.size()};
  a.queries = {queries.data(), queries.size()};
  const cuda::Status status =
      launch({.forward = a,
              .dout = dout.data(),
              .dout_stride = p.q_width(),
              .dq = dq.data(),
              .dq_stride = p.q_width(),
              .dk = dk.data(),
              .dv = dv.data(),
              .dkv_stride = p.kv_width()},
             {{blocks.data(), blocks.size()}, {visits.data(), visits.size()}, delta.data()});
  EXPECT_TRUE(status.ok()) << status.what;
  return {dq.values(), dk.values(), dv.values()};
}

inline GradientOutputs cpu_gradients(const Problem& p, const std::vector<float>& dout) {
  const Gradients r = run_backward(p, dout);
  return {r.dq, r.dk, r.dv};
}

}  // namespace temper::kernels::attention_case
