#include "temper/kernels/cublaslt.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <vector>

#include "cuda/cublaslt.cuh"
#include "temper/kernels/swiglu.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kCandidates = 16;

inline Status lt_status(cublasStatus_t s) {
  if (s == CUBLAS_STATUS_SUCCESS) return {};
  // cuBLAS numbers its errors as the runtime does not: shifted, so that neither passes for the
  // other.
  return {10000 + static_cast<int>(s), cublasLtGetStatusString(s)};
}

/// Device memory for as long as it is in scope, or the object lives.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { (void)cudaFree(p_); }

  /// Keeps what is there if it is large enough.
  Status ensure(size_t bytes) {
    if (bytes <= bytes_) return {};
    (void)cudaFree(p_);
    p_ = nullptr;
    bytes_ = 0;
    const Status status = status_of(cudaMalloc(&p_, bytes));
    if (status.ok()) bytes_ = bytes;
    return status;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(p_);
  }

 private:
  void* p_ = nullptr;
  size_t bytes_ = 0;
};

/// Column-major descriptions of y^T [n, rows] = W [n, k] x^T [k, rows].
/// They live in the object, so that a product allocates nothing.
class Problem {
 public:
  Problem() = default;
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  Status open(int64_t n, int64_t k, int64_t rows, int64_t y_stride) {
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const auto un = static_cast<uint64_t>(n), uk = static_cast<uint64_t>(k);
    const cublasStatus_t steps[] = {
        cublasLtMatmulDescInit(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        cublasLtMatrixLayoutInit(&w_, CUDA_R_16BF, uk, un, k),
        cublasLtMatrixLayoutInit(&x_, CUDA_R_16BF, uk, static_cast<uint64_t>(rows), k),
        cublasLtMatrixLayoutInit(&y_, CUDA_R_32F, un, static_cast<uint64_t>(rows), y_stride),
        cublasLtMatmulDescSetAttribute(&operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                       sizeof transpose)};
    for (const cublasStatus_t s : steps) {
      if (s != CUBLAS_STATUS_SUCCESS) return lt_status(s);
    }
    return {};
  }
  cublasLtMatmulDesc_t operation() { return &operation_; }
  cublasLtMatrixLayout_t w() { return &w_; }
  cublasLtMatrixLayout_t x() { return &x_; }
  cublasLtMatrixLayout_t y() { return &y_; }

 private:
  cublasLtMatmulDescOpaque_t operation_;
  cublasLtMatrixLayoutOpaque_t w_, x_, y_;
};

/// Whether an algorithm adds partial sums of k in one order that no shape changes, by its own
/// words.
inline bool one_pass_over_k(const cublasLtMatmulAlgo_t& algo) {
  int32_t splits = 0;
  uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_MASK;
  size_t written = 0;
  const cublasStatus_t a = cublasLtMatmulAlgoConfigGetAttribute(
      &algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written);
  const cublasStatus_t b = cublasLtMatmulAlgoConfigGetAttribute(
      &algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written);
  // A stream-K algorithm says 0 or a negative number of splits: it takes them from the shape.
  return a == CUBLAS_STATUS_SUCCESS && b == CUBLAS_STATUS_SUCCESS && splits == 1 &&
         scheme == CUBLASLT_REDUCTION_SCHEME_NONE;
}

struct Pin {
  int64_t n, k, most_rows;
  cublasLtMatmulAlgo_t algo;
  const char* reason;  // Empty: use `algo`.
};

/// The memory of one proof.
struct Proof {
  DeviceMemory x, first, y, count;
};

}  // namespace

struct LtLinear::Impl {
  cublasLtHandle_t handle = nullptr;
  std::vector<Pin> pins;
  DeviceMemory rounded;

  ~Impl() {
    if (handle != nullptr) cublasLtDestroy(handle);
  }

  const Pin* find(int64_t n, int64_t k) const {
    const auto it =
        std::find_if(pins.begin(), pins.end(), [&](const Pin& p) { return p.n == n && p.k == k; });
    return it == pins.end() ? nullptr : &*it;
  }

  /// y (+)= x W^T for rounded activations.
  Status multiply(const Pin& pin, const uint16_t* w, const uint16_t* x, const RowsOut& y,
                  Stream stream) const {
    Problem p;
    const Status status = p.open(pin.n, pin.k, y.rows, y.stride);
    if (!status.ok()) return status;
    const float one = 1.0f, beta = y.add ? 1.0f : 0.0f;
    return lt_status(cublasLtMatmul(handle, p.operation(), &one, w, p.w(), x, p.x(), &beta, y.p,
                                    p.y(), y.p, p.y(), &pin.algo, nullptr, 0, stream));
  }

  /// Candidates for the largest shape, the library's favourite first.
  int candidates(const Pin& pin, std::array<cublasLtMatmulHeuristicResult_t, kCandidates>& out) {
    Problem p;
    cublasLtMatmulPreferenceOpaque_t wish;
    if (!p.open(pin.n, pin.k, pin.most_rows, pin.n).ok()) return 0;
    if (cublasLtMatmulPreferenceInit(&wish) != CUBLAS_STATUS_SUCCESS) return 0;
    const size_t workspace = 0;
    const uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = 16;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const void* v, size_t size) {
      return cublasLtMatmulPreferenceSetAttribute(&wish, what, v, size) == CUBLAS_STATUS_SUCCESS;
    };
    bool good = set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace) &&
                set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme, sizeof scheme);
    for (const auto what :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      good = good && set(what, &alignment, sizeof alignment);
    }
    int found = 0;
    if (!good ||
        cublasLtMatmulAlgoGetHeuristic(handle, p.operation(), p.w(), p.x(), p.y(), p.y(), &wish,
                                       kCandidates, out.data(), &found) != CUBLAS_STATUS_SUCCESS) {
      return 0;
    }
    return found;
  }

  /// Whether `pin.algo` gives every row of every shape the same bits.
  Status prove(const Pin& pin, const LtWeight& w, const Proof& m, Stream stream,
               bool* holds) const {
    *holds = false;
    Status status = status_of(cudaMemsetAsync(m.count.as<void>(), 0, sizeof(unsigned), stream));
    const auto run = [&](float* y, int64_t rows) {
      return multiply(pin, w.rows, m.x.as<uint16_t>(),
                      {y, pin.n, rows, pin.n, nullptr, false, true}, stream);
    };
    if (status.ok()) status = run(m.first.as<float>(), kPatterns);
    if (!status.ok()) return status;
    for (int64_t rows = 1;; rows = rows < 4 ? rows + 1 : rows * 2) {
      rows = std::min(rows, pin.most_rows);
      if (!run(m.y.as<float>(), rows).ok()) return {};  // It cannot do this shape at all.
      status = launch(count_differences, element_blocks(rows * pin.n), kElementThreads, 0, stream,
                      m.y.as<const float>(), m.first.as<const float>(), rows, pin.n,
                      m.count.as<unsigned>());
      if (!status.ok()) return status;
      if (rows == pin.most_rows) break;
    }
    unsigned differences = 1;
    status = status_of(cudaMemcpyAsync(&differences, m.count.as<void>(), sizeof differences,
                                       cudaMemcpyDeviceToHost, stream));
    if (status.ok()) status = status_of(cudaStreamSynchronize(stream));
    *holds = status.ok() && differences == 0;
    return status;
  }

  Status choose(const LtWeight& w, Stream stream, Pin* pin) {
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found;
    const int count = candidates(*pin, found);
    const auto rows = static_cast<size_t>(std::max<int64_t>(pin->most_rows, kPatterns));
    const auto n = static_cast<size_t>(pin->n), k = static_cast<size_t>(pin->k);
    Proof m;
    for (const Status& s :
         {m.x.ensure(rows * k * sizeof(uint16_t)), m.y.ensure(rows * n * sizeof(float)),
          m.first.ensure(kPatterns * n * sizeof(float)), m.count.ensure(sizeof(unsigned)),
          rounded.ensure(rows * k * sizeof(uint16_t))}) {
      if (!s.ok()) return s;
    }
    const auto elements = static_cast<int64_t>(rows * k);
    const Status filled = launch(fill_patterns, element_blocks(elements), kElementThreads, 0,
                                 stream, m.x.as<uint16_t>(), static_cast<int64_t>(rows), pin->k);
    if (!filled.ok()) return filled;
    for (int i = 0; i < count; ++i) {
      const auto& candidate = found[static_cast<size_t>(i)];
      if (candidate.state != CUBLAS_STATUS_SUCCESS || candidate.workspaceSize > 0 ||
          !one_pass_over_k(candidate.algo)) {
        continue;
      }
      pin->algo = candidate.algo;
      bool holds = false;
      const Status status = prove(*pin, w, m, stream, &holds);
      if (!status.ok()) return status;
      if (holds) {
        pin->reason = "";
        return {};
      }
    }
    pin->reason = "no algorithm of cuBLASLt gives a row the same bits in every shape";
    return {};
  }
};

LtLinear::LtLinear() : impl_(std::make_unique<Impl>()) {}
LtLinear::~LtLinear() = default;

Status LtLinear::pin(const LtWeight& weight, int64_t most_rows, Stream stream) {
  if (most_rows < 1) return invalid_argument("[cublaslt] most_rows must be >= 1");
  if (weight.n < 1 || weight.k < 1) return invalid_argument("[cublaslt] n and k must be >= 1");
  if (impl_->find(weight.n, weight.k) != nullptr) return {};  // A choice is kept.
  if (impl_->handle == nullptr) {
    const Status status = lt_status(cublasLtCreate(&impl_->handle));
    if (!status.ok()) return status;
  }
  Pin pin{weight.n, weight.k, most_rows, {}, ""};
  if (weight.n % 8 != 0 || weight.k % 8 != 0) {
    pin.reason = "n and k must be multiples of 8";
  } else {
    if (weight.rows == nullptr || reinterpret_cast<uintptr_t>(weight.rows) % 16 != 0) {
      return invalid_argument("[cublaslt] weight rows must lie at a multiple of 16 bytes");
    }
    const Status status = impl_->choose(weight, stream, &pin);
    if (!status.ok()) return status;
  }
  impl_->pins.push_back(pin);
  return {};
}

bool LtLinear::pinned(int64_t n, int64_t k) const { return *reason(n, k) == 0; }

const char* LtLinear::reason(int64_t n, int64_t k) const {
  const Pin* pin = impl_->find(n, k);
  return pin == nullptr ? "pin was not called for this shape" : pin->reason;
}

Status LtLinear::linear(const LinearArgs& g, const uint16_t* rows, Stream stream) {
  const Pin* pin = impl_->find(g.weight.n, g.weight.k);
  const bool fits = pin != nullptr && *pin->reason == 0 && rows != nullptr && g.rows > 0 &&
                    g.rows <= pin->most_rows && g.weight.product == Product::kDot &&
                    rows_aligned(g.y, g.y_stride);
  if (!fits) return cuda::linear(g, stream);
  const int64_t n = pin->n;
  Status status =
      launch(round_rows, element_blocks(g.rows * pin->k / 2), kElementThreads, 0, stream,
             view_rows(g.x, g.x_stride, g.rows, pin->k), impl_->rounded.as<uint32_t>());
  if (!status.ok()) return status;
  status = impl_->multiply(*pin, rows, impl_->rounded.as<uint16_t>(),
                           {g.y, g.y_stride, g.rows, n, nullptr, g.add, true}, stream);
  if (status.ok() && g.bias != nullptr) {
    status = launch(add_bias, element_blocks(g.rows * n), kElementThreads, 0, stream, g.y,
                    g.y_stride, g.rows, n, g.bias);
  }
  if (!status.ok() || g.swiglu == nullptr) return status;
  return swiglu(g.y, g.swiglu, g.rows, n / 2, stream);
}

}  // namespace temper::kernels::cuda

#else  // A toolkit without cuBLASLt: every product runs on our own kernel.

namespace temper::kernels::cuda {

struct LtLinear::Impl {};

LtLinear::LtLinear() = default;
LtLinear::~LtLinear() = default;
Status LtLinear::pin(const LtWeight&, int64_t, Stream) { return {}; }
bool LtLinear::pinned(int64_t, int64_t) const { return false; }
const char* LtLinear::reason(int64_t, int64_t) const { return "built without cuBLASLt"; }
Status LtLinear::linear(const LinearArgs& args, const uint16_t*, Stream stream) {
  return cuda::linear(args, stream);
}

}  // namespace temper::kernels::cuda

#endif
