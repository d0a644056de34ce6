// A mapped model has the bits of the one that was written; what is wrong with a file is said.
#include "temper/nn/panel_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "nn/reward_test_util.h"
#include "temper/core/file.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

using namespace testing_nn;

constexpr WeightDType kAllTypes[] = {WeightDType::kFloat32, WeightDType::kBfloat16,
                                     WeightDType::kBfloat16Dot, WeightDType::kFloat16,
                                     WeightDType::kInt8};

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(PanelFile, AMappedModelHasTheBitsOfTheOneWritten) {
  const TempFolder folder;
  for (const char* family : {"llama", "llama_tied", "llama3", "mistral", "qwen2", "qwen3"}) {
    for (const auto dtype : kAllTypes) {
      const ModelSource source = open_model((golden_folder() / family).string());
      CausalLM loaded(source, dtype, Trainable::kNo);
      const fs::path file = folder.path() / "panels";
      loaded.write_panels(file, "a note");
      const auto mapped = CausalLM::map_panels(file);
      EXPECT_TRUE(mapped->mapped());
      EXPECT_EQ(mapped->dtype(), dtype);
      EXPECT_EQ(mapped->weight_bytes(), loaded.weight_bytes());
      const TokenBatch b = packed(some_texts(5));
      EXPECT_EQ(logits(*mapped, mapped->forward(b)), logits(loaded, loaded.forward(b))) << family;
      EXPECT_EQ(read_panel_file_info(file).origin, "a note");
    }
  }
}

TEST(PanelFile, ABackboneAndATrainableModelAreWrittenAsTheirProductsReadThem) {
  const TempFolder folder;
  const ModelSource source = open_model((golden_folder() / "llama").string());
  CausalLM trained(source, WeightDType::kBfloat16, Trainable::kYes, LmParts::kBackbone);
  trained.write_panels(folder.path() / "p");
  std::shared_ptr<CausalLM> mapped = CausalLM::map_panels(folder.path() / "p");
  EXPECT_EQ(mapped->parts(), LmParts::kBackbone);
  EXPECT_FALSE(mapped->trainable());
  const TokenBatch b = packed(some_texts(5));
  EXPECT_EQ(floats(mapped->forward(b)), floats(trained.forward(b)));
  // It serves as the frozen trunk of a reward.
  ScalarHead head(mapped->config().hidden_size);
  head.set(std::vector<float>(static_cast<size_t>(head.width()), 0.5f));
  RewardModel over(mapped, std::move(head), std::make_shared<ModelSource>(source));
  EXPECT_NE(over.score(some_texts(1))[0], 0.0f);
}

/// Memory of a file's mappings in kB: all of it, and what belongs to this process alone because it
/// was written to.
struct Resident {
  int64_t all = 0, anonymous = 0;
};

Resident resident(const fs::path& file) {
  std::ifstream maps("/proc/self/smaps");
  Resident out;
  bool ours = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(':')) ours = line.ends_with(file.string());
    std::istringstream fields(line);
    std::string key;
    int64_t value = 0;
    if (!ours || !(fields >> key >> value)) continue;
    if (key == "Rss:") out.all += value;
    if (key == "Anonymous:") out.anonymous += value;
  }
  return out;
}

TEST(PanelFile, PagesBelongToTheFileAndSoToEveryProcessThatMapsIt) {
  const TempFolder folder;
  const fs::path file = fs::canonical(folder.path()) / "panels";
  const ModelSource source = open_model((golden_folder() / "llama").string());
  CausalLM(source, WeightDType::kFloat32, Trainable::kNo).write_panels(file);
  const auto mapped = CausalLM::map_panels(file);
  (void)mapped->forward(packed(some_texts(5)));
  const Resident memory = resident(file);
  EXPECT_EQ(memory.anonymous, 0);
  EXPECT_GE(memory.all * 1024, static_cast<int64_t>(fs::file_size(file)));
  for (const auto& p : mapped->parameters()) EXPECT_FALSE(p->grad.defined());
}

TEST(PanelFile, DamageIsAnErrorThatNamesTheFile) {
  const TempFolder folder;
  const fs::path good = folder.path() / "good", bad = folder.path() / "bad";
  const ModelSource source = open_model((golden_folder() / "llama").string());
  CausalLM(source, WeightDType::kBfloat16, Trainable::kNo).write_panels(good);
  const std::string bytes = read_text_file(good);
  const auto error_with = [&](const std::string& content) {
    write_bytes(bad, content);
    return error_of([&] { (void)CausalLM::map_panels(bad); });
  };
  const auto flipped = [&](size_t at) {
    std::string copy = bytes;
    copy[at] = static_cast<char>(copy[at] ^ 1);
    return copy;
  };
  EXPECT_EQ(error_with(bytes), "");
  // Lengths and contents. The last tensor ends the file, so its last bytes may be padding.
  for (const size_t keep :
       {size_t{0}, size_t{7}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    EXPECT_NE(error_with(bytes.substr(0, keep)).find(bad.string()), std::string::npos) << keep;
  }
  const size_t header =
      bytes.size() - fs::file_size(golden_folder() / "llama/model.safetensors") / 4;
  for (size_t at = header; at + 4096 < bytes.size(); at += 997) {
    EXPECT_NE(error_with(flipped(at)).find("is damaged"), std::string::npos) << at;
  }
  // No flip of the header's first bytes is fatal: each is refused or read as another valid file.
  for (size_t at = 0; at < 2000; at += 7) (void)error_with(flipped(at));
}

TEST(PanelFile, AHeaderThatLiesIsRefused) {
  const TempFolder folder;
  const fs::path good = folder.path() / "good", bad = folder.path() / "bad";
  const ModelSource source = open_model((golden_folder() / "llama").string());
  CausalLM(source, WeightDType::kFloat32, Trainable::kNo).write_panels(good);
  const SafetensorsFile file = SafetensorsFile::open(good);
  const auto error_with = [&](const std::function<void(SafetensorsMetadata&)>& change, size_t skip,
                              size_t alignment) {
    SafetensorsMetadata metadata = file.metadata();
    change(metadata);
    std::vector<TensorSpec> specs;
    for (const std::string& name : file.names()) {
      specs.push_back({name, file.at(name).dtype, file.at(name).shape});
    }
    specs.resize(specs.size() - skip);
    write_safetensors_streamed(
        bad, specs, [&](size_t i) { return file.at(specs[i].name).data; }, metadata, alignment);
    return error_of([&] { (void)CausalLM::map_panels(bad); });
  };
  const auto set = [](const char* key, const char* value) {
    return [=](SafetensorsMetadata& m) { m[key] = value; };
  };
  const auto nothing = [](SafetensorsMetadata&) {};
  EXPECT_EQ(error_with(nothing, 0, 64), "");
  EXPECT_NE(error_with(nothing, 1, 64).find("no tensor"), std::string::npos);
  EXPECT_NE(error_with(set("format", "pt"), 0, 64).find("no panel file"), std::string::npos);
  EXPECT_NE(error_with(set("weights", "int3"), 0, 64).find("int3"), std::string::npos);
  EXPECT_NE(error_with(set("weights", "bfloat16"), 0, 64).find("should have"), std::string::npos);
  EXPECT_NE(error_with(set("parts", "backbone"), 0, 64).find("tensors"), std::string::npos);
  EXPECT_NE(error_with(set("config", "[]"), 0, 64).find("no JSON object"), std::string::npos);
  EXPECT_NE(error_with(set("contents", "0"), 0, 64).find("damaged"), std::string::npos);
  const auto wider = [](SafetensorsMetadata& m) {
    Json config = Json::parse(m["config"]);
    config["intermediate_size"] = 4096;
    m["config"] = config.dump();
  };
  EXPECT_NE(error_with(wider, 0, 64).find("should have"), std::string::npos);
  const auto deeper = [](SafetensorsMetadata& m) {
    Json config = Json::parse(m["config"]);
    config["num_hidden_layers"] = 1000;
    m["config"] = config.dump();
  };
  EXPECT_NE(error_with(deeper, 0, 64).find("fewer tensors"), std::string::npos);
  // A file whose data begins off the alignment of kernels.
  const auto longer = [](SafetensorsMetadata& m) { m["origin"] += "12345678"; };
  const std::string a = error_with(nothing, 0, 8), b = error_with(longer, 0, 8);
  EXPECT_NE((a + b).find("not aligned"), std::string::npos);
}

TEST(ReferenceModel, MapsAFileThatItMakesOnceAndAgainWhenTheModelChanges) {
  const TempFolder folder;
  const fs::path model = folder.path() / "model", file = folder.path() / "panels";
  fs::copy(golden_folder() / "llama", model, fs::copy_options::recursive);
  ReferenceModel first = ReferenceModel::map_or_write(model.string(), WeightDType::kBfloat16, file);
  ReferenceModel loaded = ReferenceModel::load(model.string(), WeightDType::kBfloat16);
  const TokenBatch b = packed(some_texts(5));
  const auto expected = floats(loaded.lm().forward(b));
  EXPECT_EQ(floats(first.lm().forward(b)), expected);
  const auto written = fs::last_write_time(file);
  (void)ReferenceModel::map_or_write(model.string(), WeightDType::kBfloat16, file);
  EXPECT_EQ(fs::last_write_time(file), written);
  // Another weight type, then another model behind the same name: the file is made anew, and what
  // was mapped before keeps its pages.
  (void)ReferenceModel::map_or_write(model.string(), WeightDType::kFloat32, file);
  EXPECT_EQ(read_panel_file_info(file).weights, WeightDType::kFloat32);
  fs::copy(golden_folder() / "llama3", model,
           fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ReferenceModel other = ReferenceModel::map_or_write(model.string(), WeightDType::kFloat32, file);
  EXPECT_NE(floats(other.lm().forward(b)), expected);
  EXPECT_EQ(floats(first.lm().forward(b)), expected);
  EXPECT_EQ(floats(ReferenceModel::map(file).lm().forward(b)), floats(other.lm().forward(b)));
}

TEST(ReferenceModel, AFileOfSomethingElseIsLeftAlone) {
  const TempFolder folder;
  const std::string spec = (golden_folder() / "llama").string();
  const fs::path file = folder.path() / "notes";
  write_bytes(file, "not a panel file, but somebody's");
  EXPECT_NE(error_of([&] {
              (void)ReferenceModel::map_or_write(spec, WeightDType::kFloat32, file);
            }).find(file.string()),
            std::string::npos);
  EXPECT_EQ(read_text_file(file), "not a panel file, but somebody's");
}

}  // namespace
}  // namespace temper
