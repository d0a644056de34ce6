// Golden vectors: tests/golden/make_adapters.py (peft 0.21). Finite differences, and invariants: the
// bits of a row, of a step cut into parts, and of the model without its adapter.
#include "temper/nn/adapter.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "error_of.h"
#include "nn/adapter_case.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"

namespace temper {
namespace {

using namespace testing_nn;

constexpr WeightDType kAllTypes[] = {WeightDType::kFloat32, WeightDType::kBfloat16,
                                     WeightDType::kBfloat16Dot, WeightDType::kFloat16,
                                     WeightDType::kInt8, WeightDType::kQ4};

void expect_near(const std::vector<float>& got, const std::vector<double>& expected, double bound,
                 const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], bound) << what << i;
}

class PeftCase : public testing::TestWithParam<const char*> {
 protected:
  PeftCase()
      : golden(SafetensorsFile::open(adapter_folder(GetParam()) / "golden.safetensors")),
        texts(GetParam()) {}
  SafetensorsFile golden;
  GoldenTexts texts;
};

TEST_P(PeftCase, LogitsArePefts) {
  Adapted m(GetParam(), WeightDType::kFloat32, Trainable::kNo);
  expect_near(logits(m.lm, m.lm.forward(texts.batch)), numbers(golden, "out.logits"), 2e-5, "");
}

TEST_P(PeftCase, GradientsArePefts) {
  for (const bool checkpoint : {false, true}) {
    Adapted m(GetParam());
    ScoringTape tape;
    tape.forward.checkpoint = checkpoint;
    const TokenScores s = score_train(m.lm, texts.batch, texts.request, 1.0, tape);
    expect_near(floats(s.logprobs), numbers(golden, "out.logprobs"), 2e-5, "log-prob ");
    auto c = as_floats(numbers(texts.file, "in.c")), e = as_floats(numbers(texts.file, "in.e"));
    const int64_t count = std::ssize(c);
    score_backward(m.lm, tape, at::from_blob(c.data(), {count}, at::kFloat),
                   at::from_blob(e.data(), {count}, at::kFloat));
    m.lm.finish_gradients();
    for (const Parameter* p : m.lm.parameter_list()) {
      for (const auto& part : p->parts) {
        const auto expected = numbers(golden, "grad." + part.name);
        std::vector<float> got(static_cast<size_t>(part.rows * p->k));
        p->get_part(part, p->grad, got.data());
        double largest = 1e-3;
        for (const double v : expected) largest = std::max(largest, std::abs(v));
        expect_near(got, expected, 1e-4 * largest, part.name + " ");
      }
    }
  }
}

// The folder is what `make_adapters.py --check` gives to PEFT.
TEST_P(PeftCase, WritesWhatItRead) {
  Adapted m(GetParam(), WeightDType::kFloat32, Trainable::kNo);
  const OwnFolder own;
  const char* kept = std::getenv("TEMPER_ADAPTER_FOLDER");
  const auto folder = (kept != nullptr ? std::filesystem::path(kept) : own.path) / GetParam();
  m.lm.save_adapter(folder);
  CausalLM back(adapter_base(GetParam()), WeightDType::kFloat32, Trainable::kNo);
  back.load_adapter(folder, Trainable::kNo);
  EXPECT_EQ(floats(back.forward(texts.batch)), floats(m.lm.forward(texts.batch)));
}

TEST_P(PeftCase, MergedWeightsGiveTheSameLogits) {
  Adapted m(GetParam());
  const auto expected = numbers(golden, "out.logits_merged");
  const OwnFolder own;
  const ModelSource source = adapter_base(GetParam());
  write_hf_folder(own.path, source, m.lm.write_tensors(), {});
  m.lm.merge_adapter();
  EXPECT_EQ(m.lm.adapter(), nullptr);
  const auto merged = floats(m.lm.forward(texts.batch));
  expect_near(logits(m.lm, m.lm.forward(texts.batch)), expected, 3e-5, "in place ");
  CausalLM file(open_model(own.path.string()), WeightDType::kFloat32, Trainable::kNo);
  EXPECT_EQ(floats(file.forward(texts.batch)), merged);
}

TEST_P(PeftCase, OffIsTheBaseBitForBit) {
  for (const WeightDType dtype : kAllTypes) {
    CausalLM base(adapter_base(GetParam()), dtype, Trainable::kNo);
    const auto expected = floats(base.forward(texts.batch));
    Adapted m(GetParam(), dtype);
    const auto with = floats(m.lm.forward(texts.batch));
    EXPECT_NE(with, expected);
    {
      const AdapterOff off(m.lm);
      EXPECT_EQ(floats(m.lm.forward(texts.batch)), expected);
    }
    const auto reference = m.lm.without_adapter();
    EXPECT_EQ(floats(reference->forward(texts.batch)), expected);
    EXPECT_EQ(floats(m.lm.forward(texts.batch)), with);
    for (size_t i = 0; i < reference->parameters().size(); ++i) {
      const auto ours = reference->parameters()[i]->packed();
      const auto theirs = m.lm.parameters()[i]->packed();
      EXPECT_TRUE(ours.f32 == theirs.f32 && ours.bf16 == theirs.bf16 && ours.f16 == theirs.f16 &&
                  ours.i8 == theirs.i8) << "a copy of " << m.lm.parameters()[i]->name;
    }
  }
}

TEST_P(PeftCase, DecodeTrainingAndPackingGiveOneSetOfBits) {
  for (const WeightDType dtype : kAllTypes) {
    Adapted m(GetParam(), dtype);
    const auto& text = texts.texts.back();
    const auto whole = floats(m.lm.forward(packed({text})));
    const size_t width = static_cast<size_t>(m.lm.config().hidden_size);
    for (const size_t chunk : {size_t{1}, size_t{5}}) {
      KvStore kv(m.lm.config().layers, m.lm.config().kv_heads * m.lm.config().head_dim, 4);
      const int32_t node = kv.open(-1);
      for (size_t at = 0; at < text.size(); at += chunk) {
        const size_t count = std::min(chunk, text.size() - at);
        TokenBatch b = packed(
            {{text.begin() + static_cast<long>(at), text.begin() + static_cast<long>(at + count)}});
        for (auto& p : b.positions) p += static_cast<int32_t>(at);
        b.segments[0].node = node;
        ASSERT_TRUE(kv.reserve(node, static_cast<int64_t>(count)));
        const auto rows = floats(m.lm.forward(b, &kv));
        for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], whole[at * width + i]);
      }
    }
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      std::vector<std::vector<int32_t>> many(40, text);
      ForwardTape tape;
      const auto rows = floats(m.lm.forward_train(packed(many), tape));
      set_num_threads(2);
      for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], whole[i % whole.size()]) << i;
    }
  }
}

// At B = 0 and magnitudes of W's rows no column is scaled.
TEST(Dora, StartsAtTheBaseBitForBit) {
  for (const WeightDType dtype : kAllTypes) {
    CausalLM lm(adapter_base("dora_all"), dtype, Trainable::kNo);
    const GoldenTexts t("dora_all");
    const auto before = floats(lm.forward(t.batch));
    AdapterConfig c;
    c.use_dora = true;
    lm.add_adapter(c, 3);
    EXPECT_EQ(floats(lm.forward(t.batch)), before) << weight_dtype_name(dtype);
    EXPECT_EQ(lm.adapter()->parameters().size(), 2u * (4 + 7 * 2));
  }
}

// A change of weights that tells its version is seen; m twice as long doubles a column.
TEST(Dora, FactorsFollowTheWeights) {
  Adapted m("dora");
  const GoldenTexts t("dora");
  const auto before = floats(m.lm.forward(t.batch));
  for (Parameter* p : m.lm.parameter_list()) {
    if (p->matrix) continue;
    p->value.mul_(2);
    ++p->version;
  }
  const auto doubled = floats(m.lm.forward(t.batch));
  EXPECT_NE(doubled, before);
  for (Parameter* p : m.lm.parameter_list()) {
    if (p->matrix) continue;
    p->value.mul_(0.5);
    ++p->version;
  }
  EXPECT_EQ(floats(m.lm.forward(t.batch)), before);
}

INSTANTIATE_TEST_SUITE_P(Golden, PeftCase,
                         testing::Values("lora", "all_linear", "rslora", "patterns", "some_layers",
                                         "dora", "dora_all"),
                         [](const auto& name) { return std::string(name.param); });

/// d of a loss by every adapter weight, in panels, one after the other.
std::vector<float> adapter_gradients(CausalLM& lm) {
  std::vector<float> out;
  for (const Parameter* p : lm.parameter_list()) {
    const auto one = floats(p->grad);
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

/// Coefficients of a loss over log-probs.
std::vector<float> coefficients(size_t count) {
  std::vector<float> c(count);
  for (size_t i = 0; i < count; ++i) c[i] = 0.25f * static_cast<float>(i % 3) - 0.3f;
  return c;
}

double loss_of(CausalLM& lm, const GoldenTexts& t) {
  const TokenScores s = score(lm, t.batch, t.request, 1.0);
  const auto c = coefficients(t.request.rows.size());
  double sum = 0;
  for (size_t i = 0; i < c.size(); ++i) sum += double{c[i]} * double{s.logprobs.data_ptr<float>()[i]};
  return sum;
}

// Along a direction in which every weight of one matrix takes part. Not for bfloat16_dot, whose
// rounded activations make the loss a staircase.
TEST(AdapterGradients, AreFiniteDifferencesOverRoundedBases) {
  for (const WeightDType dtype : {WeightDType::kBfloat16, WeightDType::kFloat16, WeightDType::kInt8}) {
    Adapted m("all_linear", dtype);
    const GoldenTexts t("all_linear");
    ScoringTape tape;
    (void)score_train(m.lm, t.batch, t.request, 1.0, tape);
    auto c = coefficients(t.request.rows.size());
    score_backward(m.lm, tape, at::from_blob(c.data(), {std::ssize(c)}, at::kFloat), {});
    for (Parameter* p : m.lm.parameter_list()) {
      const at::Tensor direction = p->grad / p->grad.norm();  // Padding stays 0.
      const at::Tensor before = p->value.clone();
      const double step = 4e-3;
      p->value.copy_(before + step * direction);
      ++p->version;
      const double up = loss_of(m.lm, t);
      p->value.copy_(before - step * direction);
      ++p->version;
      const double down = loss_of(m.lm, t);
      p->value.copy_(before);
      ++p->version;
      const double slope = p->grad.norm().item<double>();
      EXPECT_NEAR((up - down) / (2 * step), slope, 2e-3 * slope + 2e-3)
          << p->name << " " << weight_dtype_name(dtype);
    }
  }
}

TEST(AdapterGradients, OfPartsOfAStepAddUpToItsBits) {
  std::vector<std::vector<int32_t>> texts;
  for (int32_t t = 0; t < 8; ++t) {
    texts.emplace_back();
    for (int32_t i = 0; i < 12 + 6 * (t % 4); ++i) texts.back().push_back((7 * t + 11 * i) % 64);
  }
  const auto run = [&](size_t per_batch, int threads, bool checkpoint, WeightDType dtype) {
    set_num_threads(threads);
    Adapted m("some_layers", dtype);
    ScoringTape tape;
    tape.forward.checkpoint = checkpoint;
    for (size_t at = 0; at < texts.size(); at += per_batch) {
      const TokenBatch b = packed({texts.begin() + static_cast<long>(at),
                                   texts.begin() + static_cast<long>(at + per_batch)});
      ScoreRequest request;
      for (const auto& segment : b.segments) {
        for (int32_t i = 0; i + 1 < segment.length; ++i) {
          request.rows.push_back(segment.start + i);
          request.targets.push_back(b.ids[static_cast<size_t>(segment.start + i + 1)]);
        }
      }
      std::vector<float> c(request.rows.size(), 0.25f);
      (void)score_train(m.lm, b, request, 1.0, tape);
      score_backward(m.lm, tape, at::from_blob(c.data(), {std::ssize(c)}, at::kFloat), {});
    }
    m.lm.finish_gradients();
    set_num_threads(2);
    return adapter_gradients(m.lm);
  };
  for (const WeightDType dtype : kAllTypes) {
    const auto whole = run(8, 2, false, dtype);
    EXPECT_EQ(run(1, 2, false, dtype), whole) << weight_dtype_name(dtype);
    EXPECT_EQ(run(2, 1, true, dtype), whole) << weight_dtype_name(dtype);
    EXPECT_EQ(run(4, 3, false, dtype), whole) << weight_dtype_name(dtype);
  }
}

CausalLM frozen(WeightDType dtype = WeightDType::kFloat32) {
  return {open_model((golden_folder() / "llama").string()), dtype, Trainable::kNo};
}

std::map<std::string, std::vector<float>> first_a(const AdapterConfig& config, uint64_t seed) {
  CausalLM lm = frozen();
  lm.add_adapter(config, seed);
  std::map<std::string, std::vector<float>> out;
  for (const Parameter* p : lm.parameter_list()) {
    for (const auto& part : p->parts) {
      auto& rows = out[part.name];
      rows.resize(static_cast<size_t>(part.rows * p->k));
      p->get_part(part, p->value, rows.data());
    }
  }
  return out;
}

TEST(NewAdapter, DrawsAByModuleAndStartsAtTheBase) {
  AdapterConfig all, some;
  all.r = 64;
  some.r = 64;
  some.target_modules = {"k_proj"};
  const auto drawn = first_a(all, 5), alone = first_a(some, 5), other = first_a(all, 6);
  EXPECT_EQ(drawn.size(), 28u);
  EXPECT_EQ(alone.size(), 4u);
  const std::string name = peft_name_a("model.layers.1.self_attn.k_proj");
  EXPECT_EQ(alone.at(name), drawn.at(name)) << "the draw depends on other targets";
  EXPECT_NE(other.at(name), drawn.at(name));
  EXPECT_NE(drawn.at(name), drawn.at(peft_name_a("model.layers.0.self_attn.k_proj")));
  double sum = 0, squares = 0;
  for (const float v : drawn.at(name)) {
    EXPECT_LE(std::abs(v), 1 / std::sqrt(32.0));
    sum += double{v};
    squares += double{v} * double{v};
  }
  const double count = 64 * 32;  // U(-b, b) has variance b^2 / 3 = 1 / 96: five deviations each.
  EXPECT_NEAR(sum / count, 0, 5 * std::sqrt(1.0 / 96 / count));
  EXPECT_NEAR(squares / count, 1.0 / 96, 5 * 1.0 / 96 * std::sqrt(0.8 / count));
  for (const float v : drawn.at(peft_name_b("model.layers.1.self_attn.k_proj"))) EXPECT_EQ(v, 0.0f);
  const TokenBatch text = packed({{5, 9, 60, 3, 3, 21}});
  CausalLM base = frozen(), adapted = frozen();
  adapted.add_adapter(all, 5);
  EXPECT_EQ(floats(adapted.forward(text)), floats(base.forward(text)));
}

TEST(NewAdapter, CostsItsOwnWeightsAndGradientsAlone) {
  CausalLM lm = frozen(WeightDType::kInt8);
  const size_t base = lm.weight_bytes();
  AdapterConfig c;
  c.r = 4;
  c.target_modules = {"o_proj"};
  lm.add_adapter(c, 1);
  // Two layers of A [4, 32] and B [32, 4], each in one panel of 32 rows; values and gradients.
  EXPECT_EQ(lm.weight_bytes() - base, 2u * 2 * 4 * (32 * 32 + 32 * 4));
  EXPECT_EQ(lm.adapter()->weights(), 2 * (4 * 32 + 32 * 4));
  EXPECT_EQ(lm.parameter_list().size(), 4u);
  for (const auto& p : lm.parameters()) {
    EXPECT_FALSE(p->grad.defined()) << p->name;
    EXPECT_EQ(p->value.defined(), !p->matrix) << p->name;
  }
}

TEST(NewAdapter, WhatCannotBeIsRefused) {
  const auto add = [](auto change) {
    CausalLM lm = frozen();
    AdapterConfig c;
    change(c);
    return error_of([&] { lm.add_adapter(c, 1); });
  };
  EXPECT_EQ(add([](AdapterConfig&) {}), "");
  EXPECT_EQ(add([](AdapterConfig& c) { c.target_modules = {"q_proj", "query"}; }),
            "[adapter] target_modules: no linear module of the model is \"query\"; it has down_proj, "
            "gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, or all-linear alone");
  EXPECT_NE(add([](AdapterConfig& c) { c.target_modules = {"lm_head"}; }), "");
  EXPECT_NE(add([](AdapterConfig& c) { c.target_modules = {"all-linear", "q_proj"}; }), "");
  EXPECT_NE(add([](AdapterConfig& c) { c.r = 0; }).find("r must be in [1, 4096]"), std::string::npos);
  EXPECT_NE(add([](AdapterConfig& c) { c.alpha = 0; }).find("alpha must be in (0"), std::string::npos);
  EXPECT_NE(add([](AdapterConfig& c) { c.dropout = 1; }).find("dropout must be in [0, 1)"), std::string::npos);
  EXPECT_NE(add([](AdapterConfig& c) { c.target_pattern = "q_proj"; }).find("whole path"), std::string::npos);
  EXPECT_NE(add([](AdapterConfig& c) { c.target_pattern = "(q"; }).find("is wrong at character"), std::string::npos);

  CausalLM trained(open_model((golden_folder() / "llama").string()), WeightDType::kFloat32, Trainable::kYes);
  EXPECT_NE(error_of([&] { trained.add_adapter({}, 1); }).find("load it as frozen"), std::string::npos);
  CausalLM rounded = frozen(WeightDType::kBfloat16);
  EXPECT_NE(error_of([&] { rounded.save_adapter("x"); }).find("none to save"), std::string::npos);
  rounded.add_adapter({}, 1);
  EXPECT_NE(error_of([&] { rounded.add_adapter({}, 1); }).find("has one already"), std::string::npos);
  EXPECT_NE(error_of([&] { rounded.merge_adapter(); }).find("Save the model"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)CausalLM::frozen_copy(rounded); }).find("has an adapter"),
            std::string::npos);
  ForwardTape tape;
  const TokenBatch text = packed({{5, 9, 60}});
  const at::Tensor hidden = rounded.forward_train(text, tape).clone();
  const AdapterOff off(rounded);
  EXPECT_NE(error_of([&] { rounded.backward(tape, hidden); }).find("adapter is off"), std::string::npos);
}

TEST(LoadedAdapter, OfAnotherModelIsRefused) {
  const auto load = [](const char* base, const char* adapter) {
    CausalLM lm(open_model((golden_folder() / base).string()), WeightDType::kFloat32, Trainable::kNo);
    return error_of([&] { lm.load_adapter(adapter_folder(adapter), Trainable::kNo); });
  };
  EXPECT_EQ(load("llama", "lora"), "");
  EXPECT_NE(load("qwen3", "lora").find("q_proj is 32 x 32, the model's 64 x 32"), std::string::npos);
}

}  // namespace
}  // namespace temper
