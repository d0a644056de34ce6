// Weights in their own layout in a file that processes map and so share. The container is
// safetensors: its reader has checked sizes, offsets and overlaps before a tensor is handed out.
#include "temper/nn/panel_file.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/hash.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "temper panels 1";
constexpr size_t kAlignment = 64;  // What kernels load from.
constexpr size_t kMaxConfigBytes = size_t{4} << 20;

/// One tensor of a parameter that products read.
struct Piece {
  std::string name;
  at::Tensor Parameter::*member;
  at::ScalarType type;
  int64_t elements;
};

/// What products read of a parameter in a model of weight type `weights`.
std::vector<Piece> pieces_of(const Parameter& p, WeightDType weights) {
  if (!p.matrix || weights == WeightDType::kFloat32) {
    return {{p.name, &Parameter::value, at::kFloat, p.elements()}};
  }
  if (weights == WeightDType::kInt8) {
    return {
        {p.name, &Parameter::int8, at::kChar, p.elements()},
        {p.name + ".scales", &Parameter::scales, at::kFloat, kernels::scale_elements(p.n, p.k)}};
  }
  const auto type = weights == WeightDType::kFloat16 ? at::kHalf : at::kBFloat16;
  return {{p.name, &Parameter::half, type, p.elements()}};
}

DType dtype_of(at::ScalarType type) {
  if (type == at::kFloat) return DType::kF32;
  if (type == at::kChar) return DType::kI8;
  return type == at::kHalf ? DType::kF16 : DType::kBF16;
}

/// Elements of a piece in a file: the next one begins aligned too.
int64_t padded(const Piece& piece) {
  const auto unit = static_cast<int64_t>(kAlignment / at::elementSize(piece.type));
  return (piece.elements + unit - 1) / unit * unit;
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::span<const std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<const std::byte*>(t.const_data_ptr()),
          static_cast<size_t>(t.numel()) * t.element_size()};
}

void add_to(ContentHash& hash, std::span<const std::byte> bytes) {
  hash.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

const std::string& field(const SafetensorsFile& file, const char* key) {
  const auto it = file.metadata().find(key);
  TEMPER_CHECK(it != file.metadata().end(), "[panels] ", file.source(), " has no \"", key, "\"");
  return it->second;
}

void check_format(const SafetensorsFile& file) {
  const auto it = file.metadata().find("format");
  TEMPER_CHECK(it != file.metadata().end() && it->second == kFormat, "[panels] ", file.source(),
               " is no panel file (format \"", kFormat, "\")");
}

PanelFileInfo info_of(const SafetensorsFile& file) {
  check_format(file);
  PanelFileInfo info;
  info.weights = parse_weight_dtype(field(file, "weights"));
  TEMPER_CHECK(info.weights != WeightDType::kQ4, "[panels] ", file.source(), " says q4, which has ",
               "no panel file");
  const std::string& parts = field(file, "parts");
  TEMPER_CHECK(parts == "all" || parts == "backbone", "[panels] ", file.source(),
               ": parts must be all or backbone, got \"", parts, "\"");
  info.parts = parts == "all" ? LmParts::kAll : LmParts::kBackbone;
  info.origin = field(file, "origin");
  return info;
}

ModelConfig config_of(const SafetensorsFile& file) {
  const std::string& text = field(file, "config");
  TEMPER_CHECK(text.size() <= kMaxConfigBytes, "[panels] ", file.source(), ": config is too long");
  const Json json = Json::parse(text, nullptr, false);
  TEMPER_CHECK(json.is_object(), "[panels] ", file.source(), ": config is no JSON object");
  return parse_model_config(json, file.source() + ": config");
}

/// The piece as a tensor over the file's pages, which it keeps mapped. Nothing writes through it.
at::Tensor over(const SafetensorsFile& file, const Piece& piece) {
  const TensorView& view = file.at(piece.name);
  TEMPER_CHECK(view.dtype == dtype_of(piece.type) && view.numel() == padded(piece), "[panels] ",
               file.source(), ": ", piece.name, " should have ", padded(piece), " elements of ",
               dtype_name(dtype_of(piece.type)));
  auto* data = const_cast<std::byte*>(view.data.data());
  TEMPER_CHECK(reinterpret_cast<uintptr_t>(data) % kAlignment == 0, "[panels] ", file.source(),
               ": ", piece.name, " is not aligned to ", kAlignment, " bytes");
  return at::from_blob(
      data, {piece.elements}, [owner = view.owner](void*) {}, piece.type);
}

}  // namespace

PanelFileInfo read_panel_file_info(const fs::path& file) {
  return info_of(SafetensorsFile::open(file));
}

std::string model_origin(const ModelSource& source) {
  const fs::path root = fs::canonical(source.path);
  std::vector<fs::path> files;
  if (fs::is_directory(root)) {
    for (const auto& entry : fs::directory_iterator(root)) {
      const fs::path& path = entry.path();
      if (path.extension() == ".safetensors" || path.filename() == "config.json") {
        files.push_back(path);
      }
    }
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(root);
  }
  std::string out = root.string();
  for (const fs::path& path : files) {
    out += concat(" | ", path.filename().string(), " ", fs::file_size(path), " ",
                  fs::last_write_time(path).time_since_epoch().count());
  }
  return out;
}

void CausalLM::write_panels(const fs::path& file, std::string_view origin) const {
  TEMPER_CHECK(dtype_ != WeightDType::kQ4,
               "[panels] q4 weights have no panel file: their blocks are ",
               "read from the model's own file");
  std::vector<TensorSpec> specs;
  std::vector<at::Tensor> tensors;
  ContentHash hash;
  for (const auto& p : params_) {
    for (const Piece& piece : pieces_of(*p, dtype_)) {
      specs.push_back({piece.name, dtype_of(piece.type), {padded(piece)}});
      tensors.push_back((*p).*piece.member);
      add_to(hash, bytes_of(tensors.back()));
    }
  }
  const SafetensorsMetadata metadata{{"format", kFormat},
                                     {"config", model_config_json(config_, nullptr).dump()},
                                     {"weights", weight_dtype_name(dtype_)},
                                     {"parts", parts_ == LmParts::kAll ? "all" : "backbone"},
                                     {"origin", std::string(origin)},
                                     {"contents", hex(hash.value())}};
  std::vector<std::byte> copy;
  const auto padded_bytes = [&](size_t i) -> std::span<const std::byte> {
    const auto bytes = bytes_of(tensors[i]);
    const size_t size = static_cast<size_t>(specs[i].shape[0]) * tensors[i].element_size();
    if (size == bytes.size()) return bytes;
    copy.assign(size, std::byte{0});
    std::copy(bytes.begin(), bytes.end(), copy.begin());
    return copy;
  };
  write_safetensors_streamed(file, specs, padded_bytes, metadata, kAlignment);
}

std::unique_ptr<CausalLM> CausalLM::map_panels(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const PanelFileInfo info = info_of(file);
  std::unique_ptr<CausalLM> lm(new CausalLM());
  lm->config_ = config_of(file);
  lm->dtype_ = info.weights;
  lm->parts_ = info.parts;
  lm->mapped_ = true;
  TEMPER_CHECK(lm->config_.layers <= std::ssize(file.names()), "[panels] ", file.source(),
               " holds fewer tensors than the config has layers");  // Before they are declared.
  lm->declare();
  ContentHash hash;
  size_t count = 0;
  for (const auto& p : lm->params_) {
    for (const Piece& piece : pieces_of(*p, info.weights)) {
      at::Tensor& to = (*p).*piece.member;
      to = over(file, piece);
      add_to(hash, bytes_of(to));
      ++count;
    }
  }
  TEMPER_CHECK(file.names().size() == count, "[panels] ", file.source(), " holds ",
               file.names().size(), " tensors, and the config's model has ", count);
  TEMPER_CHECK(hex(hash.value()) == field(file, "contents"), "[panels] ", file.source(),
               " is damaged: its weights are not those that were written; remove it");
  return lm;
}

std::unique_ptr<CausalLM> map_or_write_panels(std::string_view spec, WeightDType weights,
                                              const fs::path& file, LmParts parts) {
  const ModelSource source = open_model(spec);
  const std::string origin = model_origin(source);
  const auto current = [&] {
    if (!fs::exists(file)) return false;
    const PanelFileInfo info = read_panel_file_info(file);
    return info.origin == origin && info.weights == weights && info.parts == parts;
  };
  if (!current()) CausalLM(source, weights, Trainable::kNo, parts).write_panels(file, origin);
  return CausalLM::map_panels(file);
}

}  // namespace temper
