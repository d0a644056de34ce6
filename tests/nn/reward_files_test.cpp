// Reward models as files: what is loaded, refused and written.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>

#include "nn/reward_test_util.h"

namespace temper {
namespace {

using namespace testing_nn;

TEST(RewardFiles, SavedAndLoadedAgainHasTheSameBits) {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    RewardModel model =
        RewardModel::load(reward_folder(family).string(), WeightDType::kFloat32, Trainable::kYes);
    const TempFolder folder;
    model.save(folder.path());
    RewardModel back = RewardModel::load(folder.path().string(), WeightDType::kFloat32);
    EXPECT_EQ(back.score(some_texts(8)), model.score(some_texts(8)));
    const Json config = read_json(folder.path() / "config.json");
    EXPECT_EQ(config["id2label"], Json({{"0", "LABEL_0"}}));
    EXPECT_EQ(config["architectures"],
              read_json(reward_folder(family) / "config.json")["architectures"]);
    EXPECT_FALSE(open_model(folder.path().string()).weights->has("lm_head.weight"));
  }
}

TEST(RewardFiles, FromALanguageModelStartsAtZeroAndHoldsNoLmHead) {
  RewardModel model =
      RewardModel::from_language_model((golden_folder() / "llama").string(), WeightDType::kFloat32);
  EXPECT_EQ(model.score(some_texts(3)), std::vector<float>(3, 0.0f));
  EXPECT_NE(error_of([&] { (void)model.backbone().head(); }).find("without lm_head"),
            std::string::npos);
  for (const Parameter* p : model.parameters()) EXPECT_NE(p->name, "lm_head");
  const CausalLM whole(open_model((golden_folder() / "llama").string()), WeightDType::kFloat32,
                       Trainable::kYes);
  EXPECT_EQ(model.parameters().size(), whole.parameters().size());  // score instead of lm_head
}

TEST(RewardFiles, ThePadTokenOfASavedFolderEndsNoText) {
  const TempFolder folder;
  // The file says pad null, bos 1, eos 2.
  RewardModel::from_language_model((golden_folder() / "llama").string(), WeightDType::kFloat32)
      .save(folder.path() / "a");
  EXPECT_EQ(read_json(folder.path() / "a/config.json")["pad_token_id"], 1);
  // A pad token that ends texts is replaced; one that does not is kept.
  for (const auto& [pad, expected] : {std::pair{2, 1}, std::pair{7, 7}}) {
    fs::copy(reward_folder("llama"), folder.path() / "b",
             fs::copy_options::overwrite_existing | fs::copy_options::recursive);
    Json config = read_json(folder.path() / "b/config.json");
    config["pad_token_id"] = pad;
    std::ofstream(folder.path() / "b/config.json") << config.dump();
    RewardModel::load((folder.path() / "b").string(), WeightDType::kFloat32)
        .save(folder.path() / "c");
    EXPECT_EQ(read_json(folder.path() / "c/config.json")["pad_token_id"], expected);
  }
}

/// Writes the golden llama with tensors renamed or replaced.
void write_changed(const fs::path& folder,
                   const std::function<void(std::vector<WriteTensor>&)>& change) {
  const ModelSource source = open_model(reward_folder("llama").string());
  std::vector<WriteTensor> tensors;
  for (const std::string& name : source.weights->names()) {
    tensors.push_back(
        {name, source.weights->shape(name), [weights = source.weights, name](std::span<float> out) {
           weights->read_float(name, out);
         }});
  }
  change(tensors);
  write_hf_folder(folder, source, tensors, {});
}

TEST(RewardFiles, LoadsAValueHeadAsTrlNamesIt) {
  const TempFolder folder;
  for (const std::string prefix : {"", "pretrained_model."}) {
    const fs::path path = folder.path() / ("v" + prefix);
    write_changed(path, [&](std::vector<WriteTensor>& tensors) {
      for (WriteTensor& t : tensors) {
        t.name = t.name == "score.weight" ? "v_head.summary.weight" : prefix + t.name;
      }
      tensors.push_back({"v_head.summary.bias", {1}, [](std::span<float> out) { out[0] = 2; }});
    });
    Json config = read_json(path / "config.json");
    config.erase("id2label");
    std::ofstream(path / "config.json") << config.dump();
    RewardModel got = RewardModel::load(path.string(), WeightDType::kFloat32);
    EXPECT_EQ(got.head().bias(), 2.0f);
    const auto plain = llama().score(some_texts(4)), scores = got.score(some_texts(4));
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(scores[i], plain[i] + 2, 1e-6);
    got.save(path / "again");
    EXPECT_EQ(
        RewardModel::load((path / "again").string(), WeightDType::kFloat32).score(some_texts(4)),
        scores);
  }
}

TEST(RewardFiles, AFileWithoutOneLabelIsRefusedByName) {
  const TempFolder folder;
  const auto load = [](const fs::path& path) {
    return error_of([&] { (void)RewardModel::load(path.string(), WeightDType::kFloat32); });
  };
  const std::string none = load(golden_folder() / "llama");
  EXPECT_NE(none.find("has no head"), std::string::npos) << none;
  EXPECT_NE(none.find("golden/models/llama"), std::string::npos) << none;
  write_changed(folder.path() / "two", [](std::vector<WriteTensor>& tensors) {
    for (WriteTensor& t : tensors) {
      if (t.name == "score.weight")
        t = {
            t.name, {2, 16}, [](std::span<float> out) { std::fill(out.begin(), out.end(), 1.0f); }};
    }
  });
  const std::string two = load(folder.path() / "two");
  EXPECT_NE(two.find("score.weight should be [1, 16]"), std::string::npos) << two;
  Json config = read_json(folder.path() / "two/config.json");
  config["id2label"] = {{"0", "a"}, {"1", "b"}};
  std::ofstream(folder.path() / "two/config.json") << config.dump();
  const std::string named = load(folder.path() / "two");
  EXPECT_NE(named.find("config.json: num_labels must be 1, got 2"), std::string::npos) << named;
}

// Writes folders for `tests/golden/make_reward_models.py check`.
TEST(RewardFiles, ExportsFoldersOnDemand) {
  const char* target = std::getenv("TEMPER_EXPORT_FOLDER");
  if (target == nullptr) GTEST_SKIP() << "set TEMPER_EXPORT_FOLDER to write reward models there";
  const auto write = [&](const std::string& name, RewardModel model, const Texts& texts) {
    const fs::path folder = fs::path(target) / name;
    model.save(folder);
    const Json scores{{"texts", texts}, {"scores", model.score(texts)}};
    std::ofstream(folder / "scores.json") << scores.dump();
  };
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    write(family, RewardModel::load(reward_folder(family).string(), WeightDType::kFloat32),
          some_texts(6));
  }
  if (!fs::exists(default_model())) return;
  RewardModel large = RewardModel::from_language_model(default_model().string(),
                                                       WeightDType::kFloat32, Trainable::kNo);
  std::vector<float> weight(static_cast<size_t>(large.head().width()));
  for (size_t i = 0; i < weight.size(); ++i)
    weight[i] = 0.02f * static_cast<float>(static_cast<int>(i % 7) - 3);
  large.head().set(weight);
  Texts texts;
  for (const char* text :
       {"The river bends twice before it reaches the old mill.<|im_end|>", "12 jars<|im_end|>\n"}) {
    texts.push_back(large.text().encode_rendered(text));
  }
  write("smollm2", std::move(large), texts);
}

}  // namespace
}  // namespace temper
