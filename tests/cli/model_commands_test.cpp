// Commands that read the default model. Golden values are transformers'
// (tests/golden/make_models.py). Every call loads the model anew, so a test makes several checks of
// one call.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "cli/run_program.h"
#include "temper/formats/peft.h"
#include "temper/formats/safetensors.h"

namespace temper::cli_test {
namespace {

const std::string kModel = TEMPER_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";

#define NEEDS_MODEL() \
  if (!fs::exists(kModel)) GTEST_SKIP() << "run scripts/setup for the default model"

template <class T>
std::vector<T> golden(const char* name) {
  static const auto file =
      SafetensorsFile::open(TEMPER_SOURCE_DIR "/tests/golden/models/smollm2.safetensors");
  const TensorView& t = file.at(name);
  std::vector<T> out(static_cast<size_t>(t.numel()));
  EXPECT_EQ(t.data.size(), out.size() * sizeof(T)) << name;
  std::memcpy(out.data(), t.data.data(), t.data.size());
  return out;
}

std::string join(const std::vector<int64_t>& ids) {
  std::string text;
  for (const int64_t id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

std::vector<std::string> keys(const Json& json) {
  std::vector<std::string> out;
  for (const auto& [key, value] : json.items()) out.push_back(key);
  return out;
}

std::vector<Json> json_lines(const std::string& text) {
  std::vector<Json> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    out.push_back(Json::parse(line, nullptr, false));
  return out;
}

TEST(CliModel, GreedyIsThatOfTransformers) {
  NEEDS_MODEL();
  const auto ids = golden<int64_t>("greedy.ids");
  const Outcome o =
      temper({"generate", "--model", kModel, "--ids", join(golden<int64_t>("greedy.prompt")),
              "--temperature", "0", "--max-new-tokens", std::to_string(ids.size()), "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = o.json();
  ASSERT_EQ(keys(json), (Words{"ids", "text", "logprobs"})) << o.out;
  EXPECT_EQ(json["ids"].get<std::vector<int64_t>>(), ids);
  EXPECT_EQ(json["logprobs"].size(), ids.size());
  EXPECT_EQ(json["text"].get<std::string>().rfind("The", 0), 0u) << json["text"];
}

TEST(CliModel, LogprobsAreThoseOfTransformers) {
  NEEDS_MODEL();
  // The first of the packed texts; its scored rows come first.
  const auto offsets = golden<int64_t>("in.offsets");
  auto ids = golden<int64_t>("in.ids");
  ids.resize(static_cast<size_t>(offsets[1]));
  const Outcome o = temper({"logprobs", "--model", kModel, "--ids", join(ids), "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = o.json();
  ASSERT_EQ(keys(json), (Words{"ids", "logprobs", "entropy"})) << o.out;
  EXPECT_EQ(json["ids"].get<std::vector<int64_t>>(), ids);
  const auto logprobs = json["logprobs"].get<std::vector<double>>();
  const auto entropy = json["entropy"].get<std::vector<double>>();
  ASSERT_EQ(logprobs.size(), ids.size() - 1);
  ASSERT_EQ(entropy.size(), ids.size());
  const auto expected = golden<double>("out.logprobs");
  const auto expected_entropy = golden<double>("out.entropy");
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    EXPECT_NEAR(logprobs[i], expected[i], 1e-4) << i;
    EXPECT_NEAR(entropy[i], expected_entropy[i], 1e-4) << i;
  }
}

TEST(CliModel, SampledTokensKeepTheirBitsWhenTheyAreScored) {
  NEEDS_MODEL();
  auto ids = golden<int64_t>("greedy.prompt");
  const Words call{"generate", "--model",          kModel, "--ids",
                   join(ids),  "--temperature",    "0.8",  "--seed",
                   "7",        "--max-new-tokens", "6",    "--json"};
  const Outcome first = temper(call);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(temper(call).out, first.out) << "same seed, same answer";
  const Json sampled = first.json();
  const size_t prompt = ids.size();
  for (const auto& id : sampled["ids"]) ids.push_back(id.get<int64_t>());
  ASSERT_GT(ids.size(), prompt);
  const Outcome scored =
      temper({"logprobs", "--model", kModel, "--ids", join(ids), "--temperature", "0.8", "--json"});
  ASSERT_EQ(scored.code, 0) << scored.err;
  const auto before = sampled["logprobs"].get<std::vector<float>>();
  const auto after = scored.json()["logprobs"].get<std::vector<float>>();
  ASSERT_EQ(after.size(), ids.size() - 1);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(before[i]), std::bit_cast<uint32_t>(after[prompt - 1 + i]))
        << i;
  }
}

// Layer 0's gate becomes W + 0.05 1 1^T: log-probs move, and those of another model's adapter cannot be had.
TEST(CliModel, LogprobsUnderAnAdapter) {
  NEEDS_MODEL();
  const fs::path folder = fs::path(testing::TempDir()) / "temper_cli_adapter";
  const std::string module = "model.layers.0.mlp.gate_proj";
  AdapterConfig config;
  config.r = 1;
  config.alpha = 0.05;
  config.target_modules = {module};
  const auto ones = [](std::span<float> values) { std::fill(values.begin(), values.end(), 1.0f); };
  const std::vector<WriteTensor> tensors = {{peft_name_a(module), {1, 576}, ones},
                                            {peft_name_b(module), {1536, 1}, ones}};
  write_peft_adapter(folder, config, tensors);
  Words call{"logprobs", "--model", kModel, "--ids", "504,4626,37331", "--json"};
  const Json plain = temper(call).json();
  call.insert(call.end(), {"--adapter", folder.string()});
  const Outcome adapted = temper(call);
  ASSERT_EQ(adapted.code, 0) << adapted.err;
  for (size_t i = 0; i < plain["logprobs"].size(); ++i) {
    EXPECT_GT(std::abs(plain["logprobs"][i].get<double>() - adapted.json()["logprobs"][i].get<double>()), 1e-3);
  }
  call.back() = TEMPER_SOURCE_DIR "/tests/golden/adapters/lora";
  const Outcome other = temper(call);
  EXPECT_NE(other.code, 0);
  EXPECT_TRUE(other.says("the model's 576 x 576")) << other.err;
  fs::remove_all(folder);
}

TEST(CliModel, ChecksItsOwnExactness) {
  NEEDS_MODEL();
  const Outcome o = temper({"check", "exact", "--model", kModel, "--tokens", "1000", "--precision",
                            "bfloat16_dot", "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = o.json();
  ASSERT_EQ(keys(json), (Words{"tokens", "mismatched", "control_mismatched", "control_tokens",
                               "conditions"}))
      << o.out;
  EXPECT_GE(json["tokens"], 1000);
  EXPECT_EQ(json["mismatched"], 0);
  EXPECT_GT(json["control_mismatched"], 0);
  EXPECT_LE(json["control_mismatched"], json["control_tokens"]);
  EXPECT_EQ(json["conditions"].size(), 17u);
  int64_t tokens = 0;
  for (const auto& [name, count] : json["conditions"].items()) {
    EXPECT_EQ(name.rfind("bfloat16_dot/", 0), 0u) << name;
    EXPECT_EQ(keys(count), (Words{"tokens", "mismatched"})) << name;
    tokens += count["tokens"].get<int64_t>();
  }
  EXPECT_EQ(tokens, json["tokens"].get<int64_t>());
  EXPECT_TRUE(o.says("left ")) << o.err;
}

TEST(CliModel, ReferenceKernelsGiveTheSameNumbersWithinRounding) {
  NEEDS_MODEL();
  Words call{"generate", "--model", kModel, "--ids", join(golden<int64_t>("greedy_plain.prompt")),
             "--temperature", "0", "--max-new-tokens", "4", "--json"};
  const Json cpu = temper(call).json();
  call.insert(call.end(), {"--kernels", "reference"});
  const Outcome o = temper(call);
  ASSERT_EQ(o.code, 0) << o.err;
  const Json reference = o.json();
  EXPECT_EQ(reference["ids"], cpu["ids"]);
  EXPECT_NE(reference["logprobs"], cpu["logprobs"]) << "the CPU kernels ran in both";
  for (size_t i = 0; i < cpu["logprobs"].size(); ++i) {
    EXPECT_NEAR(reference["logprobs"][i].get<double>(), cpu["logprobs"][i].get<double>(), 1e-4) << i;
  }
}

TEST(CliModel, GenerateStreamsTextAndSaysWhenItCannot) {
  NEEDS_MODEL();
  const Words call{"generate",
                   "--model",
                   kModel,
                   "--prompt",
                   "The capital of France is",
                   "--temperature",
                   "0",
                   "--max-new-tokens",
                   "3"};
  const Outcome o = temper(call);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("Paris"), std::string::npos) << o.out;
  EXPECT_EQ(o.out.back(), '\n');
  if (!fs::exists("/dev/full")) return;
  const Outcome full = temper(call, "/dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_TRUE(full.says("error: cannot write to stdout")) << full.err;
}

TEST(CliModel, ChatEndsAtAnEmptyLine) {
  NEEDS_MODEL();
  const Outcome o =
      temper({"chat", "--model", kModel, "--temperature", "0", "--max-new-tokens", "4"}, "",
             "Say hello.\n\nnot read\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(std::count(o.out.begin(), o.out.end(), '\n'), 1) << o.out;
  EXPECT_GT(o.out.size(), 1u);
}

TEST(CliModel, EvalAnswersInJson) {
  NEEDS_MODEL();
  const Outcome o =
      temper({"eval", "--model", kModel, "--task", "arithmetic", "--set", "task.level=1", "--set",
              "eval.prompts=3", "--set", "rollout.max_new_tokens=4", "--samples"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = o.json();
  ASSERT_EQ(keys(json),
            (Words{"task", "model", "correct", "count", "interval_95", "metrics", "samples"}))
      << o.out;
  EXPECT_EQ(json["task"], "arithmetic");
  EXPECT_EQ(json["count"], 3);
  EXPECT_EQ(json["samples"].size(), 3u);
  EXPECT_EQ(keys(json["samples"][0]), (Words{"prompt", "completion"}));
  EXPECT_LE(json["metrics"]["eval/completions/mean_length"], 4.0);
  // Wilson's interval contains the share, within [0, 1].
  const double share = json["correct"].get<double>() / 3;
  EXPECT_LE(json["interval_95"][0], share);
  EXPECT_GE(json["interval_95"][1], share);
}

TEST(CliModel, TokenizesLineByLine) {
  NEEDS_MODEL();
  const Folder folder;
  const std::string file = folder.write("texts.jsonl",
                                        "{\"text\": \"Hello world\"}\n\n{\"text\": "
                                        "\"\"}\r\n{\"text\": \"<|im_end|>\", \"more\": 1}\n");
  const Outcome o = temper({"tokenize", "--model", kModel, "--file", file});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "{\"ids\":[19556,905]}\n{\"ids\":[]}\n{\"ids\":[2]}\n");
  const auto plain =
      json_lines(temper({"tokenize", "--model", kModel, "--file", file, "--plain"}).out);
  ASSERT_EQ(plain.size(), 3u);
  EXPECT_GT(plain[2]["ids"].size(), 1u) << "typed special tokens are text";
  if (!fs::exists("/dev/full")) return;
  const Outcome full = temper({"tokenize", "--model", kModel, "--file", file}, "/dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_EQ(full.err, "error: cannot write to stdout\n");
}

TEST(CliModel, RendersConversations) {
  NEEDS_MODEL();
  const Folder folder;
  const std::string file =
      folder.write("chats.jsonl",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": "
                   "\"user\", \"content\": \"Hi\"}]}\n"
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"Two\"}]}\n");
  const Outcome o = temper({"template", "--model", kModel, "--file", file});
  ASSERT_EQ(o.code, 0) << o.err;
  const auto lines = json_lines(o.out);
  ASSERT_EQ(lines.size(), 2u) << o.out;
  EXPECT_EQ(lines[0]["text"],
            "<|im_start|>system\nBe "
            "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  const std::string second = lines[1]["text"];
  EXPECT_TRUE(second.ends_with("<|im_start|>user\nTwo<|im_end|>\n<|im_start|>assistant\n"))
      << second;
}

TEST(CliModel, BadRowsAreNamedByFileAndLine) {
  NEEDS_MODEL();
  const Folder folder;
  const auto expect = [&](const char* command, const std::string& content,
                          const std::string& part) {
    const std::string file = folder.write("rows.jsonl", content);
    const Outcome o = temper({command, "--model", kModel, "--file", file});
    EXPECT_EQ(o.code, 1) << part;
    EXPECT_TRUE(o.says(file + ":" + part)) << "expected: " << part << "\ncame: " << o.err;
  };
  expect("tokenize", "{\"text\": \"a\"}\n{\"text\":\n", "2: not valid JSON");
  expect("tokenize", "[1]\n", "1: expected a JSON object, got array");
  expect("tokenize", "\n{\"txt\": \"a\"}\n", "2: the key \"text\" is missing");
  expect("tokenize", "{\"text\": 3}\n", "1: \"text\" must be a string, got number");
  expect("template", "{\"messages\": []}\n", "1: ");
  expect("template", "{\"messages\": [{\"role\": \"user\"}]}\n", "1: ");
  const Outcome missing = temper({"tokenize", "--model", kModel, "--file", folder / "none.jsonl"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_TRUE(missing.says(folder / "none.jsonl")) << missing.err;
}

TEST(CliModel, InspectsAndConverts) {
  NEEDS_MODEL();
  const Folder folder;
  const Outcome gguf = temper({"inspect", kModel});
  ASSERT_EQ(gguf.code, 0) << gguf.err;
  EXPECT_EQ(gguf.json()["family"], "llama");
  EXPECT_EQ(gguf.json()["layers"], 30);
  EXPECT_EQ(gguf.json()["parameters"], 134515008);
  const std::string out = folder / "model";
  const Outcome converted = temper({"convert", "--model", kModel, "--output", out});
  ASSERT_EQ(converted.code, 0) << converted.err;
  EXPECT_EQ(converted.out, "");
  const Outcome inspected = temper({"inspect", out});
  ASSERT_EQ(inspected.code, 0) << inspected.err;
  Json before = gguf.json(), after = inspected.json();
  before.erase("path");
  after.erase("path");
  EXPECT_EQ(before, after);
  // Float32 holds every value of the quantized file, so even the log-probs keep their bits.
  const auto generate = [](const std::string& model) {
    return temper({"generate", "--model", model, "--ids",
                   join(golden<int64_t>("greedy_plain.prompt")), "--temperature", "0",
                   "--max-new-tokens", "8", "--json"});
  };
  const Outcome from_folder = generate(out);
  ASSERT_EQ(from_folder.code, 0) << from_folder.err;
  EXPECT_EQ(from_folder.out, generate(kModel).out);
  auto expected = golden<int64_t>("greedy_plain.ids");
  expected.resize(8);
  EXPECT_EQ(from_folder.json()["ids"].get<std::vector<int64_t>>(), expected);
}

}  // namespace
}  // namespace temper::cli_test
