#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "temper/formats/safetensors.h"
#include "temper/nn/models.h"
#include "temper/nn/scoring.h"

namespace temper::testing_nn {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/golden/models";
}

inline std::filesystem::path default_model() {
  return std::filesystem::path(TEMPER_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

/// A golden file's tensor as double, and its ids as int32.
inline std::vector<double> numbers(const SafetensorsFile& f, const std::string& name) {
  const TensorView& t = f.at(name);
  std::vector<double> out(static_cast<size_t>(t.numel()));
  for (size_t i = 0; i < out.size(); ++i) {
    if (t.dtype == DType::kF64) {
      std::memcpy(&out[i], t.data.data() + 8 * i, 8);
    } else if (t.dtype == DType::kI64) {
      int64_t v;
      std::memcpy(&v, t.data.data() + 8 * i, 8);
      out[i] = static_cast<double>(v);
    } else {
      float v;
      std::memcpy(&v, t.data.data() + 4 * i, 4);
      out[i] = double{v};
    }
  }
  return out;
}

inline std::vector<int32_t> ids(const SafetensorsFile& f, const std::string& name) {
  std::vector<int32_t> out;
  for (const double v : numbers(f, name)) out.push_back(static_cast<int32_t>(v));
  return out;
}

/// Texts one after the other, each a root segment.
inline TokenBatch packed(const std::vector<std::vector<int32_t>>& texts) {
  TokenBatch b;
  for (const auto& t : texts) {
    b.segments.push_back(
        {-1, static_cast<int32_t>(b.ids.size()), static_cast<int32_t>(t.size()), -1});
    for (size_t i = 0; i < t.size(); ++i) {
      b.ids.push_back(t[i]);
      b.positions.push_back(static_cast<int32_t>(i));
    }
  }
  return b;
}

inline std::vector<std::vector<int32_t>> split(const std::vector<int32_t>& ids,
                                               const std::vector<int32_t>& offsets) {
  std::vector<std::vector<int32_t>> out;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    out.emplace_back(ids.begin() + offsets[i], ids.begin() + offsets[i + 1]);
  }
  return out;
}

inline std::vector<float> floats(const at::Tensor& t) {
  return {t.data_ptr<float>(), t.data_ptr<float>() + t.numel()};
}

/// Logits of hidden rows, for tests alone: nothing else makes them.
inline std::vector<float> logits(CausalLM& lm, const at::Tensor& hidden) {
  const Parameter& head = lm.head();
  std::vector<float> out(static_cast<size_t>(hidden.size(0) * head.n));
  kernels::linear({.x = hidden.data_ptr<float>(),
                   .x_stride = head.k,
                   .weight = head.packed(),
                   .y = out.data(),
                   .y_stride = head.n,
                   .rows = hidden.size(0)});
  return out;
}

/// A model's weights, the first of one tensor replaced.
class OneReplaced : public WeightSource {
 public:
  OneReplaced(std::shared_ptr<const WeightSource> from, std::string name, float value)
      : from_(std::move(from)), name_(std::move(name)), value_(value) {}
  [[nodiscard]] std::vector<std::string> names() const override { return from_->names(); }
  [[nodiscard]] bool has(std::string_view name) const override { return from_->has(name); }
  [[nodiscard]] std::vector<int64_t> shape(std::string_view name) const override {
    return from_->shape(name);
  }
  void read_float(std::string_view name, std::span<float> out) const override {
    from_->read_float(name, out);
    if (name == name_) out[0] = value_;
  }

 private:
  std::shared_ptr<const WeightSource> from_;
  std::string name_;
  float value_;
};

}  // namespace temper::testing_nn
