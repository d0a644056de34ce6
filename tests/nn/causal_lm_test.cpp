// Golden vectors: tests/golden/make_models.py (transformers 5.23). Invariants: the bits of a row.
#include "temper/nn/causal_lm.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "nn/nn_test_util.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"

namespace temper {
namespace {

using namespace testing_nn;

class Families : public testing::TestWithParam<const char*> {
 protected:
  Families()
      : source(open_model((golden_folder() / GetParam()).string())),
        golden(SafetensorsFile::open(golden_folder() / GetParam() / "golden.safetensors")) {}
  std::vector<std::vector<int32_t>> texts() const {
    return split(ids(golden, "in.ids"), ids(golden, "in.offsets"));
  }
  ModelSource source;
  SafetensorsFile golden;
};

TEST_P(Families, PackedLogitsAreTransformers) {
  CausalLM lm(source, WeightDType::kFloat32, Trainable::kNo);
  const auto got = logits(lm, lm.forward(packed(texts())));
  const auto expected = numbers(golden, "out.logits");
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-5) << i;
}

TEST_P(Families, TreeLogitsAreThoseOfTheFullTexts) {
  CausalLM lm(source, WeightDType::kFloat32, Trainable::kNo);
  const auto prompt = ids(golden, "tree.prompt");
  const auto children = split(ids(golden, "tree.ids"), ids(golden, "tree.offsets"));
  TokenBatch b = packed({prompt});
  for (const auto& child : children) {
    b.segments.push_back(
        {0, static_cast<int32_t>(b.ids.size()), static_cast<int32_t>(child.size()), -1});
    for (size_t i = 0; i < child.size(); ++i) {
      b.ids.push_back(child[i]);
      b.positions.push_back(static_cast<int32_t>(prompt.size() + i));
    }
  }
  const auto tree = logits(lm, lm.forward(b));
  const size_t vocab = static_cast<size_t>(lm.config().vocab_size);
  for (size_t c = 0; c < children.size(); ++c) {
    const auto expected = numbers(golden, "tree.logits." + std::to_string(c));
    auto full = prompt;
    full.insert(full.end(), children[c].begin(), children[c].end());
    const auto alone = logits(lm, lm.forward(packed({full})));
    const size_t start = static_cast<size_t>(b.segments[c + 1].start);
    for (size_t r = 0; r < full.size(); ++r) {
      const size_t row = r < prompt.size() ? r : start + r - prompt.size();
      for (size_t v = 0; v < vocab; ++v) {
        ASSERT_NEAR(tree[row * vocab + v], expected[r * vocab + v], 2e-5);
        ASSERT_EQ(tree[row * vocab + v], alone[r * vocab + v]) << "tree and full text differ";
      }
    }
  }
}

TEST_P(Families, PrefillInChunksAndDecodeHaveTheBitsOfOneForward) {
  CausalLM lm(source, WeightDType::kFloat32, Trainable::kNo);
  const auto text = texts().back();
  const auto whole = floats(lm.forward(packed({text})).clone());
  const size_t width = static_cast<size_t>(lm.config().hidden_size);
  for (const size_t chunk : {size_t{1}, size_t{4}, size_t{5}, text.size()}) {
    KvStore kv(lm.config().layers, lm.config().kv_heads * lm.config().head_dim, 4);
    const int32_t node = kv.open(-1);
    for (size_t at = 0; at < text.size(); at += chunk) {
      const size_t count = std::min(chunk, text.size() - at);
      TokenBatch b = packed(
          {{text.begin() + static_cast<long>(at), text.begin() + static_cast<long>(at + count)}});
      for (auto& p : b.positions) p += static_cast<int32_t>(at);
      b.segments[0].node = node;
      ASSERT_TRUE(kv.reserve(node, static_cast<int64_t>(count)));
      const auto rows = floats(lm.forward(b, &kv));
      for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], whole[at * width + i]);
    }
  }
}

TEST_P(Families, ScoresAndGradientsAreTransformers) {
  for (const bool checkpoint : {false, true}) {
    CausalLM lm(source, WeightDType::kFloat32, Trainable::kYes);
    ScoringTape tape;
    tape.forward.checkpoint = checkpoint;
    const ScoreRequest request{ids(golden, "in.rows"), ids(golden, "in.targets")};
    const TokenScores s = score_train(lm, packed(texts()), request, 1.0, tape);
    const auto logprobs = numbers(golden, "out.logprobs");
    const auto entropy = numbers(golden, "out.entropy");
    for (size_t i = 0; i < logprobs.size(); ++i) {
      ASSERT_NEAR(s.logprobs.data_ptr<float>()[i], logprobs[i], 1e-5);
      ASSERT_NEAR(s.entropy.data_ptr<float>()[i], entropy[i], 1e-5);
    }
    std::vector<float> c, e;
    for (const double v : numbers(golden, "in.c")) c.push_back(static_cast<float>(v));
    for (const double v : numbers(golden, "in.e")) e.push_back(static_cast<float>(v));
    const int64_t m = static_cast<int64_t>(c.size());
    score_backward(lm, tape, at::from_blob(c.data(), {m}, at::kFloat),
                   at::from_blob(e.data(), {m}, at::kFloat));
    lm.finish_gradients();
    for (const auto& p : lm.parameters()) {
      for (const auto& part : p->parts) {
        const auto expected = numbers(golden, "grad." + part.name);
        std::vector<float> got(expected.size());
        p->get_part(part, p->grad, got.data());
        double largest = 1e-3;
        for (const double v : expected) largest = std::max(largest, std::abs(v));
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(got[i], expected[i], 1e-4 * largest) << part.name << " " << i;
        }
      }
    }
  }
}

TEST_P(Families, ScoresAtATemperature) {
  CausalLM lm(source, WeightDType::kFloat32, Trainable::kNo);
  const TokenScores s =
      score(lm, packed(texts()), {ids(golden, "in.rows"), ids(golden, "in.targets")}, 0.7);
  const auto logprobs = numbers(golden, "out.logprobs_t07");
  const auto entropy = numbers(golden, "out.entropy_t07");
  for (size_t i = 0; i < logprobs.size(); ++i) {
    ASSERT_NEAR(s.logprobs.data_ptr<float>()[i], logprobs[i], 2e-5);
    ASSERT_NEAR(s.entropy.data_ptr<float>()[i], entropy[i], 2e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Families,
                         testing::Values("llama", "llama_tied", "llama3", "mistral", "qwen2",
                                         "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

std::vector<std::vector<float>> gradients(CausalLM& lm) {
  std::vector<std::vector<float>> out;
  for (const auto& p : lm.parameters()) out.push_back(floats(p->grad));
  return out;
}

TEST(CausalLM, MicroBatchesInOrderGiveTheGradientBitsOfOneBatch) {
  const ModelSource source = open_model((golden_folder() / "llama_tied").string());
  std::vector<std::vector<int32_t>> texts;
  for (int32_t t = 0; t < 8; ++t) {
    texts.emplace_back();
    for (int32_t i = 0; i < 3 + 5 * (t % 4); ++i) texts.back().push_back((7 * t + 11 * i) % 64);
  }
  const auto run = [&](size_t per_batch, int threads) {
    set_num_threads(threads);
    CausalLM lm(source, WeightDType::kBfloat16, Trainable::kYes);
    ScoringTape tape;
    for (size_t at = 0; at < texts.size(); at += per_batch) {
      const TokenBatch b = packed({texts.begin() + static_cast<long>(at),
                                   texts.begin() + static_cast<long>(at + per_batch)});
      ScoreRequest request;
      std::vector<float> c;
      for (const auto& segment : b.segments) {
        for (int32_t i = 0; i + 1 < segment.length; ++i) {
          request.rows.push_back(segment.start + i);
          request.targets.push_back(b.ids[static_cast<size_t>(segment.start + i + 1)]);
          c.push_back(0.25f * static_cast<float>(i % 3) - 0.3f);
        }
      }
      (void)score_train(lm, b, request, 1.0, tape);
      score_backward(lm, tape,
                     at::from_blob(c.data(), {static_cast<int64_t>(c.size())}, at::kFloat), {});
    }
    lm.finish_gradients();
    set_num_threads(2);
    return gradients(lm);
  };
  const auto whole = run(8, 2);
  EXPECT_EQ(run(1, 2), whole);
  EXPECT_EQ(run(2, 1), whole);
  EXPECT_EQ(run(4, 3), whole);
}

TEST(Float16, AMatrixBeyondItsRangeIsRefusedByName) {
  const auto load = [](const std::string& name, float value, WeightDType dtype) -> std::string {
    ModelSource source = open_model((golden_folder() / "llama").string());
    source.weights = std::make_shared<OneReplaced>(source.weights, name, value);
    try {
      const CausalLM lm(source, dtype, Trainable::kNo);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const std::string matrix = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(load(matrix, 65520, WeightDType::kFloat16),
            "[load] " + matrix + " holds 65520, which float16 cannot; use another weight type");
  EXPECT_EQ(load(matrix, -65519, WeightDType::kFloat16), "");
  EXPECT_EQ(load(matrix, 65520, WeightDType::kBfloat16), "");
  EXPECT_EQ(load("model.norm.weight", 65520, WeightDType::kFloat16), "");  // Stays float32.
}

TEST(Float16, WeightsAreTheRoundedOnesOfTheFile) {
  const ModelSource source = open_model((golden_folder() / "llama").string());
  const CausalLM exact(source, WeightDType::kFloat32, Trainable::kNo);
  const CausalLM lm(source, WeightDType::kFloat16, Trainable::kNo);
  for (size_t i = 0; i < lm.parameters().size(); ++i) {
    const Parameter& p = *lm.parameters()[i];
    const at::Tensor value = exact.parameters()[i]->value;
    if (!p.matrix) {
      EXPECT_TRUE(p.value.equal(value)) << p.name;
      continue;
    }
    EXPECT_FALSE(p.value.defined()) << p.name;
    EXPECT_EQ(p.packed().bf16, nullptr);
    // [panel][pair][row][2] back to the order of float32 panels.
    const at::Tensor words = p.half.view({-1, kernels::kPanel, 2}).transpose(1, 2).reshape({-1});
    EXPECT_TRUE(words.equal(value.to(at::kHalf))) << p.name;
  }
}

TEST(CausalLM, RefusesBadBatchesByName) {
  CausalLM lm(open_model((golden_folder() / "llama").string()), WeightDType::kFloat32,
              Trainable::kNo);
  const auto error = [&](const TokenBatch& b) -> std::string {
    try {
      (void)lm.forward(b);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error(packed({{1, 64}})).find("id 64 at row 1 is outside [0, 64)"), std::string::npos);
  EXPECT_NE(error({}).find("no tokens"), std::string::npos);
  TokenBatch b = packed({{1, 2}});
  b.segments[0].length = 1;
  EXPECT_NE(error(b).find("segments cover 1 of 2"), std::string::npos);
  b = packed({{1, 2}});
  b.positions[1] = 1 << 30;
  EXPECT_NE(error(b).find("outside the model's context"), std::string::npos);
}

TEST(SmolLM2, LogitsLogprobsAndGradientsAreTransformers) {
  if (!std::filesystem::exists(default_model()))
    GTEST_SKIP() << "run scripts/setup for the default model";
  const auto golden = SafetensorsFile::open(golden_folder() / "smollm2.safetensors");
  CausalLM lm(open_model(default_model().string()), WeightDType::kFloat32, Trainable::kYes);
  const TokenBatch b = packed(split(ids(golden, "in.ids"), ids(golden, "in.offsets")));
  ScoringTape tape;
  const ScoreRequest request{ids(golden, "in.rows"), ids(golden, "in.targets")};
  const TokenScores s = score_train(lm, b, request, 1.0, tape);
  const at::Tensor hidden =
      at::from_blob(tape.forward.hidden.data(), {b.rows(), lm.config().hidden_size}, at::kFloat);
  const auto got = logits(lm, hidden);
  const auto columns = ids(golden, "in.columns");
  const auto expected = numbers(golden, "out.logits");
  const auto top = ids(golden, "out.top_ids");
  const auto top_logits = numbers(golden, "out.top_logits");
  const size_t vocab = static_cast<size_t>(lm.config().vocab_size);
  for (size_t r = 0; r < static_cast<size_t>(b.rows()); ++r) {
    for (size_t i = 0; i < columns.size(); ++i) {
      ASSERT_NEAR(got[r * vocab + static_cast<size_t>(columns[i])],
                  expected[r * columns.size() + i], 1e-4);
    }
    for (size_t i = 0; i < 5; ++i) {
      ASSERT_NEAR(got[r * vocab + static_cast<size_t>(top[r * 5 + i])], top_logits[r * 5 + i],
                  1e-4);
    }
  }
  const auto logprobs = numbers(golden, "out.logprobs");
  const auto entropy = numbers(golden, "out.entropy");
  for (size_t i = 0; i < logprobs.size(); ++i) {
    ASSERT_NEAR(s.logprobs.data_ptr<float>()[i], logprobs[i], 5e-5);
    ASSERT_NEAR(s.entropy.data_ptr<float>()[i], entropy[i], 5e-5);
  }
  const int64_t m = static_cast<int64_t>(logprobs.size());
  std::vector<float> c(logprobs.size(), -1.0f / static_cast<float>(m));
  score_backward(lm, tape, at::from_blob(c.data(), {m}, at::kFloat), {});
  lm.finish_gradients();
  const double sign =
      numbers(golden, "out.loss")[0] > 0 ? 1 : -1;  // Loss = -mean logprob, or its negative.
  for (const auto& p : lm.parameters()) {
    for (const auto& part : p->parts) {
      if (!golden.has("grad." + part.name)) continue;
      std::vector<float> all(static_cast<size_t>(part.rows * p->k));
      p->get_part(part, p->grad, all.data());
      const auto index = ids(golden, "grad_index." + part.name);
      const auto expect = numbers(golden, "grad." + part.name);
      double error = 0, norm = 0;
      for (size_t i = 0; i < index.size(); ++i) {
        // transformers leaves the input gradient of the padding row out (padding_idx); ours is whole.
        if (p->name == "embed_tokens" && index[i] / p->k == *lm.config().pad_token_id) continue;
        const double got_one = all[static_cast<size_t>(index[i])];
        error += std::pow(got_one - sign * expect[i], 2);
        norm += std::pow(expect[i], 2);
      }
      EXPECT_LT(std::sqrt(error / norm), 1e-4) << part.name;
    }
  }
}

}  // namespace
}  // namespace temper
