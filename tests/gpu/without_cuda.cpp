// The tests' device functions for a build without CUDA, where every test that calls them skips.
#include <stdexcept>

#include "gpu/gpu_test_util.h"
#include "gpu/twins.h"

namespace temper::test {
namespace {
[[noreturn]] void refuse() { throw std::logic_error("built without CUDA"); }
}  // namespace

void* device_allocate(size_t) { refuse(); }
void device_free(void*) {}
void copy_to_device(void*, const void*, size_t) { refuse(); }
void copy_to_host(void*, const void*, size_t) { refuse(); }
std::string device_error() { return ""; }

kernels::cuda::Status softmax_on_device(const SoftmaxPointers&, kernels::cuda::Stream) { refuse(); }
kernels::cuda::Status vocabulary_on_device(const uint32_t*, uint32_t*, kernels::cuda::Stream) {
  refuse();
}

}  // namespace temper::test
