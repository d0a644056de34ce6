#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "atomic_file.h"
#include "temper/core/error.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

/// Order of the reference writer: wide types first, so that every tensor is aligned to its own
/// element; the same order gives the same bytes for the same tensors.
int file_rank(DType dtype) {
  static constexpr std::array kOrder{DType::kU64, DType::kI64, DType::kF64,    DType::kF32,
                                     DType::kU32, DType::kI32, DType::kBF16,   DType::kF16,
                                     DType::kU16, DType::kI16, DType::kF8E4M3, DType::kF8E5M2,
                                     DType::kI8,  DType::kU8,  DType::kBool};
  const auto* at = std::find(kOrder.begin(), kOrder.end(), dtype);
  return static_cast<int>(at - kOrder.begin());
}

uint64_t byte_size(const TensorSpec& spec) {
  TEMPER_CHECK(spec.dtype != DType::kUnknown, "[write_safetensors] tensor \"", spec.name,
               "\" has no dtype");
  uint64_t bytes = dtype_size(spec.dtype);
  for (const int64_t size : spec.shape) {
    TEMPER_CHECK(size >= 0 && !__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes),
                 "[write_safetensors] tensor \"", spec.name, "\" has a size of ", size,
                 ", or too many bytes");
  }
  return bytes;
}

std::string header_text(std::span<const TensorSpec> specs, const std::vector<size_t>& order,
                        const SafetensorsMetadata& metadata, size_t alignment) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const size_t i : order) {
    const uint64_t end = offset + byte_size(specs[i]);
    // Not by operator[]: an ordered object finds keys by walking, which is quadratic here.
    header.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(
        specs[i].name, nlohmann::ordered_json{{"dtype", dtype_name(specs[i].dtype)},
                                              {"shape", specs[i].shape},
                                              {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    fail("[write_safetensors] a tensor's name or the metadata is not valid UTF-8");
  }
  const size_t begin = (8 + text.size() + alignment - 1) / alignment * alignment;
  text.resize(begin - 8, ' ');
  return text;
}

}  // namespace

void write_safetensors_streamed(const std::filesystem::path& path,
                                std::span<const TensorSpec> specs,
                                const std::function<std::span<const std::byte>(size_t)>& bytes_of,
                                const SafetensorsMetadata& metadata, size_t alignment) {
  TEMPER_CHECK(alignment > 0 && alignment % 8 == 0, "[write_safetensors] alignment ", alignment,
               " is no multiple of 8");
  std::set<std::string_view> seen;
  for (const TensorSpec& spec : specs) {
    TEMPER_CHECK(spec.name != "__metadata__" && seen.insert(spec.name).second,
                 "[write_safetensors] ", path.string(), ": the name \"", spec.name,
                 "\" is reserved or occurs twice");
  }
  std::vector<size_t> order(specs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int rank_a = file_rank(specs[a].dtype), rank_b = file_rank(specs[b].dtype);
    return rank_a != rank_b ? rank_a < rank_b : specs[a].name < specs[b].name;
  });

  const std::string header = header_text(specs, order, metadata, alignment);
  const uint64_t length = header.size();
  detail::AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const size_t i : order) {
    const auto bytes = bytes_of(i);
    TEMPER_CHECK(bytes.size() == byte_size(specs[i]), "[write_safetensors] tensor \"",
                 specs[i].name, "\" needs ", byte_size(specs[i]), " bytes, got ", bytes.size());
    file.write(bytes);
  }
  file.commit();
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  write_safetensors_streamed(
      path, specs, [&](size_t i) { return tensors[i].data; }, metadata);
}

}  // namespace temper
