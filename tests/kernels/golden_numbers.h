#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "temper/formats/safetensors.h"

namespace temper::test {

inline std::filesystem::path golden_folder(const std::string& area) {
  return std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/golden" / area;
}

inline nlohmann::json manifest(const std::string& area) {
  std::ifstream in(golden_folder(area) / "manifest.json");
  return nlohmann::json::parse(in);
}

/// A golden tensor of floats.
inline std::vector<float> golden_floats(const SafetensorsFile& f, const std::string& name) {
  const TensorView& t = f.at(name);
  std::vector<float> out(static_cast<size_t>(t.numel()));
  copy_to_float(t, out);
  return out;
}

/// A golden tensor of float64 or int64, bit for bit.
template <class T>
std::vector<T> golden_exact(const SafetensorsFile& f, const std::string& name) {
  const TensorView& t = f.at(name);
  std::vector<T> out(t.data.size() / sizeof(T));
  std::memcpy(out.data(), t.data.data(), t.data.size());
  return out;
}

}  // namespace temper::test
