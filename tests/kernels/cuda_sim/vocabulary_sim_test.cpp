// Every word of the vocabulary in one kernel: the same bits in all thread orders, and all rows
// written. What each word gives is in warp_sim_test.cpp; a GPU must give the same bits
// (tests/gpu/twins_gpu_test.cpp).
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/cuda_sim/vocabulary.cuh"

namespace temper::kernels::cuda {
namespace {

TEST(VocabularySim, HasTheSameBitsInAllOrders) {
  std::vector<uint32_t> words(128);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint32_t>(i + 1) * 2654435761u;
  const std::vector<uint32_t> out = test::in_all_orders([&] {
    test::DeviceBuffer<uint32_t> in(words), rows(kVocabularyWords);
    EXPECT_TRUE(run_vocabulary(in.data(), rows.data(), nullptr).ok());
    return rows.values();
  });
  for (size_t row = 0; row < kVocabularyRows; ++row) {
    EXPECT_NE(out[row * 32 + 1], 0xffffffffu) << "row " << row << " was not written";
  }
}

}  // namespace
}  // namespace temper::kernels::cuda
