#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "error_of.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/core/threads.h"
#include "temper/formats/hf_folder.h"
#include "temper/nn/models.h"
#include "temper/trainer/grpo.h"
#include "temper/trainer/jsonl_observer.h"

namespace temper::testing_trainer {

namespace fs = std::filesystem;

/// Ids: 0 <|im_start|>, 1 <|im_end|> (ends a text), 2 line feed, 3... the printable ASCII characters.
inline constexpr int32_t kEos = 1;
inline constexpr int32_t kVocabulary = 98;

inline std::string tiny_tokenizer_json() {
  nlohmann::json vocab = {{"<|im_start|>", 0}, {"<|im_end|>", kEos}, {"\n", 2}};
  for (int i = 3; i < kVocabulary; ++i) vocab[std::string(1, static_cast<char>(' ' + i - 3))] = i;
  const auto special = [](int id, const char* text) {
    return nlohmann::json{{"id", id}, {"content", text}, {"special", true}, {"normalized", false}};
  };
  return nlohmann::json{{"added_tokens", {special(0, "<|im_start|>"), special(kEos, "<|im_end|>")}},
                        {"normalizer", nullptr},
                        {"pre_tokenizer", nullptr},
                        {"post_processor", nullptr},
                        {"decoder", {{"type", "Fuse"}}},
                        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}}
      .dump();
}

inline ModelSource tiny_source() {
  ModelSource s;
  ModelConfig& c = s.config;
  c.family = "llama";
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.vocab_size = kVocabulary;
  c.max_positions = 256;
  c.tied = true;
  c.eos_token_ids = {kEos};
  s.tokenizer.tokenizer_json = tiny_tokenizer_json();
  s.generation.eos_token_ids = {kEos};
  s.chat_template =
      "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  return s;
}

inline std::vector<WriteTensor> tiny_tensors() {
  std::vector<WriteTensor> out;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    const uint64_t stream = out.size();
    const bool norm = shape.size() == 1;
    out.push_back({std::move(name), std::move(shape), [stream, norm](std::span<float> values) {
                     RngStream rng(7, RngPurpose::kTest, stream);
                     for (float& v : values) {
                       v = static_cast<float>((norm ? 1.0 : 0.0) + 0.5 * (rng.next_uniform() - 0.5));
                     }
                   }});
  };
  add("model.embed_tokens.weight", {kVocabulary, 32});
  for (int i = 0; i < 2; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {32});
    add(layer + "self_attn.q_proj.weight", {32, 32});
    add(layer + "self_attn.k_proj.weight", {16, 32});
    add(layer + "self_attn.v_proj.weight", {16, 32});
    add(layer + "self_attn.o_proj.weight", {32, 32});
    add(layer + "post_attention_layernorm.weight", {32});
    add(layer + "mlp.gate_proj.weight", {48, 32});
    add(layer + "mlp.up_proj.weight", {48, 32});
    add(layer + "mlp.down_proj.weight", {32, 48});
  }
  add("model.norm.weight", {32});
  return out;
}

/// The folder of a random two-layer Llama with a character tokenizer, made once a process.
inline const fs::path& tiny_model() {
  struct Folder {
    fs::path path = fs::path(testing::TempDir()) / ("temper_tiny_model_" + std::to_string(getpid()));
    Folder() {
      set_num_threads(1);  // Products this small only wait for each other; one test asks for more.
      write_hf_folder(path, tiny_source(), tiny_tensors(), {});
    }
    ~Folder() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

inline PolicyModel tiny_policy(WeightDType dtype = WeightDType::kFloat32) {
  return PolicyModel::load(tiny_model().string(), dtype);
}

/// All master weights, in the model's order.
inline std::vector<std::vector<float>> weights_of(const PolicyModel& policy) {
  std::vector<std::vector<float>> out;
  for (const auto& p : policy.lm().parameters()) out.emplace_back(p->data(), p->data() + p->elements());
  return out;
}

inline double largest_difference(const std::vector<std::vector<float>>& a,
                                 const std::vector<std::vector<float>>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[i].size(); ++j) most = std::max(most, std::abs(double{a[i][j]} - double{b[i][j]}));
  }
  return most;
}

/// Everything but clocks, with the bits of the numbers: NaN equals NaN.
inline std::map<std::string, uint64_t> lasting(const Metrics& metrics) {
  std::map<std::string, uint64_t> out;
  for (const auto& [name, value] : metrics) {
    if (!is_wall_clock(name)) std::memcpy(&out[name], &value, 8);
  }
  return out;
}

/// A reward with a spread in every group: the sum of the ids, mod 5.
inline std::vector<NamedReward> id_sum_reward() {
  return {{"id_sum", per_completion([](const Completion& c) {
             int64_t sum = 0;
             for (const int32_t id : c.ids) sum += id;
             return static_cast<float>(sum % 5) / 4.0f;
           })}};
}

inline Dataset tiny_prompts() {
  TaskConfig task;
  task.prompt_template = "{question}=";
  task.train_size = 20;
  task.held_out_size = 5;
  return make_task(task).train;
}

/// A trainer's parts: 3 prompts x 4 completions of very different lengths.
inline OnlineTrainer::Parts tiny_parts(int64_t steps = 3) {
  OnlineTrainer::Parts p;
  p.rollout.max_new_tokens = 16;
  p.rollout.stop = {"a", "e", "i", "0", "5", "7", "T", "?"};
  p.schedule = {.shape = "constant", .learning_rate = 0.01};
  p.rewards = id_sum_reward();
  p.prompts = tiny_prompts();
  p.total_steps = steps;
  p.seed = 11;
  return p;
}

inline GrpoConfig tiny_grpo(const std::string& loss = "dapo") {
  GrpoConfig g;
  g.loss.select(loss);
  g.online.group_size = 4;
  g.online.prompts_per_step = 3;
  return g;
}

}  // namespace temper::testing_trainer
