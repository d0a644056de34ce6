// Thousands of random rows of logits, with ties, -inf and parameters at the ends of their ranges:
// the emulated kernels and the CPU agree in every bit. A head over hidden rows of a single 1 has
// the logits that are wanted.
#include <algorithm>

#include "cuda/linear_logprob.cuh"
#include "cuda/sampling.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/head_cases.h"

namespace temper::kernels::cuda {
namespace {

using Floats = std::vector<float>;

/// ThreadSanitizer gets a tenth of the cases.
constexpr uint64_t kShare = test::tsan_size(1, 10);

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  /// In [0, n).
  int64_t below(int64_t n) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<int64_t>((state_ >> 33) % static_cast<uint64_t>(n));
  }
  /// In [0, 1), of 31 bits.
  double uniform() { return static_cast<double>(below(int64_t{1} << 31)) * 0x1p-31; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[below(std::ssize(values))];
  }

 private:
  uint64_t state_;
};

/// The first of them is not -inf.
Floats random_logits(Dice& dice, int64_t n) {
  const double scale = dice.one_of({0.01, 1.0, 5.0, 30.0, 1e4});
  const int64_t kind = dice.below(4);
  Floats z(static_cast<size_t>(n));
  for (float& v : z) {
    const double x = scale * (2 * dice.uniform() - 1);
    v = static_cast<float>(kind == 1 ? std::round(2 * x / scale) * scale : x);  // Ties.
    if (kind == 2 && dice.below(3) > 0) v = -INFINITY;
    if (kind == 3 && dice.below(2) > 0) v = static_cast<float>(scale);
    v += 0.0f;  // A product that is -0 becomes 0 on its way into the output.
  }
  if (z[0] == -INFINITY) z[0] = 0;
  return z;
}

int64_t random_vocabulary(Dice& dice) {
  return dice.below(8) == 0 ? 1000 + dice.below(1200) : 1 + dice.below(150);
}

SamplingParams random_params(Dice& dice, int64_t n) {
  SamplingParams p;
  p.temperature = dice.one_of({0.0f, 1e-3f, 0.7f, 1.0f, 1.0f, 2.5f, 100.0f});
  p.top_k = dice.one_of<int64_t>({0, 0, 1, 2, 1 + n / 2, n, int64_t{1} << 40});
  p.top_p = dice.one_of({1.0f, 1.0f, 0.9999999f, 0.95f, 0.5f, 0.01f, 1e-20f});
  p.min_p = dice.one_of({0.0f, 0.0f, 1e-9f, 0.05f, 0.5f, 1.0f});
  p.repetition_penalty = dice.one_of({1.0f, 1.0f, 1.2f, 0.5f, 10.0f});
  return p;
}

/// Draws from one row of logits.
struct DrawCase {
  Floats logits;
  int64_t allowed = 0, support = 0;
  float softcap = 0;
  std::vector<SamplingParams> params;
  std::vector<double> uniforms;
  std::vector<int32_t> seen;
  std::vector<int64_t> seen_begin = {0};
};

DrawCase random_draws(Dice& dice, int64_t n, int rows) {
  DrawCase c;
  c.logits = random_logits(dice, n);
  c.allowed = dice.below(2) == 0 ? n : 1 + dice.below(n);
  c.support = dice.below(2) == 0 ? 0 : 1 + dice.below(n);
  c.softcap = dice.one_of({0.0f, 0.0f, 15.0f});
  for (int r = 0; r < rows; ++r) {
    c.params.push_back(random_params(dice, n));
    c.uniforms.push_back(dice.one_of({0.0, dice.uniform(), dice.uniform(), 1 - 0x1p-53}));
    for (int64_t i = dice.below(9); i > 0; --i) {
      c.seen.push_back(static_cast<int32_t>(dice.below(c.allowed)));
    }
    c.seen_begin.push_back(std::ssize(c.seen));
  }
  return c;
}

Floats draw_on_cpu(DrawCase& c) {
  const int64_t n = std::ssize(c.logits), rows = std::ssize(c.params);
  const test::HeadPanels panels(c.logits, n, 1, false);
  test::HeadPanels::On<test::HostHead> head(panels);
  const Floats ones(c.params.size(), 1.0f);
  std::vector<SampledToken> out(c.params.size());
  test::HostHead::sample({.hidden = ones.data(),
                          .hidden_stride = 1,
                          .head = head.weight(),
                          .allowed = c.allowed,
                          .rows = rows,
                          .params = c.params.data(),
                          .uniforms = c.uniforms.data(),
                          .seen = c.seen.data(),
                          .seen_begin = c.seen_begin.data(),
                          .out = out.data(),
                          .softcap = c.softcap,
                          .support = c.support});
  return test::flat(out);
}

/// One copy of the logits a row, -inf or not in the padding: it is not read.
test::DeviceBuffer<float> tile_of(const Floats& logits, int64_t rows, int64_t padded) {
  Floats all(static_cast<size_t>(rows * padded), 77.0f);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy(logits.begin(), logits.end(), all.begin() + r * padded);
  }
  return test::DeviceBuffer<float>(all);
}

Floats draw_on_emulator(const DrawCase& c, int threads) {
  const int64_t n = std::ssize(c.logits), rows = std::ssize(c.params);
  const int64_t padded = panel_count(n) * kPanel;
  auto z = tile_of(c.logits, rows, padded);
  test::DeviceBuffer<float> scratch(static_cast<size_t>(rows * padded));
  test::DeviceBuffer<SamplingParams> params(c.params);
  test::DeviceBuffer<double> uniforms(c.uniforms);
  test::DeviceBuffer<int32_t> seen(c.seen);
  test::DeviceBuffer<int64_t> seen_begin(c.seen_begin);
  test::DeviceBuffer<SampledToken> out(c.params.size());
  const LinearSampleArgs args{.head = {nullptr, nullptr, n, 1},
                              .allowed = c.allowed,
                              .rows = rows,
                              .params = params.data(),
                              .uniforms = uniforms.data(),
                              .seen = seen.data(),
                              .seen_begin = seen_begin.data(),
                              .out = out.data(),
                              .softcap = c.softcap,
                              .support = c.support};
  EXPECT_TRUE(
      launch_draw_rows(args, {z.data(), scratch.data(), padded, 0, rows}, threads, nullptr).ok());
  z.values();
  scratch.values();
  return test::flat(out.values());
}

TEST(SamplingFuzzSim, DrawsTheTokensOfTheCpu) {
  std::vector<int> drawn(3);  // Of the first id, of the last allowed, of another.
  for (uint64_t seed = 0; seed < 400 / kShare; ++seed) {
    Dice dice(seed);
    DrawCase c = random_draws(dice, random_vocabulary(dice), 6);
    const Floats want = draw_on_cpu(c);
    ASSERT_TRUE(test::identical(draw_on_emulator(c, 32), want)) << "seed " << seed;
    for (size_t i = 0; i < want.size(); i += 5) {
      const auto last = static_cast<float>(c.allowed - 1);
      ++drawn[want[i] == 0 ? 0 : want[i] == last ? 1 : 2];
    }
  }
  for (const int n : drawn)
    EXPECT_GT(n, kShare == 1 ? 100 : 0);  // The cases are not all alike.
}

TEST(SamplingFuzzSim, InAllOrdersAndBlocksOfAnySize) {
  for (uint64_t seed = 1000; seed < 1000 + (8 + kShare - 1) / kShare; ++seed) {
    Dice dice(seed);
    DrawCase c = random_draws(dice, 900 + dice.below(300), 3);
    const Floats want = draw_on_cpu(c);
    const auto got = test::in_all_orders([&] { return draw_on_emulator(c, 64); });
    ASSERT_TRUE(test::identical(got, want)) << "seed " << seed;
    for (const int threads : {128, 256, 512}) {
      ASSERT_TRUE(test::identical(draw_on_emulator(c, threads), want)) << threads;
    }
  }
}

void expect_draws_of_cpu(DrawCase c, const std::vector<double>& uniforms) {
  c.allowed = std::ssize(c.logits);
  c.uniforms = uniforms;
  c.params.resize(uniforms.size());
  c.seen_begin.resize(uniforms.size() + 1);
  ASSERT_TRUE(test::identical(draw_on_emulator(c, 32), draw_on_cpu(c)));
}

TEST(SamplingFuzzSim, WalksThatEndAtTheEdgeOfAChunk) {
  DrawCase c;  // Half of it is exactly the first chunk.
  c.logits.assign(2048, 0.25f);
  expect_draws_of_cpu(c, {0.0, 0.25, 0.5, std::nextafter(0.5, 0.0), 1 - 0x1p-53});
  // Weights near the spacing of their sum: what its rounding leaves in the end must not be looked
  // for in the last chunk, which has no weight.
  for (int i = 0; i < 40; i += static_cast<int>(kShare)) {
    c.logits.assign(8192, -1000.0f);
    c.logits[5] = 0;
    for (size_t at = 1030; at < 7168; at += 1024) {
      c.logits[at] = -34.5f - 0.05f * static_cast<float>(i);
    }
    expect_draws_of_cpu(c, {1 - 0x1p-52, 1 - 0x1p-53});
  }
}

/// Many chunks; sums of mass far above 2^53.
TEST(SamplingFuzzSim, AWholeVocabulary) {
  Dice dice(7);
  DrawCase c = random_draws(dice, test::kMany, 1);
  c.logits = test::random_floats(test::kMany, 9, 0.01f);
  for (size_t i = 0; i < c.logits.size(); i += 3) c.logits[i] = 0.005f;
  c.allowed = test::kMany;
  c.support = 0;
  c.params = {{.top_k = 60000, .top_p = 0.6f}};
  c.uniforms = {0.83};
  c.seen_begin = {0, 0};
  ASSERT_TRUE(test::identical(draw_on_emulator(c, 128), draw_on_cpu(c)));
}

/// One row of linear_logprob, with its reference.
struct RowCase {
  Floats logits, reference;
  float inverse_temperature = 1, softcap = 0;
  int64_t support = 0, top_k = 0;
  int32_t target = 0;
  float g = 0, e = 0, c = 0;  // d loss / d logprob, entropy and KL
};

RowCase random_row(Dice& dice) {
  RowCase c;
  const int64_t n = random_vocabulary(dice);
  c.logits = random_logits(dice, n);
  c.reference = random_logits(dice, n);
  c.inverse_temperature = dice.one_of({1.0f, 1.0f, 1 / 0.7f, 1e-3f, 1e3f});
  c.softcap = dice.one_of({0.0f, 0.0f, 8.0f});
  c.support = dice.below(2) == 0 ? 0 : 1 + dice.below(n);
  c.top_k = dice.one_of<int64_t>({0, 1, 4, kMaxTopK});
  c.target = static_cast<int32_t>(dice.below(c.support > 0 ? c.support : n));
  const auto coefficient = [&] {
    return dice.one_of({0.0f, 1.0f, static_cast<float>(dice.uniform() - 0.5)});
  };
  c.g = coefficient();
  c.e = coefficient();
  c.c = coefficient();
  return c;
}

/// Outputs of a row, by index, and its ids.
struct RowOutputs {
  enum { kLogprob, kEntropy, kMax, kLogSum, kKl, kRefLogprob, kRefMax, kRefLogSum, kCount };
  test::DeviceBuffer<float> stats{kCount}, top_logprobs;
  test::DeviceBuffer<int32_t> top_ids;
  explicit RowOutputs(size_t top_k) : top_logprobs(top_k), top_ids(top_k) {}
  auto values() { return std::tuple(stats.values(), top_logprobs.values(), top_ids.values()); }
};

LinearLogprobArgs row_args(const RowCase& c, const float* one, RowOutputs& out) {
  float* s = out.stats.data();
  const int64_t n = std::ssize(c.logits);
  return {.hidden = one,
          .hidden_stride = 1,
          .head = {nullptr, nullptr, n, 1},
          .targets = &c.target,
          .rows = 1,
          .inverse_temperature = c.inverse_temperature,
          .logprob = s + RowOutputs::kLogprob,
          .entropy = s + RowOutputs::kEntropy,
          .max = s + RowOutputs::kMax,
          .log_sum = s + RowOutputs::kLogSum,
          .softcap = c.softcap,
          .support = c.support,
          .top_k = c.top_k,
          .top_ids = out.top_ids.data(),
          .top_logprobs = out.top_logprobs.data(),
          .reference = {.hidden = one,
                        .hidden_stride = 1,
                        .head = {nullptr, nullptr, n, 1},
                        .softcap = c.softcap,
                        .kl = s + RowOutputs::kKl,
                        .logprob = s + RowOutputs::kRefLogprob,
                        .max = s + RowOutputs::kRefMax,
                        .log_sum = s + RowOutputs::kRefLogSum}};
}

LinearLogprobBackwardArgs row_gradient_args(const RowCase& c, const LinearLogprobArgs& forward) {
  return {.forward = forward, .dlogprob = &c.g, .dentropy = &c.e, .dkl = &c.c};
}

/// All outputs, and dz as the weight's gradient by a hidden row of 1 (in which -0 becomes 0).
auto row_on_cpu(const RowCase& c) {
  const float one = 1;
  RowOutputs out(static_cast<size_t>(c.top_k));
  LinearLogprobArgs a = row_args(c, &one, out);
  const int64_t n = a.head.n;
  Floats z(static_cast<size_t>(panel_elements(n, 1)), 0.0f), y = z, dweight = z, dz(c.logits);
  pack_rows(c.logits.data(), n, 1, 0, z.data());
  pack_rows(c.reference.data(), n, 1, 0, y.data());
  a.head.f32 = z.data();
  a.reference.head.f32 = y.data();
  LinearLogprobBackwardArgs b = row_gradient_args(c, a);
  float dhidden = 0;
  b.dhidden = &dhidden;
  b.dhidden_stride = 1;
  b.dweight = dweight.data();
  kernels::linear_logprob(a);
  kernels::linear_logprob_backward(b);
  unpack_rows(dweight.data(), 0, n, 1, dz.data());
  return std::tuple_cat(out.values(), std::tuple(dz));
}

/// `one_pass`: the gradient takes the logits that the forward left, else products as they come.
auto row_on_emulator(const RowCase& c, bool one_pass, int threads) {
  const float one = 1;
  RowOutputs out(static_cast<size_t>(c.top_k));
  const LinearLogprobArgs a = row_args(c, &one, out);
  const int64_t n = a.head.n, padded = panel_count(n) * kPanel;
  auto z = tile_of(c.logits, 1, padded), y = tile_of(c.reference, 1, padded);
  EXPECT_TRUE(launch_rows_forward(a, {z.data(), y.data(), padded, 0, 1}, threads, nullptr).ok());
  auto again = tile_of(c.logits, 1, padded), again_y = tile_of(c.reference, 1, padded);
  const HeadTile left{z.data(), y.data(), padded, 0, 1};
  const HeadTile fresh{again.data(), again_y.data(), padded, 0, 1};
  EXPECT_TRUE(launch(rows_backward, 1, static_cast<unsigned>(threads), 0, nullptr,
                     row_gradient_args(c, a), one_pass ? left : fresh, one_pass)
                  .ok());
  Floats dz = one_pass ? z.values() : again.values();
  dz.resize(static_cast<size_t>(n));
  for (float& v : dz) v += 0.0f;
  return std::tuple_cat(out.values(), std::tuple(dz));
}

TEST(HeadFuzzSim, HasTheBitsOfTheCpu) {
  for (uint64_t seed = 0; seed < 1500 / kShare; ++seed) {
    Dice dice(seed);
    const RowCase c = random_row(dice);
    ASSERT_TRUE(test::identical(row_on_emulator(c, seed % 2 == 0, 32), row_on_cpu(c)))
        << "seed " << seed;
  }
}

TEST(HeadFuzzSim, InAllOrdersAndBlocksOfAnySize) {
  for (uint64_t seed = 2000; seed < 2000 + (20 + kShare - 1) / kShare; ++seed) {
    Dice dice(seed);
    const RowCase c = random_row(dice);
    const auto want = row_on_cpu(c);
    const auto got = test::in_all_orders([&] { return row_on_emulator(c, seed % 2 == 0, 96); });
    ASSERT_TRUE(test::identical(got, want)) << "seed " << seed;
    for (const int threads : {128, 256, 512}) {
      ASSERT_TRUE(test::identical(row_on_emulator(c, true, threads), want)) << threads;
    }
  }
}

}  // namespace
}  // namespace temper::kernels::cuda
