// The device probe: that it does not say "no GPU" where there is one, and that it says why.
#include <cstdlib>
#include <filesystem>

#include "gpu/gpu_test_util.h"

namespace temper::test {
namespace {

TEST(GpuProbe, GivesAReasonExactlyWhereThereIsNoDevice) {
  EXPECT_EQ(std::string(kernels::cuda::unavailable_reason()).empty(), kernels::cuda::available());
  EXPECT_GE(kernels::cuda::device_count(), 0);
}

/// The driver's own files are evidence that does not come from the probe.
TEST(GpuProbe, FindsTheDeviceOfALoadedDriver) {
  if (std::string(kernels::cuda::unavailable_reason()) == "built without CUDA") {
    GTEST_SKIP() << "no CUDA device: built without CUDA";
  }
  const char* hidden = std::getenv("CUDA_VISIBLE_DEVICES");
  if (hidden != nullptr) GTEST_SKIP() << "no CUDA device: CUDA_VISIBLE_DEVICES is set";
  EXPECT_EQ(kernels::cuda::available(), std::filesystem::exists("/dev/nvidia0"))
      << kernels::cuda::unavailable_reason();
}

using MemoryGpu = GpuTest;

TEST_F(MemoryGpu, ComesBackAndShowsStrayWrites) {
  GpuBuffer<float> buffer(std::vector<float>{1, 2, 3}, 1);
  EXPECT_EQ(buffer.values(), (std::vector<float>{1, 2, 3}));
  const float zero = 0;
  copy_to_device(buffer.data() + 3, &zero, sizeof zero);
  std::vector<unsigned char> behind(4);
  copy_to_host(behind.data(), buffer.data() + 3, 4);
  EXPECT_EQ(behind[0], 0);  // values() would now fail the test.
}

}  // namespace
}  // namespace temper::test
