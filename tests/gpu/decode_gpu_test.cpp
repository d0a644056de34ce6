// Whole decode steps on a GPU, enqueued and replayed as a graph, against the CPU's ops.
#include <cstring>

#include "gpu/gpu_test_util.h"
#include "kernels/decode_case.h"
#include "kernels/host_ops.h"

namespace temper::kernels::cuda {
namespace {

using test::DecodeCase;
using test::DecodeOptions;
using test::GpuBuffer;
using test::HostBuffer;

using DecodeGpu = test::GpuTest;

void expect_the_texts_of_the_cpu(DecodeCase<GpuBuffer>& device, int64_t steps) {
  DecodeCase<HostBuffer> host(device.options);
  test::DecodeReference<HostBuffer> reference(host);
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t r = 0; r < test::kBatch; ++r) reference.step(r);
  }
  const std::vector<SampledToken> log = device.log->values();
  for (int64_t r = 0; r < test::kBatch; ++r) {
    const auto& drawn = reference.texts()[static_cast<size_t>(r)].drawn;
    for (size_t i = 0; i < drawn.size(); ++i) {
      const SampledToken& got = log[static_cast<size_t>(r * test::kLogRows) + i];
      EXPECT_EQ(std::memcmp(&got, &drawn[i], sizeof got), 0) << r << " " << i;
    }
  }
  for (size_t i = 0; i < device.caches.size(); ++i) {
    EXPECT_TRUE(test::same_bits(device.caches[i]->values(), host.caches[i]->values())) << i;
  }
}

TEST_F(DecodeGpu, EnqueuedStepsHaveTheBitsOfTheCpu) {
  for (const DecodeOptions& options :
       {DecodeOptions{}, DecodeOptions{.half = true, .qk_norm = true},
        DecodeOptions{.f16 = true, .bias = true}}) {
    DecodeCase<GpuBuffer> device(options);
    for (int step = 0; step < 8; ++step) ASSERT_TRUE(decode_step(device.args, nullptr).ok());
    expect_the_texts_of_the_cpu(device, 8);
  }
}

TEST_F(DecodeGpu, AReplayedGraphHasTheBitsOfTheCpuWithoutAWordFromTheHost) {
  DecodeCase<GpuBuffer> device({.half = true, .qk_norm = true});
  DecodeGraph graph;
  ASSERT_TRUE(graph.capture(device.args).ok());  // Runs nothing.
  EXPECT_EQ(graph.batch(), test::kBatch);
  for (int step = 0; step < 8; ++step) ASSERT_TRUE(graph.launch(nullptr).ok());
  expect_the_texts_of_the_cpu(device, 8);
}

TEST_F(DecodeGpu, RunCapturesAgainForAnotherBatch) {
  DecodeCase<GpuBuffer> device({});
  DecodeGraph graph;
  DecodeStepArgs first = device.args;
  first.rows.batch = 1;
  ASSERT_TRUE(graph.run(first, nullptr).ok());
  EXPECT_EQ(graph.batch(), 1);
  const auto state = device.sequences->values();
  EXPECT_EQ(state[0].drawn, 1);
  EXPECT_EQ(state[1].drawn, 0);
  ASSERT_TRUE(graph.run(device.args, nullptr).ok());
  EXPECT_EQ(graph.batch(), test::kBatch);
  EXPECT_EQ(device.sequences->values()[1].drawn, 1);
}

TEST_F(DecodeGpu, AFailedCaptureLeavesTheGraphUsable) {
  DecodeCase<GpuBuffer> device({});
  DecodeGraph graph;
  EXPECT_EQ(graph.launch(nullptr).code, kInvalidArgument);
  DecodeStepArgs broken = device.args;
  broken.model.head.f32 = nullptr;  // Fails behind the launches of all layers.
  EXPECT_FALSE(graph.capture(broken).ok());
  EXPECT_EQ(graph.batch(), 0);
  ASSERT_TRUE(graph.capture(device.args).ok());
  ASSERT_TRUE(graph.launch(nullptr).ok());
  expect_the_texts_of_the_cpu(device, 1);
}

}  // namespace
}  // namespace temper::kernels::cuda
