// Kernels run by a GPU and by the emulator from one source: the same bits. This is what ties the
// emulator to hardware.
#include "gpu/gpu_test_util.h"
#include "gpu/twins.h"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/cuda_sim/softmax.cuh"
#include "kernels/cuda_sim/vocabulary.cuh"
#include "kernels/kernel_test_util.h"

namespace temper::test {
namespace {

using TwinsGpu = GpuTest;

TEST_F(TwinsGpu, EveryWordOfTheVocabularyIsWhatTheEmulatorSays) {
  std::vector<uint32_t> words(128);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint32_t>(i + 1) * 2654435761u;
  DeviceBuffer<uint32_t> in(words), out(kernels::cuda::kVocabularyWords);
  ASSERT_TRUE(kernels::cuda::run_vocabulary(in.data(), out.data(), nullptr).ok());
  const std::vector<uint32_t> want = out.values();
  GpuBuffer<uint32_t> gpu_in(words), gpu_out(kernels::cuda::kVocabularyWords);
  ASSERT_TRUE(vocabulary_on_device(gpu_in.data(), gpu_out.data(), nullptr).ok());
  const std::vector<uint32_t> got = gpu_out.values();
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i], want[i]) << "row " << i / 32 << " lane " << i % 32;
  }
}

TEST_F(TwinsGpu, SoftmaxHasTheEmulatorsBits) {
  for (const int64_t n : {1, 33, 1025, 70000}) {
    if (n > 100 && smallest_sizes()) continue;
    const int64_t rows = 3;
    const std::vector<float> x = random_floats(rows * n, static_cast<uint32_t>(n), 5.0f);
    DeviceBuffer<float> in(x), out(x.size()), sums(static_cast<size_t>(rows));
    ASSERT_TRUE(
        kernels::cuda::softmax({in.data(), out.data(), sums.data(), rows, n}, nullptr).ok());
    GpuBuffer<float> gpu_in(x), gpu_out(x.size()), gpu_sums(static_cast<size_t>(rows));
    ASSERT_TRUE(
        softmax_on_device({gpu_in.data(), gpu_out.data(), gpu_sums.data(), rows, n}, nullptr).ok());
    EXPECT_TRUE(same_bits(gpu_out.values(), out.values())) << n;
    EXPECT_TRUE(same_bits(gpu_sums.values(), sums.values())) << n;
  }
}

}  // namespace
}  // namespace temper::test
