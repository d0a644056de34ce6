#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/formats/tensor_view.h"

namespace temper {

/// A safetensors file: `u64 header length | JSON header | data`. Tensors are views of the mapping,
/// which lives as long as the last view. The whole header is checked before any tensor is handed
/// out: sizes against shapes, no overlap, no holes, no duplicate names, nothing past the end.
class SafetensorsFile {
 public:
  /// Maps the file read-only. @throws Error naming the file and the rule that it breaks.
  [[nodiscard]] static SafetensorsFile open(const std::filesystem::path& path);

  /// Reads bytes that `owner` keeps alive; `source` names them in errors.
  [[nodiscard]] static SafetensorsFile parse(std::shared_ptr<const void> owner,
                                             std::span<const std::byte> bytes,
                                             std::string_view source);

  /// All tensor names, sorted by bytes.
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] bool has(std::string_view name) const { return tensors_.contains(name); }
  /// @throws Error naming the file and the nearest name it does hold.
  [[nodiscard]] const TensorView& at(std::string_view name) const;
  /// The strings under `__metadata__`.
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
  [[nodiscard]] const std::string& source() const { return source_; }

 private:
  std::string source_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

/// Writes a file that the safetensors package reads, tensors in the order of its own writer. The
/// bytes go straight to a temporary file, which is flushed and then renamed over `path`.
/// @throws Error for a duplicate name, a size that disagrees with the shape, or an I/O failure.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const SafetensorsMetadata& metadata = {{"format", "pt"}});

/// What `write_safetensors_streamed` needs to know before it has the data.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

/// As `write_safetensors`, but asks for one tensor's bytes at a time: `bytes_of(i)` returns those
/// of `specs[i]` and they need to live until the next call only. Calls come in file order.
/// @param alignment  of the data's first byte in the file, a multiple of 8.
void write_safetensors_streamed(const std::filesystem::path& path,
                                std::span<const TensorSpec> specs,
                                const std::function<std::span<const std::byte>(size_t)>& bytes_of,
                                const SafetensorsMetadata& metadata = {{"format", "pt"}},
                                size_t alignment = 8);

}  // namespace temper
