#include <cuda_runtime.h>

#include "temper/kernels/cuda.h"

namespace temper::kernels::cuda {

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();  // Or the next launch would report it as its own.
  return 0;
}

const char* unavailable_reason() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return count > 0 ? "" : "the driver reports no device";
}

}  // namespace temper::kernels::cuda
