// Every function of namespace cuda for a build without CUDA.
#include "temper/kernels/adamw.h"
#include "temper/kernels/cublaslt.h"
#include "temper/kernels/cuda.h"
#include "temper/kernels/decode.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/gae.h"
#include "temper/kernels/group_advantages.h"
#include "temper/kernels/kl_penalty.h"
#include "temper/kernels/linear.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/masked_stats.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/sampling.h"
#include "temper/kernels/swiglu.h"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels::cuda {
namespace {
constexpr const char* kReason = "built without CUDA";
constexpr Status kRefusal{kNoCuda, kReason};
}  // namespace

int device_count() { return 0; }
const char* unavailable_reason() { return kReason; }

Status adamw(const AdamWArgs&, const float*, Stream) { return kRefusal; }
Status sum_of_squares(const float*, int64_t, double*, double*, Stream) { return kRefusal; }
Status clip_factor(const ClipArgs&, Stream) { return kRefusal; }
Status embedding(const PackedWeight&, std::span<const int32_t>, float*, Stream) { return kRefusal; }
Status gae(const GaeArgs&, Stream) { return kRefusal; }
Status group_advantages(const GroupAdvantagesArgs&, Stream) { return kRefusal; }
Status kl_penalty(const KlPenaltyArgs&, Stream) { return kRefusal; }
Status shape_rewards(const ShapeRewardsArgs&, Stream) { return kRefusal; }
Status linear(const LinearArgs&, Stream) { return kRefusal; }
Status linear_backward_input(const LinearBackwardInputArgs&, Stream) { return kRefusal; }
Status linear_backward_weight(const LinearBackwardWeightArgs&, Stream) { return kRefusal; }
Status linear_logprob(const LinearLogprobArgs&, float*, Stream) { return kRefusal; }
Status linear_logprob_backward(const LinearLogprobBackwardArgs&, float*, Stream) {
  return kRefusal;
}
Status linear_logprob_train(const LinearLogprobTrainArgs&, float*, Stream) { return kRefusal; }
Status linear_sample(const LinearSampleArgs&, float*, Stream) { return kRefusal; }
struct LtLinear::Impl {};
LtLinear::LtLinear() = default;
LtLinear::~LtLinear() = default;
Status LtLinear::pin(const LtWeight&, int64_t, Stream) { return kRefusal; }
bool LtLinear::pinned(int64_t, int64_t) const { return false; }
const char* LtLinear::reason(int64_t, int64_t) const { return kReason; }
Status LtLinear::linear(const LinearArgs&, const uint16_t*, Stream) { return kRefusal; }
Status decode_step(const DecodeStepArgs&, Stream) { return kRefusal; }
Status decode_advance(const DecodeRows&, Stream) { return kRefusal; }
struct DecodeGraph::Impl {};
DecodeGraph::DecodeGraph() = default;
DecodeGraph::~DecodeGraph() = default;
Status DecodeGraph::capture(const DecodeStepArgs&) { return kRefusal; }
Status DecodeGraph::launch(Stream) { return kRefusal; }
Status DecodeGraph::run(const DecodeStepArgs&, Stream) { return kRefusal; }
int64_t DecodeGraph::batch() const { return 0; }
Status masked_stats(const MaskedStatsArgs&, Stream) { return kRefusal; }
Status whiten(const WhitenArgs&, Stream) { return kRefusal; }
Status rms_norm(const RmsNormArgs&, Stream) { return kRefusal; }
Status rms_norm_backward(const RmsNormBackwardArgs&, Stream) { return kRefusal; }
Status rope(const RopeArgs&, Stream) { return kRefusal; }
Status swiglu(const float*, float*, int64_t, int64_t, Stream) { return kRefusal; }
Status swiglu_backward(const float*, const float*, float*, int64_t, int64_t, Stream) {
  return kRefusal;
}
Status tree_attention(const TreeAttentionArgs&, int64_t, Stream) { return kRefusal; }
Status tree_attention_backward(const TreeAttentionBackwardArgs&, const TreeAttentionWorkspace&,
                               Stream) {
  return kRefusal;
}
Status add_inplace(float*, const float*, int64_t, Stream) { return kRefusal; }

}  // namespace temper::kernels::cuda
