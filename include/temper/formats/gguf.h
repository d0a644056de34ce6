#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "temper/formats/model_source.h"

namespace temper {

/// Storage types of GGUF tensors that Temper reads; the numbers are the file's.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

/// "Q4_1" and so on, also for types that Temper does not read; the number for unheard-of ones.
[[nodiscard]] std::string ggml_type_name(uint32_t type);

/// Weights a block and bytes a block of a type that Temper reads.
struct GgmlBlock {
  int64_t weights = 1;
  int64_t bytes = 0;
};
[[nodiscard]] GgmlBlock ggml_block(GgmlType type);

/// Blocks to floats, in fp32 and in the order of operations that the gguf package uses: the same
/// bits as its dequantiser gives.
/// @param blocks  whole blocks, at any address.
/// @param out     as many floats as the blocks hold weights.
void ggml_dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

/// Rows of Q4_0, Q4_1 or Q8_0 as codes, scales and minimums, for which the sums of WeightBlocks are the
/// bits of `ggml_dequantize`; nothing for another type.
/// @param blocks  whole blocks.
[[nodiscard]] std::optional<WeightBlocks> ggml_unpack(GgmlType type,
                                                      std::span<const std::byte> blocks);

/// A key's value. Integers are widened; strings point into the file.
using GgufValue =
    std::variant<bool, int64_t, uint64_t, double, std::string_view, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string_view>>;

/// A tensor of a GGUF file; `shape` is in Torch order (slowest first), rows are whole blocks.
struct GgufTensor {
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

/// A GGUF file of version 2 or 3, little-endian. All counts, lengths and offsets are checked
/// against the file's size when it is opened; views live as long as `owner()`.
class GgufFile {
 public:
  /// Maps the file read-only. @throws Error naming the file and the rule that it breaks.
  [[nodiscard]] static GgufFile open(const std::filesystem::path& path);
  /// Reads bytes that `owner` keeps alive; `source` names them in errors.
  [[nodiscard]] static GgufFile parse(std::shared_ptr<const void> owner,
                                      std::span<const std::byte> bytes, std::string_view source);

  [[nodiscard]] const std::map<std::string, GgufValue, std::less<>>& values() const {
    return values_;
  }
  [[nodiscard]] const std::map<std::string, GgufTensor, std::less<>>& tensors() const {
    return tensors_;
  }
  [[nodiscard]] const std::string& source() const { return source_; }
  [[nodiscard]] const std::shared_ptr<const void>& owner() const { return owner_; }

  /// The value of `key`, or nullptr. @throws Error naming the key when it holds another type.
  template <class T>
  [[nodiscard]] const T* find(std::string_view key) const {
    const auto at = values_.find(key);
    if (at == values_.end()) return nullptr;
    const T* value = std::get_if<T>(&at->second);
    if (value == nullptr) wrong_type(key);
    return value;
  }
  /// An integer in [low, high], or nothing when the key is absent. @throws Error naming the key.
  [[nodiscard]] std::optional<int64_t> integer(std::string_view key, int64_t low,
                                               int64_t high) const;

 private:
  [[noreturn]] void wrong_type(std::string_view key) const;

  std::string source_;
  std::shared_ptr<const void> owner_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

/// The model in a GGUF file: config from its keys, weights under Hugging Face names with rope rows
/// put back in rotate-half order, tokenizer.json composed from its vocabulary.
/// @throws Error naming the architecture, tensor, pre-tokenizer or key that Temper does not know.
[[nodiscard]] ModelSource open_gguf_model(const GgufFile& file);

}  // namespace temper
