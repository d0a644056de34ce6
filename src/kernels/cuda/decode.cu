#include "cuda/decode.cuh"
#include "temper/kernels/embedding.h"

namespace temper::kernels::cuda {
namespace {

/// The public ops.
struct PublicOps {
  static Status embedding(const PackedWeight& w, const int32_t* ids, int64_t rows, float* out,
                          Stream stream) {
    return cuda::embedding(w, {ids, static_cast<size_t>(rows)}, out, stream);
  }
  static Status rms_norm(const RmsNormArgs& a, Stream stream) { return cuda::rms_norm(a, stream); }
  static Status linear(const LinearArgs& a, Stream stream) { return cuda::linear(a, stream); }
  static Status rope(const RopeArgs& a, Stream stream) { return cuda::rope(a, stream); }
  static Status tree_attention(const TreeAttentionArgs& a, Stream stream) {
    return cuda::tree_attention(a, 1, stream);
  }
  static Status linear_sample(const LinearSampleArgs& a, float* workspace, Stream stream) {
    return cuda::linear_sample(a, workspace, stream);
  }
};

}  // namespace

Status decode_step(const DecodeStepArgs& args, Stream stream) {
  return launch_decode_step<PublicOps>(args, stream);
}

Status decode_advance(const DecodeRows& rows, Stream stream) {
  return launch_decode_advance(rows, stream);
}

struct DecodeGraph::Impl {
  cudaStream_t stream = nullptr;  // The default stream cannot be captured.
  cudaGraphExec_t exec = nullptr;
  int64_t batch = 0;

  ~Impl() {
    drop();
    if (stream != nullptr) (void)cudaStreamDestroy(stream);
  }
  void drop() {
    if (exec != nullptr) (void)cudaGraphExecDestroy(exec);
    exec = nullptr;
    batch = 0;
  }
  /// The graph of a step. A failed step ends its capture too, or the stream would stay unusable.
  Status record(const DecodeStepArgs& args, cudaGraph_t* graph) {
    if (stream == nullptr) {
      const Status made = status_of(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      if (!made.ok()) return made;
    }
    const Status begun =
        status_of(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    if (!begun.ok()) return begun;
    const Status step = decode_step(args, stream);
    const Status ended = status_of(cudaStreamEndCapture(stream, graph));
    return step.ok() ? ended : step;
  }
};

DecodeGraph::DecodeGraph() : impl_(std::make_unique<Impl>()) {}
DecodeGraph::~DecodeGraph() = default;

Status DecodeGraph::capture(const DecodeStepArgs& args) {
  impl_->drop();
  cudaGraph_t graph = nullptr;
  Status status = impl_->record(args, &graph);
  if (status.ok()) status = status_of(cudaGraphInstantiate(&impl_->exec, graph, 0));
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  if (!status.ok()) {
    impl_->drop();
    (void)cudaGetLastError();  // Reported here; the next launch must not report it again.
    return status;
  }
  impl_->batch = args.rows.batch;
  return {};
}

Status DecodeGraph::launch(Stream stream) {
  if (impl_->exec == nullptr) return invalid_argument("[decode] launch before capture");
  return status_of(cudaGraphLaunch(impl_->exec, stream));
}

Status DecodeGraph::run(const DecodeStepArgs& args, Stream stream) {
  if (impl_->exec == nullptr || impl_->batch != args.rows.batch) {
    const Status status = capture(args);
    if (!status.ok()) return status;
  }
  return launch(stream);
}

int64_t DecodeGraph::batch() const { return impl_->batch; }

}  // namespace temper::kernels::cuda
