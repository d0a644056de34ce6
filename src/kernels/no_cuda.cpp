// Every function of namespace cuda for a build without CUDA.
#include "temper/kernels/cuda.h"

namespace temper::kernels::cuda {
namespace {
constexpr const char* kReason = "built without CUDA";
}  // namespace

int device_count() { return 0; }
const char* unavailable_reason() { return kReason; }

}  // namespace temper::kernels::cuda
