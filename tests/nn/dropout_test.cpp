// Hand-worked hashes' equalities, frequencies within five deviations, finite differences, and
// invariants: what is dropped does not depend on the cut of a step or on threads.
#include "temper/nn/dropout.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>

#include "nn/adapter_case.h"
#include "temper/core/rng.h"
#include "temper/core/threads.h"

namespace temper {
namespace {

using namespace testing_nn;

TEST(TextHashes, AreOfTheTextAloneWhereverItLies) {
  TokenBatch tree;  // A prompt of two and two answers, then the second text whole.
  tree.ids = {5, 6, 7, 8, 9, 5, 6, 9};
  tree.positions = {0, 1, 2, 3, 2, 0, 1, 2};
  tree.segments = {{-1, 0, 2, -1}, {0, 2, 2, -1}, {0, 4, 1, -1}, {-1, 5, 3, -1}};
  const auto h = text_hashes(tree);
  EXPECT_EQ(h[5], h[0]);
  EXPECT_EQ(h[6], h[1]);
  EXPECT_EQ(h[7], h[4]);
  std::vector<uint64_t> different{h[0], h[1], h[2], h[3], h[4]};
  std::sort(different.begin(), different.end());
  EXPECT_EQ(std::unique(different.begin(), different.end()), different.end());
}

TEST(DropOut, DropsAtItsRateAndScalesTheRest) {
  std::vector<uint64_t> texts(300);
  std::iota(texts.begin(), texts.end(), 1u);
  const int64_t k = 333;
  std::vector<float> x(texts.size() * static_cast<size_t>(k), 3.0f), out(x.size());
  for (const double rate : {0.05, 0.5}) {
    drop_out({rate, 7, 2, texts}, "m", x.data(), 300, k, out.data());
    const auto kept = static_cast<float>(3.0f * static_cast<float>(1 / (1 - rate)));
    double dropped = 0;
    for (const float v : out) {
      ASSERT_TRUE(v == 0 || v == kept) << v;
      dropped += v == 0;
    }
    const double count = static_cast<double>(x.size());
    EXPECT_NEAR(dropped / count, rate, 5 * std::sqrt(rate * (1 - rate) / count));
  }
  // Columns next to each other, rows, steps and matrices are drawn apart: half of a half agree.
  const auto mask = [&](int64_t step, const char* matrix) {
    std::vector<float> m(x.size());
    drop_out({0.5, 7, step, texts}, matrix, x.data(), 300, k, m.data());
    return m;
  };
  const auto a = mask(0, "m");
  const auto same = [&](const std::vector<float>& b, size_t shift) {
    double equal = 0;
    for (size_t i = shift; i < a.size(); ++i) equal += (a[i] == 0) == (b[i - shift] == 0);
    return equal / static_cast<double>(a.size() - shift);
  };
  EXPECT_EQ(same(mask(0, "m"), 0), 1);
  EXPECT_NEAR(same(mask(1, "m"), 0), 0.5, 0.01);
  EXPECT_NEAR(same(mask(0, "n"), 0), 0.5, 0.01);
  EXPECT_NEAR(same(a, 1), 0.5, 0.01);
  EXPECT_NEAR(same(a, static_cast<size_t>(k)), 0.5, 0.01);
}

/// Under an adapter with dropout, B of a size that counts, magnitudes away from the norms.
std::unique_ptr<CausalLM> dropping(bool dora, WeightDType dtype = WeightDType::kFloat32) {
  auto own = std::make_unique<CausalLM>(adapter_base("all_linear"), dtype, Trainable::kNo);
  CausalLM& lm = *own;
  AdapterConfig c;
  c.r = 3;
  c.use_dora = dora;
  c.dropout = 0.25;
  lm.add_adapter(c, 9);
  uint64_t seed = 1;
  for (Parameter* p : lm.parameter_list()) {
    std::vector<float> rows(static_cast<size_t>(p->n * p->k));
    p->get_part({"", 0, p->n}, p->value, rows.data());
    RngStream rng(seed++, RngPurpose::kTest, 0);
    for (float& v : rows) {
      const auto u = static_cast<float>(rng.next_uniform() - 0.5);
      v = p->matrix ? v + 0.2f * u : v * (1 + 0.4f * u);
    }
    p->set_part({"", 0, p->n}, rows.data());
  }
  lm.set_dropout_step(11, 4);
  return own;
}

std::vector<float> weights_of_rows(size_t count) {
  std::vector<float> c(count);
  for (size_t i = 0; i < count; ++i) c[i] = 0.25f * static_cast<float>(i % 3) - 0.3f;
  return c;
}

double loss_of(CausalLM& lm, const GoldenTexts& t, ScoringTape& tape) {
  const TokenScores s = score_train(lm, t.batch, t.request, 1.0, tape);
  const auto c = weights_of_rows(t.request.rows.size());
  double sum = 0;
  for (size_t i = 0; i < c.size(); ++i)
    sum += double{c[i]} * double{s.logprobs.data_ptr<float>()[i]};
  return sum;
}

// With magnitudes, A and B also move norms, which the gradient takes for constants: there only m.
TEST(Dropout, GradientsAreFiniteDifferences) {
  for (const bool dora : {false, true}) {
    const auto own = dropping(dora);
    CausalLM& lm = *own;
    const GoldenTexts t("all_linear");
    ScoringTape tape;
    (void)loss_of(lm, t, tape);
    auto c = weights_of_rows(t.request.rows.size());
    score_backward(lm, tape, at::from_blob(c.data(), {std::ssize(c)}, at::kFloat), {});
    for (Parameter* p : lm.parameter_list()) {
      if (dora && p->matrix) continue;
      const at::Tensor direction = p->grad / p->grad.norm(), before = p->value.clone();
      const double step = 4e-3;
      const auto at = [&](double distance) {
        p->value.copy_(before + distance * direction);
        ++p->version;
        return loss_of(lm, t, tape);
      };
      const double slope = p->grad.norm().item<double>();
      EXPECT_NEAR((at(step) - at(-step)) / (2 * step), slope, 2e-3 * slope + 2e-3) << p->name;
      (void)at(0);
    }
  }
}

TEST(Dropout, OnlyTrainingForwardsDropAndEachStepOthers) {
  const auto own = dropping(false);
  CausalLM& lm = *own;
  const GoldenTexts t("all_linear");
  EXPECT_TRUE(lm.drops_out());
  const auto plain = floats(lm.forward(t.batch));
  ForwardTape tape;
  const auto first = floats(lm.forward_train(t.batch, tape));
  EXPECT_NE(first, plain);
  EXPECT_EQ(floats(lm.forward(t.batch)), plain);
  EXPECT_EQ(floats(lm.forward_train(t.batch, tape)), first);
  lm.set_dropout_step(11, 5);
  EXPECT_NE(floats(lm.forward_train(t.batch, tape)), first);
  const AdapterOff off(lm);
  EXPECT_FALSE(lm.drops_out());
  EXPECT_EQ(floats(lm.forward_train(t.batch, tape)), floats(lm.forward(t.batch)));
}

// Two answers behind a shared prompt, cut into whole trees, checkpointed, on other threads.
TEST(Dropout, CutsAndThreadsChangeNoBit) {
  std::vector<std::vector<int32_t>> texts;
  for (int32_t t = 0; t < 6; ++t) {
    texts.emplace_back();
    for (int32_t i = 0; i < 10 + 7 * (t % 3); ++i) texts.back().push_back((5 * t + 13 * i) % 64);
  }
  for (const bool dora : {false, true}) {
    const auto run = [&](size_t per_batch, int threads, bool checkpoint, WeightDType dtype) {
      set_num_threads(threads);
      const auto own = dropping(dora, dtype);
      CausalLM& lm = *own;
      ForwardTape tape;
      tape.checkpoint = checkpoint;
      std::vector<float> out;
      for (size_t at = 0; at < texts.size(); at += per_batch) {
        const TokenBatch b = packed({texts.begin() + static_cast<long>(at),
                                     texts.begin() + static_cast<long>(at + per_batch)});
        const at::Tensor hidden = lm.forward_train(b, tape).clone();
        const auto rows = floats(hidden);
        out.insert(out.end(), rows.begin(), rows.end());
        lm.backward(tape, hidden);
      }
      lm.finish_gradients();
      set_num_threads(2);
      for (const Parameter* p : lm.parameter_list()) {
        const auto grad = floats(p->grad);
        out.insert(out.end(), grad.begin(), grad.end());
      }
      return out;
    };
    for (const WeightDType dtype :
         {WeightDType::kFloat32, WeightDType::kBfloat16Dot, WeightDType::kInt8}) {
      const auto whole = run(6, 2, false, dtype);
      EXPECT_EQ(run(1, 3, false, dtype), whole) << weight_dtype_name(dtype);
      EXPECT_EQ(run(2, 1, true, dtype), whole) << weight_dtype_name(dtype);
    }
  }
}

TEST(Dropout, ASharedPromptDropsWhatWholeTextsDrop) {
  for (const bool dora : {false, true}) {
    const auto own = dropping(dora);
    CausalLM& lm = *own;
    TokenBatch tree;
    tree.ids = {5, 6, 7, 8, 9};
    tree.positions = {0, 1, 2, 3, 2};
    tree.segments = {{-1, 0, 2, -1}, {0, 2, 2, -1}, {0, 4, 1, -1}};
    ForwardTape tape;
    const auto shared = floats(lm.forward_train(tree, tape));
    const auto whole = floats(lm.forward_train(packed({{5, 6, 7, 8}, {5, 6, 9}}), tape));
    const auto width = static_cast<long>(lm.config().hidden_size);
    const auto row = [&](const std::vector<float>& from, long r) {
      return std::vector<float>(from.begin() + r * width, from.begin() + (r + 1) * width);
    };
    for (const auto& [a, b] :
         {std::pair{0L, 0L}, {1L, 1L}, {2L, 2L}, {3L, 3L}, {0L, 4L}, {4L, 6L}}) {
      EXPECT_EQ(row(shared, a), row(whole, b)) << a;
    }
  }
}

}  // namespace
}  // namespace temper
