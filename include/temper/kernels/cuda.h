#pragma once

/// The CUDA runtime's stream handle, declared here so that no CUDA header is needed.
typedef struct CUstream_st* cudaStream_t;

namespace temper::kernels::cuda {

/// The CUDA side of the kernels: every function of this namespace takes pointers to device memory
/// and a stream, launches, and returns without waiting. None throws, allocates or synchronises;
/// workspace is an argument. Shapes are checked before anything is launched. In a build without
/// CUDA the functions exist and return `kNoCuda`.

/// Null is the default stream.
using Stream = cudaStream_t;

inline constexpr int kNoCuda = -1;          ///< Built without CUDA.
inline constexpr int kInvalidArgument = 1;  ///< Refused before launching (cudaErrorInvalidValue).

/// Outcome of a launch. Errors that happen while a kernel runs show up in a later call, as CUDA
/// reports them.
struct [[nodiscard]] Status {
  int code = 0;           ///< 0, a cudaError_t, or kNoCuda.
  const char* what = "";  ///< Static text: "[op] expectation", or CUDA's own name of the error.
  [[nodiscard]] bool ok() const { return code == 0; }
};

/// A refusal before launch; `what` must outlive the status.
inline Status invalid_argument(const char* what) { return {kInvalidArgument, what}; }

/// Devices that this process can use; 0 in a build without CUDA, without a driver, or without a
/// device. Creates no context. Never throws.
[[nodiscard]] int device_count();

/// Why `device_count()` is 0, as static text ("built without CUDA", "no CUDA-capable device is
/// detected", ...); empty where there is a device.
[[nodiscard]] const char* unavailable_reason();

/// device_count() > 0.
[[nodiscard]] inline bool available() { return device_count() > 0; }

}  // namespace temper::kernels::cuda
