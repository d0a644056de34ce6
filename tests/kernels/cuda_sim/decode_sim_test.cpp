// Whole decode steps on the emulator against the CPU's ops, bit for bit.
#include <cstring>

#include "cuda/decode.cuh"
#include "cuda/embedding.cuh"
#include "cuda/linear.cuh"
#include "cuda/rms_norm.cuh"
#include "cuda/rope.cuh"
#include "cuda/sampling.cuh"
#include "cuda/tree_attention.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/decode_case.h"
#include "kernels/host_ops.h"

namespace temper::kernels::cuda {
namespace {

using test::DecodeCase;
using test::DecodeOptions;
using test::DeviceBuffer;
using test::HostBuffer;

struct SimOps {
  static Status embedding(const PackedWeight& w, const int32_t* ids, int64_t rows, float* out,
                          Stream stream) {
    return launch_embedding(w, {ids, static_cast<size_t>(rows)}, out, stream);
  }
  static Status rms_norm(const RmsNormArgs& a, Stream stream) { return launch_rms_norm(a, stream); }
  static Status linear(const LinearArgs& a, Stream stream) { return launch_linear(a, stream); }
  static Status rope(const RopeArgs& a, Stream stream) { return launch_rope(a, stream); }
  static Status tree_attention(const TreeAttentionArgs& a, Stream stream) {
    return launch_tree_attention(a, 1, stream);
  }
  static Status linear_sample(const LinearSampleArgs& a, float* workspace, Stream stream) {
    return launch_linear_sample(a, workspace, stream);
  }
};

bool same(const SampledToken& a, const SampledToken& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

/// All steps on both sides; the device's goes on after every sequence has stopped.
void expect_the_texts_of_the_cpu(const DecodeOptions& options, int64_t steps) {
  DecodeCase<HostBuffer> host(options);
  test::DecodeReference<HostBuffer> reference(host);
  DecodeCase<DeviceBuffer> device(options);
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t r = 0; r < test::kBatch; ++r) reference.step(r);
    ASSERT_TRUE(launch_decode_step<SimOps>(device.args, nullptr).ok());
  }
  const std::vector<SampledToken> log = device.log->values();
  const std::vector<DecodeSequence> state = device.sequences->values();
  for (int64_t r = 0; r < test::kBatch; ++r) {
    const auto& drawn = reference.texts()[static_cast<size_t>(r)].drawn;
    ASSERT_EQ(state[static_cast<size_t>(r)].drawn, std::ssize(drawn)) << r;
    EXPECT_EQ(state[static_cast<size_t>(r)].active, reference.done(r) ? 0 : 1) << r;
    for (size_t i = 0; i < drawn.size(); ++i) {
      EXPECT_TRUE(same(log[static_cast<size_t>(r * test::kLogRows) + i], drawn[i]))
          << r << " " << i;
    }
  }
  for (size_t i = 0; i < device.caches.size(); ++i) {
    EXPECT_TRUE(test::same_bits(device.caches[i]->values(), host.caches[i]->values())) << i;
  }
}

TEST(DecodeSim, AllStepsHaveTheBitsOfTheCpu) { expect_the_texts_of_the_cpu({}, 8); }
TEST(DecodeSim, WithNormsOfQueriesAndKeys) {
  expect_the_texts_of_the_cpu({.half = true, .qk_norm = true}, 3);
}
TEST(DecodeSim, WithBiases) { expect_the_texts_of_the_cpu({.f16 = true, .bias = true}, 3); }

TEST(DecodeSim, StopsAtAStopId) {
  DecodeCase<HostBuffer> host({});
  test::DecodeReference<HostBuffer> reference(host);
  for (int i = 0; i < 2; ++i) reference.step(0);
  const int32_t second = reference.texts()[0].drawn[1].id;
  ASSERT_NE(reference.texts()[0].drawn[0].id, second);
  expect_the_texts_of_the_cpu({.stop_id = second}, 4);
}

TEST(DecodeSim, EveryThreadOrderGivesTheSameTokens) {
  test::in_all_orders([] {
    DecodeCase<DeviceBuffer> device({.qk_norm = true});
    EXPECT_TRUE(launch_decode_step<SimOps>(device.args, nullptr).ok());
    std::vector<float> cache = device.caches.back()->values();
    for (const SampledToken& t : device.log->values()) {
      cache.insert(cache.end(), {static_cast<float>(t.id), t.logprob, t.policy_logprob});
    }
    return cache;
  });
}

// Hand-worked: a row at the end of a page whose next page lies elsewhere, one whose next page
// follows, one that has stopped.
TEST(DecodeSim, AdvanceOpensASpanWhereAPageDoesNotFollow) {
  const std::vector<DecodeSequence> state = {
      {7, 2, 9, 4, 0, 1, 0}, {8, 0, 9, 4, 2, 1, 0}, {9, 5, 5, 4, 0, 0, 0}};
  const auto [spans, slots, queries, ids, positions] = test::in_all_orders([&] {
    DeviceBuffer<DecodeSequence> sequences(state);
    DeviceBuffer<KeySpan> s(std::vector<KeySpan>{{4, 4}, {-1, -1}, {8, 4}, {-1, -1}, {40, 4}});
    DeviceBuffer<TreeAttentionArgs::Query> q(
        std::vector<TreeAttentionArgs::Query>{{0, 1, 4, 3}, {2, 3, 4, 3}, {4, 5, 4, 3}});
    DeviceBuffer<int64_t> rows(std::vector<int64_t>{7, 11, 43});
    DeviceBuffer<int32_t> id(std::vector<int32_t>{1, 2, 3}),
        position(std::vector<int32_t>{3, 3, 3});
    DeviceBuffer<int32_t> pages(std::vector<int32_t>{1, 7, 2, 3});
    DeviceBuffer<double> uniforms(3);
    DeviceBuffer<DecodeKey> key(std::vector<DecodeKey>{{5, 6}});
    DeviceBuffer<SampledToken> sampled(std::vector<SampledToken>{{50}, {60}, {70}}), log(30);
    DecodeRows r;
    r.batch = 3;
    r.ids = id.data();
    r.positions = position.data();
    r.slots = rows.data();
    r.queries = q.data();
    r.spans = s.data();
    r.span_count = 5;
    r.pages = pages.data();
    r.sequences = sequences.data();
    r.uniforms = uniforms.data();
    r.key = key.data();
    r.page_rows = 4;
    r.sampled = sampled.data();
    r.log = log.data();
    r.log_rows = 10;
    EXPECT_TRUE(launch_decode_advance(r, nullptr).ok());
    const auto bits = keyed_random(5, RngPurpose::kSample, 6, 7, 3);
    EXPECT_EQ(uniforms.values()[0], uniform_from_bits(bits[0], bits[1]));
    EXPECT_EQ(log.values()[2].id, 50);
    EXPECT_EQ(log.values()[10].id, 60);
    return std::tuple(s.values(), rows.values(), q.values(), id.values(), position.values());
  });
  EXPECT_EQ(spans[0].count, 4);
  EXPECT_EQ(spans[1].first_row, 28);  // Page 7.
  EXPECT_EQ(spans[1].count, 1);
  EXPECT_EQ(spans[2].count, 5);  // Page 3 follows page 2.
  EXPECT_EQ(spans[3].count, -1);
  EXPECT_EQ(spans[4].count, 4);
  EXPECT_EQ(slots, (std::vector<int64_t>{28, 12, 43}));
  EXPECT_EQ(ids, (std::vector<int32_t>{50, 60, 3}));
  EXPECT_EQ(positions, (std::vector<int32_t>{4, 4, 3}));
  EXPECT_EQ(queries[0].span_end, 2);
  EXPECT_EQ(queries[1].span_end, 3);
  EXPECT_EQ(queries[0].visible, 5);
  EXPECT_EQ(queries[2].visible, 4);
}

TEST(DecodeSim, KeyedDrawsAreThoseOfTheCore) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1} << 63 | 12345}) {
    for (const uint64_t sequence : {uint64_t{3}, uint64_t{5} << 40}) {
      const auto want = keyed_random(seed, RngPurpose::kSample, 17, sequence, 4321);
      const Words4 got =
          keyed_words(seed, static_cast<uint32_t>(RngPurpose::kSample), 17, sequence, 4321);
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(got.v[i], want[i]);
      EXPECT_EQ(uniform_from_words(got.v[0], got.v[1]), uniform_from_bits(want[0], want[1]));
    }
  }
}

TEST(DecodeSim, RefusesShapesThatDoNotFit) {
  DecodeCase<HostBuffer> c({});
  const auto what = [](const DecodeStepArgs& a) {
    return std::string(launch_decode_step<SimOps>(a, nullptr).what);
  };
  DecodeStepArgs a = c.args;
  a.rows.batch = 0;
  EXPECT_EQ(what(a), "[decode] batch must be >= 1");
  a = c.args;
  a.model.heads = 3;
  EXPECT_EQ(what(a), "[decode] expected kv_heads that divide heads and an even head_dim");
  a = c.args;
  a.model.intermediate = 47;
  EXPECT_EQ(what(a),
            "[decode] gate_up must be [2 intermediate, hidden] and down [hidden, intermediate]");
  a = c.args;
  c.layers[1].q_norm = c.layers[0].norm_in;
  EXPECT_EQ(what(a), "[decode] q_norm and k_norm come together");
}

TEST(DecodeSim, BuffersLieApartInTheBytesThatWereNamed) {
  DecodeCase<HostBuffer> c({});
  const auto& m = c.args.model;
  const size_t bytes = decode_buffer_bytes(m, 3);
  std::vector<unsigned char> memory(bytes + 256);
  unsigned char* base = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256);
  const DecodeBuffers b = place_decode_buffers(m, 3, base);
  const std::vector<std::pair<float*, int64_t>> parts = {
      {b.x, 3 * 32},       {b.h, 3 * 32},     {b.qkv, 3 * 64},
      {b.q, 3 * 32},       {b.k, 3 * 16},     {b.attention, 3 * 32},
      {b.gate_up, 3 * 96}, {b.gated, 3 * 48}, {b.logits, 2 * 3 * 96}};
  auto end = reinterpret_cast<uintptr_t>(base);
  for (const auto& [p, floats] : parts) {
    EXPECT_GE(reinterpret_cast<uintptr_t>(p), end);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 256, 0u);
    end = reinterpret_cast<uintptr_t>(p + floats);
  }
  EXPECT_LE(end, reinterpret_cast<uintptr_t>(base) + bytes);
}

}  // namespace
}  // namespace temper::kernels::cuda
