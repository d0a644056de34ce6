#include "temper/formats/hf_folder.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "formats/temp_folder.h"
#include "temper/core/error.h"
#include "temper/formats/model_source.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const fs::path kEmbedded = fs::path(TEMPER_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";

constexpr const char* kConfig = R"({"model_type": "llama", "hidden_size": 4, "intermediate_size": 8,
  "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10, "eos_token_id": 3,
  "my_key": 7})";

void write_floats(const fs::path& path, const std::vector<std::string>& names) {
  static const std::vector<float> values{1.0f, 2.0f};
  std::vector<NamedTensor> tensors;
  for (const std::string& name : names) {
    tensors.push_back({name, DType::kF32, {2}, std::as_bytes(std::span(values))});
  }
  write_safetensors(path, tensors);
}

void write_index(const TempFolder& folder, const std::string& weight_map) {
  write_text(folder / "model.safetensors.index.json", R"({"weight_map": )" + weight_map + "}");
}

/// Sets an environment variable for one scope.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~ScopedEnv() {
    if (old_) {
      ::setenv(name_, old_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }
  ScopedEnv(const ScopedEnv&) = delete;
  ScopedEnv& operator=(const ScopedEnv&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST(HfFolder, OpensOneFile) {
  const TempFolder folder;
  write_text(folder / "config.json", kConfig);
  write_floats(folder / "model.safetensors", {"a", "b"});
  write_text(folder / "tokenizer.json", "{}");
  write_text(folder / "tokenizer.model", std::string("\0\1", 2));
  const ModelSource model = open_model(folder.path().string());
  EXPECT_EQ(model.config.hidden_size, 4);
  EXPECT_EQ(model.config_json, kConfig);
  EXPECT_EQ(model.path, folder.path().string());
  EXPECT_EQ(model.weights->names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(model.weights->shape("a"), std::vector<int64_t>{2});
  std::vector<float> out(2);
  model.weights->read_float("b", out);
  EXPECT_EQ(out, (std::vector<float>{1.0f, 2.0f}));
  EXPECT_EQ(model.tokenizer.tokenizer_json, "{}");
  EXPECT_EQ(model.tokenizer.sentencepiece_model, std::string("\0\1", 2));
  EXPECT_TRUE(model.tokenizer.merges_txt.empty());
  EXPECT_TRUE(model.chat_template.empty());
  EXPECT_EQ(model.generation.eos_token_ids, std::vector<int32_t>{3});
  EXPECT_ERROR(model.weights->shape("c"), "has no tensor \"c\"");
  out.resize(3);
  EXPECT_ERROR(model.weights->read_float("b", out), "tensor \"b\"");
}

TEST(HfFolder, GenerationConfigWins) {
  const TempFolder folder;
  write_text(folder / "config.json", kConfig);
  write_floats(folder / "model.safetensors", {"a"});
  write_text(folder / "generation_config.json",
             R"({"eos_token_id": [4, 5], "bos_token_id": 1, "pad_token_id": null})");
  const GenerationConfig g = open_model(folder.path().string()).generation;
  EXPECT_EQ(g.eos_token_ids, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(g.bos_token_id, 1);
  EXPECT_FALSE(g.pad_token_id.has_value());
  write_text(folder / "generation_config.json", R"({"eos_token_id": 10})");
  EXPECT_ERROR(open_model(folder.path().string()), "the token id 10 lies outside");
}

TEST(HfFolder, ChatTemplateFileWinsOverTheKey) {
  const TempFolder folder;
  write_text(folder / "config.json", kConfig);
  write_floats(folder / "model.safetensors", {"a"});
  const auto open = [&] { return open_model(folder.path().string()).chat_template; };
  write_text(folder / "tokenizer_config.json", R"({"chat_template": "key"})");
  EXPECT_EQ(open(), "key");
  write_text(folder / "tokenizer_config.json",
             R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                   {"name": "default", "template": "d"}]})");
  EXPECT_EQ(open(), "d");
  write_text(folder / "tokenizer_config.json", R"({"chat_template": [3]})");
  EXPECT_ERROR(open(), "is not {name, template}");
  write_text(folder / "chat_template.jinja", "file");
  EXPECT_EQ(open(), "file");
}

TEST(HfFolder, OpensShards) {
  const TempFolder folder;
  write_text(folder / "config.json", kConfig);
  write_floats(folder / "model-00001-of-00002.safetensors", {"a", "unlisted"});
  write_floats(folder / "model-00002-of-00002.safetensors", {"b"});
  write_index(folder, R"({"a": "model-00001-of-00002.safetensors",
                          "b": "model-00002-of-00002.safetensors"})");
  const ModelSource model = open_model(folder.path().string());
  EXPECT_EQ(model.weights->names(), (std::vector<std::string>{"a", "b"}));
  // The single file is what transformers looks for first.
  write_floats(folder / "model.safetensors", {"c"});
  EXPECT_EQ(open_model(folder.path().string()).weights->names(), std::vector<std::string>{"c"});
}

TEST(HfFolder, RefusesBadIndexes) {
  const TempFolder folder;
  write_text(folder / "config.json", kConfig);
  write_floats(folder / "one.safetensors", {"a"});
  write_floats(folder / "two.safetensors", {"b"});
  const auto open = [&](const std::string& weight_map) {
    write_index(folder, weight_map);
    return open_model(folder.path().string());
  };
  EXPECT_EQ(open(R"({"a": "one.safetensors"})").weights->names().size(), 1u);
  EXPECT_ERROR(open(R"({"a": "../one.safetensors"})"), "must not leave its folder");
  EXPECT_ERROR(open(R"({"a": "/etc/passwd"})"), "must not leave its folder");
  EXPECT_ERROR(open(R"({"a": ".."})"), "must not leave its folder");
  EXPECT_ERROR(open(R"({"a": "one.safetensors\u0000"})"), "expected a plain file name");
  EXPECT_ERROR(open(R"({"a": "three.safetensors"})"), "names the shard \"three.safetensors\"");
  EXPECT_ERROR(open(R"({"a": "two.safetensors"})"), "does not hold it");
  EXPECT_ERROR(open(R"({"a": 1})"), "must be a file name");
  EXPECT_ERROR(open("{}"), "missing or empty");
  EXPECT_ERROR(open("["), "not valid JSON");
  EXPECT_ERROR(open(std::string(100, '[')), "nested deeper");
}

TEST(HfFolder, RefusesLinksOutOfTheFolder) {
  const TempFolder folder;
  write_text(folder / "model/config.json", kConfig);
  write_floats(folder / "outside.safetensors", {"a"});
  write_floats(folder / "model/inside.safetensors", {"a"});
  fs::create_symlink("../outside.safetensors", folder / "model/model.safetensors");
  EXPECT_ERROR(open_hf_folder(folder / "model"), "is a link out of the model's folder");
  fs::remove(folder / "model/model.safetensors");
  fs::create_symlink("inside.safetensors", folder / "model/model.safetensors");
  EXPECT_EQ(open_hf_folder(folder / "model").weights->names().size(), 1u);
}

TEST(HfFolder, SaysWhatIsMissing) {
  const TempFolder folder;
  EXPECT_ERROR(open_hf_folder(folder / "absent"), "is no folder");
  EXPECT_ERROR(open_hf_folder(folder.path()), "has no config.json");
  write_text(folder / "adapter_config.json", "{}");
  EXPECT_ERROR(open_hf_folder(folder.path()), "it is an adapter");
  write_text(folder / "config.json", kConfig);
  EXPECT_ERROR(open_hf_folder(folder.path()), "holds neither model.safetensors nor");
  write_text(folder / "pytorch_model.bin", "x");
  EXPECT_ERROR(open_hf_folder(folder.path()), "convert its pytorch_model.bin");
  write_floats(folder / "w.safetensors", {"a"});
  EXPECT_ERROR(open_model((folder / "w.safetensors").string()), "give the folder");
  EXPECT_ERROR(open_model((folder / "pytorch_model.bin").string()), "is no GGUF file");
}

TEST(HubCache, FindsTheCommitThatMainNames) {
  const TempFolder folder;
  const ScopedEnv cache("HF_HUB_CACHE", folder.path().string());
  const std::string repo = "models--org--name/";
  write_text(folder / (repo + "refs/main"), "abc123");
  write_text(folder / (repo + "blobs/1"), kConfig);
  write_floats(folder / (repo + "blobs/2"), {"a"});
  fs::create_directories(folder / (repo + "snapshots/abc123"));
  fs::create_symlink("../../blobs/1", folder / (repo + "snapshots/abc123/config.json"));
  fs::create_symlink("../../blobs/2", folder / (repo + "snapshots/abc123/model.safetensors"));
  EXPECT_EQ(find_in_hub_cache("org/name"), folder / (repo + "snapshots/abc123"));
  EXPECT_EQ(open_model("org/name").weights->names(), std::vector<std::string>{"a"});

  write_text(folder / "secret", "x");
  fs::create_symlink("../../../secret", folder / (repo + "snapshots/abc123/tokenizer.json"));
  EXPECT_ERROR(open_model("org/name"), "is a link out of the model's folder");
  write_text(folder / (repo + "refs/main"), "../../..");
  EXPECT_ERROR(open_model("org/name"), "must not leave its folder");
}

TEST(HubCache, SaysWhereItLookedAndHowToFetch) {
  const TempFolder folder;
  const ScopedEnv cache("HF_HUB_CACHE", folder.path().string());
  EXPECT_ERROR(open_model("org/name"), (folder / "models--org--name").string());
  EXPECT_ERROR(open_model("org/name"), "`hf download org/name`");
  for (const char* bad : {"", "a/b/c", "/abs/name", "../up", "a b", "a/", "a--b", "org/.x"}) {
    EXPECT_ERROR(open_model(bad), "is no file, no folder and no hub id");
  }
}

TEST(HubCache, RootsInTheOrderOfTheHubLibrary) {
  const TempFolder folder;
  const ScopedEnv a("HF_HUB_CACHE", "");
  const ScopedEnv b("HUGGINGFACE_HUB_CACHE", "");
  const ScopedEnv c("HF_HOME", "");
  const ScopedEnv d("XDG_CACHE_HOME", "");
  const ScopedEnv e("HOME", "/nowhere/home");
  EXPECT_ERROR(find_in_hub_cache("x"), "/nowhere/home/.cache/huggingface/hub/models--x/");
  const ScopedEnv f("XDG_CACHE_HOME", "/nowhere/xdg");
  EXPECT_ERROR(find_in_hub_cache("x"), "/nowhere/xdg/huggingface/hub/models--x/");
  const ScopedEnv g("HF_HOME", "/nowhere/hf");
  EXPECT_ERROR(find_in_hub_cache("x"), "/nowhere/hf/hub/models--x/");
  const ScopedEnv h("HUGGINGFACE_HUB_CACHE", "/nowhere/old");
  EXPECT_ERROR(find_in_hub_cache("x"), "/nowhere/old/models--x/");
  const ScopedEnv i("HF_HUB_CACHE", "/nowhere/new");
  EXPECT_ERROR(find_in_hub_cache("x"), "/nowhere/new/models--x/");
}

/// A model to write: the config above, one tensor a name, filled with its index plus a half.
ModelSource meta() {
  ModelSource m;
  m.path = "meta";
  m.config_json = kConfig;
  m.config = parse_model_config(Json::parse(kConfig), "config.json");
  m.tokenizer.tokenizer_json = "{\"t\":1}";
  m.tokenizer.tokenizer_config_json = R"({"eos_token":"<e>"})";
  m.chat_template = "template";
  m.generation.eos_token_ids = {3, 4};
  return m;
}

std::vector<WriteTensor> tensors(size_t n) {
  std::vector<WriteTensor> result;
  for (size_t i = 0; i < n; ++i) {
    result.push_back({"t" + std::to_string(i), {2, 5}, [i](std::span<float> out) {
                        for (float& v : out) v = static_cast<float>(i) + 0.5f;
                      }});
  }
  return result;
}

TEST(WriteHfFolder, RoundTripsInEveryDtype) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const TempFolder folder;
    write_hf_folder(folder / "out", meta(), tensors(3), {dtype, 1'000'000});
    EXPECT_EQ(SafetensorsFile::open(folder / "out/model.safetensors").at("t1").dtype, dtype);
    const ModelSource back = open_model((folder / "out").string());
    for (int i = 0; i < 3; ++i) {
      std::vector<float> out(10);
      back.weights->read_float("t" + std::to_string(i), out);
      EXPECT_EQ(out, std::vector<float>(10, static_cast<float>(i) + 0.5f));
    }
    EXPECT_EQ(back.tokenizer.tokenizer_json, "{\"t\":1}");
    EXPECT_EQ(back.chat_template, "template");
    EXPECT_EQ(back.generation.eos_token_ids, (std::vector<int32_t>{3, 4}));
    const Json config = Json::parse(back.config_json);
    EXPECT_EQ(config["my_key"], 7);
    EXPECT_EQ(config["dtype"], dtype == DType::kF32    ? "float32"
                               : dtype == DType::kBF16 ? "bfloat16"
                                                       : "float16");
    EXPECT_EQ(config["torch_dtype"], config["dtype"]);
    const Json tokenizer = Json::parse(back.tokenizer.tokenizer_config_json);
    EXPECT_EQ(tokenizer["eos_token"], "<e>");
    EXPECT_EQ(tokenizer["chat_template"], "template");
  }
}

TEST(WriteHfFolder, ShardsByBytesInOrder) {
  const TempFolder folder;
  // 40 bytes a tensor: two fit into 100 bytes, and the limit may be met exactly by 80.
  for (const int64_t limit : {100, 80}) {
    write_hf_folder(folder.path(), meta(), tensors(5), {DType::kF32, limit});
    const Json index = Json::parse(read_text(folder / "model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_parameters"], 50);
    EXPECT_EQ(index["metadata"]["total_size"], 200);
    EXPECT_EQ(index["weight_map"]["t1"], "model-00001-of-00003.safetensors");
    EXPECT_EQ(index["weight_map"]["t2"], "model-00002-of-00003.safetensors");
    EXPECT_EQ(index["weight_map"]["t4"], "model-00003-of-00003.safetensors");
    EXPECT_EQ(open_model(folder.path().string()).weights->names().size(), 5u);
  }
  write_hf_folder(folder.path(), meta(), tensors(3), {DType::kF32, 1});  // each above the limit
  EXPECT_TRUE(fs::exists(folder / "model-00003-of-00003.safetensors"));
  EXPECT_EQ(open_model(folder.path().string()).weights->names().size(), 3u);
}

TEST(WriteHfFolder, RemovesTheWeightsOfAnEarlierSave) {
  const TempFolder folder;
  write_text(folder / "notes.safetensors", "kept");
  write_hf_folder(folder.path(), meta(), tensors(2), {DType::kF32, 1'000});
  EXPECT_TRUE(fs::exists(folder / "model.safetensors"));
  write_hf_folder(folder.path(), meta(), tensors(4), {DType::kF32, 80});
  EXPECT_FALSE(fs::exists(folder / "model.safetensors"));
  EXPECT_EQ(open_model(folder.path().string()).weights->names().size(), 4u);
  write_hf_folder(folder.path(), meta(), tensors(1), {DType::kF32, 1'000});
  EXPECT_FALSE(fs::exists(folder / "model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(folder / "model-00001-of-00002.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "notes.safetensors"));
}

TEST(WriteHfFolder, AnInterruptedWriteHasNoConfig) {
  const TempFolder folder;
  write_hf_folder(folder.path(), meta(), tensors(2), {});
  std::vector<WriteTensor> broken = tensors(3);
  broken[2].fill = [](std::span<float>) { throw Error("interrupted"); };
  EXPECT_ERROR(write_hf_folder(folder.path(), meta(), broken, {}), "interrupted");
  EXPECT_FALSE(fs::exists(folder / "config.json"));
  EXPECT_FALSE(fs::exists(folder / "model.safetensors.partial"));
}

TEST(WriteHfFolder, RefusesBadRequests) {
  const TempFolder folder;
  std::vector<WriteTensor> twice = tensors(2);
  twice[1].name = "t0";
  EXPECT_ERROR(write_hf_folder(folder.path(), meta(), twice, {}), "two tensors are called \"t0\"");
  EXPECT_ERROR(write_hf_folder(folder.path(), meta(), tensors(1), {DType::kI8, 10}), "got I8");
  EXPECT_ERROR(write_hf_folder(folder.path(), meta(), tensors(1), {DType::kF32, 0}), "positive");
  std::vector<WriteTensor> negative = tensors(1);
  negative[0].shape = {-1};
  EXPECT_ERROR(write_hf_folder(folder.path(), meta(), negative, {}), "negative size");
  ModelSource tied = meta();
  tied.config.tied = true;
  std::vector<WriteTensor> head = tensors(1);
  head[0].name = "lm_head.weight";
  EXPECT_ERROR(write_hf_folder(folder.path(), tied, head, {}), "is tied to the embedding");
  write_text(folder / "file", "x");
  EXPECT_ERROR(write_hf_folder(folder / "file", meta(), tensors(1), {}), "cannot create");
}

std::vector<WriteTensor> all_weights(const ModelSource& model) {
  std::vector<WriteTensor> result;
  for (const std::string& name : model.weights->names()) {
    result.push_back({name, model.weights->shape(name), [&model, name](std::span<float> out) {
                        model.weights->read_float(name, out);
                      }});
  }
  return result;
}

// Writes a model for tests/golden/make_formats.py to load with transformers.
TEST(WriteHfFolder, ExportsAModelOnDemand) {
  const char* target = std::getenv("TEMPER_EXPORT_FOLDER");
  if (target == nullptr)
    GTEST_SKIP() << "set TEMPER_EXPORT_FOLDER to write the default model there";
  const char* spec = std::getenv("TEMPER_EXPORT_MODEL");
  const ModelSource model = open_model(spec != nullptr ? spec : kEmbedded.string());
  write_hf_folder(target, model, all_weights(model), {DType::kF32, 200'000'000});
  EXPECT_EQ(open_model(target).weights->names(), model.weights->names());
}

// What comes out of a GGUF file goes through a folder unchanged; bfloat16 rounds once.
TEST(WriteHfFolder, DefaultModelsPartsSurvive) {
  if (!fs::exists(kEmbedded)) GTEST_SKIP() << "no default model: run scripts/setup";
  const TempFolder folder;
  const ModelSource model = open_model(kEmbedded.string());
  const std::string name = "model.layers.7.self_attn.q_proj.weight";
  std::vector<WriteTensor> one = all_weights(model);
  std::erase_if(one, [&](const WriteTensor& t) { return t.name != name; });
  write_hf_folder(folder.path(), model, one, {DType::kBF16, 1'000'000'000});
  const ModelSource back = open_model(folder.path().string());
  std::vector<float> before(576 * 576), after(576 * 576);
  model.weights->read_float(name, before);
  back.weights->read_float(name, after);
  for (size_t i = 0; i < before.size(); ++i) {
    ASSERT_EQ(after[i], bf16_to_float(float_to_bf16(before[i])));
  }
  EXPECT_EQ(back.tokenizer.tokenizer_json, model.tokenizer.tokenizer_json);
  EXPECT_EQ(back.chat_template, model.chat_template);
  EXPECT_EQ(back.generation.eos_token_ids, model.generation.eos_token_ids);
  EXPECT_EQ(model_config_json(back.config, nullptr), model_config_json(model.config, nullptr));
}

}  // namespace
}  // namespace temper
