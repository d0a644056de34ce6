#pragma once

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "error_of.h"
#include "nn/nn_test_util.h"
#include "temper/core/error.h"
#include "temper/nn/scalar_model.h"

namespace temper::testing_nn {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Texts = std::vector<std::vector<int32_t>>;

inline fs::path reward_folder(const std::string& family) {
  return fs::path(TEMPER_SOURCE_DIR) / "tests/golden/reward_models" / family;
}

inline at::Tensor tensor(std::vector<float>& values) {
  return at::from_blob(values.data(), {std::ssize(values)}, at::kFloat);
}

/// A folder that goes away with the test.
class TempFolder {
 public:
  TempFolder() {
    static int count = 0;
    path_ = fs::path(testing::TempDir()) /
            ("temper_scalar_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    fs::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline Json read_json(const fs::path& path) {
  std::ifstream in(path);
  return Json::parse(in);
}

/// Texts that differ in length and content, ids in [3, 48).
inline Texts some_texts(int count) {
  Texts out;
  for (int32_t t = 0; t < count; ++t) {
    out.emplace_back();
    for (int32_t i = 0; i < 2 + 5 * (t % 4); ++i) out.back().push_back(3 + (7 * t + 11 * i) % 45);
  }
  return out;
}

inline std::vector<int32_t> every_row(const TokenBatch& b) {
  std::vector<int32_t> rows;
  for (int32_t r = 0; r < b.rows(); ++r) rows.push_back(r);
  return rows;
}

inline std::vector<std::vector<float>> gradients(const std::vector<Parameter*>& parameters) {
  std::vector<std::vector<float>> out;
  for (const Parameter* p : parameters) out.push_back(floats(p->grad));
  return out;
}

inline RewardModel llama(Trainable trainable = Trainable::kNo,
                         WeightDType dtype = WeightDType::kFloat32) {
  return RewardModel::load(reward_folder("llama").string(), dtype, trainable);
}

}  // namespace temper::testing_nn
