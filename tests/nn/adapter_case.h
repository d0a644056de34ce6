#pragma once

#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nn/nn_test_util.h"
#include "temper/nn/adapter.h"

namespace temper::testing_nn {

inline std::filesystem::path adapter_folder(const std::string& name) {
  return std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/golden/adapters" / name;
}

/// PEFT's adapters of tests/golden/make_adapters.py and the golden models under them.
inline const std::map<std::string, std::string>& adapter_bases() {
  static const std::map<std::string, std::string> bases = {{"lora", "llama"},
                                                           {"all_linear", "qwen2"},
                                                           {"rslora", "qwen3"},
                                                           {"patterns", "llama_tied"},
                                                           {"some_layers", "mistral"},
                                                           {"dora", "llama"},
                                                           {"dora_all", "qwen2"}};
  return bases;
}

inline ModelSource adapter_base(const std::string& name) {
  return open_model((golden_folder() / adapter_bases().at(name)).string());
}

/// A frozen model under one of those adapters.
struct Adapted {
  explicit Adapted(const std::string& name, WeightDType dtype = WeightDType::kFloat32,
                   Trainable trainable = Trainable::kYes)
      : lm(adapter_base(name), dtype, Trainable::kNo) {
    lm.load_adapter(adapter_folder(name), trainable);
  }
  CausalLM lm;
};

/// The model's golden texts, one after the other.
struct GoldenTexts {
  explicit GoldenTexts(const std::string& name)
      : file(SafetensorsFile::open(golden_folder() / adapter_bases().at(name) /
                                   "golden.safetensors")),
        texts(split(ids(file, "in.ids"), ids(file, "in.offsets"))),
        batch(packed(texts)),
        request{ids(file, "in.rows"), ids(file, "in.targets")} {}

  SafetensorsFile file;
  std::vector<std::vector<int32_t>> texts;
  TokenBatch batch;
  ScoreRequest request;
};

inline std::vector<float> as_floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

/// A folder of this process that is gone at the end.
struct OwnFolder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("temper_adapter_" + std::to_string(getpid()));
  ~OwnFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

}  // namespace temper::testing_nn
