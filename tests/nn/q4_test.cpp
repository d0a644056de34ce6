// Frozen models in blocks of 4 bits. Expectations: the bits of float32 models that hold the widened
// numbers, and bounds of the rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "nn/nn_test_util.h"
#include "nn/reward_test_util.h"
#include "temper/core/dtype.h"
#include "temper/core/error.h"
#include "temper/kernels/blocks.h"
#include "temper/kernels/embedding.h"
#include "temper/nn/causal_lm.h"

namespace temper {
namespace {

using namespace testing_nn;

ModelSource tiny(const std::string& family = "llama") {
  return open_model((golden_folder() / family).string());
}

/// A file whose layers' matrices are Q4_1, all but two kinds: Q8_0 and Q4_0.
class InBlocks : public WeightSource {
 public:
  explicit InBlocks(std::shared_ptr<const WeightSource> from) : from_(std::move(from)) {}
  std::vector<std::string> names() const override { return from_->names(); }
  bool has(std::string_view name) const override { return from_->has(name); }
  std::vector<int64_t> shape(std::string_view name) const override { return from_->shape(name); }
  bool quantized(std::string_view name) const override { return from_->shape(name).size() == 2; }
  std::optional<WeightBlocks> read_blocks(std::string_view name) const override {
    const auto size = shape(name);
    if (size.size() != 2 || name.find("embed_tokens") != std::string_view::npos)
      return std::nullopt;
    std::vector<float> rows(static_cast<size_t>(size[0] * size[1]));
    from_->read_float(name, rows);
    WeightBlocks b;
    b.bits = name.find("down_proj") != std::string_view::npos ? 8 : 4;
    b.codes.resize(rows.size());
    b.scales.resize(static_cast<size_t>(size[0] * ((size[1] + 31) / 32)));
    if (b.bits == 8) {
      kernels::quantize_blocks8(rows.data(), size[0], size[1], b.codes.data(), b.scales.data());
      return b;
    }
    b.minimums.resize(b.scales.size());
    kernels::quantize_blocks4(rows.data(), size[0], size[1], b.codes.data(), b.scales.data(),
                              b.minimums.data());
    // Beside q and v, which have minimums of their own in the same matrix.
    if (name.find("k_proj") != std::string_view::npos) b.minimums.clear();
    return b;
  }
  void read_float(std::string_view name, std::span<float> out) const override {
    from_->read_float(name, out);
    const auto b = read_blocks(name);
    if (!b) return;
    const size_t k = static_cast<size_t>(shape(name)[1]), across = (k + 31) / 32;
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t block = i / k * across + i % k / 32;
      const float scale = half_to_float(b->scales[block]);
      const float code = b->bits == 8 ? static_cast<int8_t>(b->codes[i]) : b->codes[i];
      const float implied = b->bits == 8 ? 0.0f : -8 * scale;
      out[i] = scale * code + (b->minimums.empty() ? implied : half_to_float(b->minimums[block]));
    }
  }

 private:
  std::shared_ptr<const WeightSource> from_;
};

TokenBatch some_texts() {
  return packed({{5, 1, 9, 4, 11, 3}, {7, 7, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}});
}

/// The embedding may be rounded to 8 bits: makes it what the model reads.
void widen_embedding(const CausalLM& from, CausalLM& to) {
  const Parameter& p = *from.parameters()[0];
  std::vector<int32_t> ids(static_cast<size_t>(p.n));
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> rows(static_cast<size_t>(p.n * p.k));
  kernels::embedding(p.packed(), ids, rows.data());
  to.parameters()[0]->set_part({"", 0, p.n}, rows.data());
}

TEST(Q4, BlocksOfAFileAreKeptAndComputeTheBitsOfTheirWidenedNumbers) {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    ModelSource source = tiny(family);
    source.weights = std::make_shared<InBlocks>(source.weights);
    CausalLM lm(source, WeightDType::kQ4, Trainable::kNo);
    CausalLM widened(source, WeightDType::kFloat32, Trainable::kNo);
    widen_embedding(lm, widened);
    EXPECT_EQ(floats(lm.forward(some_texts())), floats(widened.forward(some_texts()))) << family;
    const auto bits = [](const Parameter& p) { return 8 * p.int8.numel() / p.elements(); };
    for (const auto& p : lm.parameters()) {
      if (!p->matrix) continue;
      const bool eight = p->name == "embed_tokens" || p->name.ends_with(".down");
      EXPECT_EQ(bits(*p), eight ? 8 : 4) << p->name;
    }
  }
}

// Without blocks in the file: layers in 4 bits, the ends in 8.
TEST(Q4, NumbersOfAFileAreRounded) {
  CausalLM lm(tiny(), WeightDType::kQ4, Trainable::kNo);
  CausalLM exact(tiny(), WeightDType::kFloat32, Trainable::kNo);
  for (size_t i = 0; i < lm.parameters().size(); ++i) {
    const Parameter &p = *lm.parameters()[i], &q = *exact.parameters()[i];
    if (!p.matrix) continue;
    EXPECT_FALSE(p.value.defined());
    const bool ends = p.name == "embed_tokens" || p.name == "lm_head";
    EXPECT_EQ(p.int8.numel(), ends ? p.elements() : p.elements() / 2) << p.name;
    std::vector<float> before(static_cast<size_t>(p.n * p.k)), after(before.size());
    q.get_part({"", 0, p.n}, q.value, before.data());
    std::vector<int32_t> ids(static_cast<size_t>(p.n));
    std::iota(ids.begin(), ids.end(), 0);
    kernels::embedding(p.packed(), ids, after.data());
    for (size_t r = 0; r < before.size(); r += static_cast<size_t>(p.k)) {
      double largest = 0, change = 0;
      for (size_t c = 0; c < static_cast<size_t>(p.k); ++c) {
        largest = std::max(largest, std::abs(double{before[r + c]}));
        change = std::max(change, std::abs(double{before[r + c]} - after[r + c]));
      }
      // Half of a fifteenth of twice the largest, or of a 127th; and what halves round.
      EXPECT_LE(change, largest * (ends ? 0.5 / 127 : 1.0 / 15) * 1.03) << p.name;
    }
  }
  const auto got = logits(lm, lm.forward(some_texts())),
             want = logits(exact, exact.forward(some_texts()));
  double difference = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    size += double{want[i]} * want[i];
  }
  EXPECT_LT(std::sqrt(difference / size), 0.35);
  EXPECT_GT(difference, 0);
}

// A weight of a layer: 4 bits, and a scale and a minimum of 2 bytes for 32.
TEST(Q4, TakesFiveEighthsOfAByteAWeight) {
  const int64_t n = 1536, k = 576;
  EXPECT_EQ(kernels::block_code_bytes(n, k, 4) + 4 * kernels::block_elements(n, k), n * k * 5 / 8);
}

TEST(Q4, WhatItCannotHoldOrDoIsRefused) {
  const auto load = [](float value) {
    ModelSource source = tiny();
    source.weights = std::make_shared<OneReplaced>(source.weights,
                                                   "model.layers.1.self_attn.k_proj.weight", value);
    return error_of([&] { CausalLM(source, WeightDType::kQ4, Trainable::kNo); });
  };
  EXPECT_EQ(load(65504), "");
  EXPECT_NE(load(65536).find("k_proj.weight holds 65536, which q4 cannot"), std::string::npos);
  EXPECT_NE(load(std::numeric_limits<float>::quiet_NaN()).find("which q4 cannot"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              CausalLM(tiny(), WeightDType::kQ4, Trainable::kYes);
            }).find("q4 weights are for frozen"),
            std::string::npos);
  CausalLM lm(tiny(), WeightDType::kQ4, Trainable::kNo);
  CausalLM exact(tiny(), WeightDType::kFloat32, Trainable::kNo);
  EXPECT_NE(error_of([&] { lm.write_panels("x"); }).find("no panel file"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)CausalLM::frozen_copy(exact, WeightDType::kQ4); }).find("load it"),
            std::string::npos);
  EXPECT_NE(
      error_of([&] { (void)CausalLM::frozen_copy(lm, WeightDType::kInt8); }).find("frozen in q4"),
      std::string::npos);
  EXPECT_EQ(floats(CausalLM::frozen_copy(lm)->forward(some_texts())),
            floats(lm.forward(some_texts())));
}

// The model's own file is Q4_1 with an embedding of more bits: layers keep their blocks.
TEST(Q4, ARealFilesLayersHaveTheBitsOfTheirWidenedNumbers) {
  if (!std::filesystem::exists(default_model())) GTEST_SKIP() << "no " << default_model();
  const ModelSource source = open_model(default_model().string());
  CausalLM lm(source, WeightDType::kQ4, Trainable::kNo);
  CausalLM widened(source, WeightDType::kFloat32, Trainable::kNo);
  widen_embedding(lm, widened);
  EXPECT_EQ(floats(lm.forward(some_texts())), floats(widened.forward(some_texts())));
  EXPECT_LT(static_cast<double>(lm.weight_bytes()),
            0.75 * static_cast<double>(lm.head().n * lm.head().k + 106'000'000));
}

}  // namespace
}  // namespace temper
