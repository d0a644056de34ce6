#include "temper/formats/gguf.h"

#include <array>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxNameBytes = 63;
constexpr uint32_t kMaxDims = 4;
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = 1 << 20;
constexpr uint64_t kMinKeyBytes = 8 + 4 + 1;         // empty key, type, one byte
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;  // empty name, no dimensions, type, offset

/// Value types as the file numbers them.
enum class ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

/// Takes values off the front of the file; every read is checked against what is left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string_view source)
      : bytes_(bytes), source_(source) {}

  uint64_t left() const { return bytes_.size() - at_; }
  uint64_t position() const { return at_; }
  const std::string& source() const { return source_; }

  template <class T>
  T take() {
    need(sizeof(T), "a value");
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::string_view text(uint64_t max_bytes, std::string_view what) {
    const auto length = take<uint64_t>();
    TEMPER_CHECK(length <= max_bytes, "[gguf] ", source_, ": ", what, " of ", length,
                 " bytes, more than ", max_bytes);
    need(length, what);
    const std::string_view view(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return view;
  }

  void need(uint64_t n, std::string_view what) const {
    TEMPER_CHECK(n <= left(), "[gguf] ", source_, ": the file ends inside ", what, " at byte ", at_,
                 " (", n, " bytes needed, ", left(), " left)");
  }

 private:
  std::span<const std::byte> bytes_;
  std::string source_;
  uint64_t at_ = 0;
};

bool read_bool(Cursor& in) {
  const auto byte = in.take<uint8_t>();
  TEMPER_CHECK(byte <= 1, "[gguf] ", in.source(), ": a bool of value ", int{byte});
  return byte != 0;
}

/// Calls `use` with a reader of one item of a numeric type, widened to int64, uint64 or double.
template <class Use>
void with_number(ValueType type, const std::string& source, std::string_view key, Use use) {
  switch (type) {
    case ValueType::kU8: return use([](Cursor& c) -> int64_t { return c.take<uint8_t>(); });
    case ValueType::kI8: return use([](Cursor& c) -> int64_t { return c.take<int8_t>(); });
    case ValueType::kU16: return use([](Cursor& c) -> int64_t { return c.take<uint16_t>(); });
    case ValueType::kI16: return use([](Cursor& c) -> int64_t { return c.take<int16_t>(); });
    case ValueType::kU32: return use([](Cursor& c) -> int64_t { return c.take<uint32_t>(); });
    case ValueType::kI32: return use([](Cursor& c) -> int64_t { return c.take<int32_t>(); });
    case ValueType::kI64: return use([](Cursor& c) -> int64_t { return c.take<int64_t>(); });
    case ValueType::kU64: return use([](Cursor& c) -> uint64_t { return c.take<uint64_t>(); });
    case ValueType::kBool: return use([](Cursor& c) -> int64_t { return read_bool(c); });
    case ValueType::kF32: return use([](Cursor& c) -> double { return c.take<float>(); });
    case ValueType::kF64: return use([](Cursor& c) -> double { return c.take<double>(); });
    default:
      fail("[gguf] ", source, ": key \"", key, "\" has the unknown value type ",
           static_cast<uint32_t>(type));
  }
}

uint64_t item_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU16:
    case ValueType::kI16: return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32: return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
    case ValueType::kString: return 8;
    default: return 1;
  }
}

GgufValue read_array(Cursor& in, std::string_view key) {
  const auto type = static_cast<ValueType>(in.take<uint32_t>());
  const auto count = in.take<uint64_t>();
  TEMPER_CHECK(type != ValueType::kArray, "[gguf] ", in.source(), ": key \"", key,
               "\" holds an array of arrays");
  TEMPER_CHECK(count <= in.left() / item_bytes(type), "[gguf] ", in.source(), ": key \"", key,
               "\" claims ", count, " items, more than the file has bytes for");
  if (type == ValueType::kString) {
    std::vector<std::string_view> items;
    items.reserve(count);
    for (uint64_t i = 0; i < count; ++i) items.push_back(in.text(in.left(), "a string"));
    return items;
  }
  GgufValue result;
  with_number(type, in.source(), key, [&](auto next) {
    using Item = decltype(next(in));
    using Stored = std::conditional_t<std::is_same_v<Item, double>, double, int64_t>;
    std::vector<Stored> items;
    items.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      const Item item = next(in);
      if constexpr (std::is_same_v<Item, uint64_t>) {
        TEMPER_CHECK(item <= INT64_MAX, "[gguf] ", in.source(), ": key \"", key, "\" holds ", item,
                     ", above 2^63");
      }
      items.push_back(static_cast<Stored>(item));
    }
    result = std::move(items);
  });
  return result;
}

GgufValue read_value(Cursor& in, std::string_view key) {
  const auto type = static_cast<ValueType>(in.take<uint32_t>());
  if (type == ValueType::kString) return in.text(in.left(), "a string");
  if (type == ValueType::kArray) return read_array(in, key);
  if (type == ValueType::kBool) return read_bool(in);
  GgufValue result;
  with_number(type, in.source(), key, [&](auto next) { result = next(in); });
  return result;
}

/// A tensor's entry; its data is found once the entries' end, and so the data's start, is known.
struct Info {
  std::string name;
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

Info read_info(Cursor& in) {
  Info info;
  info.name = in.text(kMaxNameBytes, "a tensor's name");
  const std::string where = concat("[gguf] ", in.source(), ": tensor \"", info.name, "\"");
  const auto n_dims = in.take<uint32_t>();
  TEMPER_CHECK(n_dims <= kMaxDims, where, " has ", n_dims, " dimensions, more than ", kMaxDims);
  std::vector<int64_t> fastest_first;
  int64_t numel = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    const auto size = in.take<int64_t>();
    TEMPER_CHECK(size >= 1 && !__builtin_mul_overflow(numel, size, &numel), where,
                 " has a size of ", size, ", or too many elements");
    fastest_first.push_back(size);
  }
  info.tensor.shape.assign(fastest_first.rbegin(), fastest_first.rend());
  const auto type = in.take<uint32_t>();
  info.tensor.type = static_cast<GgmlType>(type);
  const GgmlBlock block = ggml_block(info.tensor.type);
  TEMPER_CHECK(block.bytes > 0, where, " is stored as ", ggml_type_name(type),
               ", which Temper does not read; use a file in F16, Q8_0, Q4_K, Q5_K, Q6_K, Q4_0, "
               "Q4_1, Q5_0 or Q5_1");
  const int64_t row = fastest_first.empty() ? 1 : fastest_first.front();
  TEMPER_CHECK(row % block.weights == 0, where, " has rows of ", row, ", no multiple of the ",
               block.weights, " weights of a block of ", ggml_type_name(type));
  int64_t bytes = 0;
  TEMPER_CHECK(!__builtin_mul_overflow(numel / block.weights, block.bytes, &bytes), where,
               " has too many bytes");
  info.bytes = static_cast<uint64_t>(bytes);
  info.offset = in.take<uint64_t>();
  return info;
}

void read_header(Cursor& in) {
  TEMPER_CHECK(in.left() >= 4 &&
                   in.take<uint32_t>() == std::bit_cast<uint32_t>(std::array{'G', 'G', 'U', 'F'}),
               "[gguf] ", in.source(), " is no GGUF file: it does not start with \"", kMagic, "\"");
  const auto version = in.take<uint32_t>();
  TEMPER_CHECK((version & 0xffffu) != 0, "[gguf] ", in.source(),
               " is a big-endian GGUF file, which is not supported");
  TEMPER_CHECK(version == 2 || version == 3, "[gguf] ", in.source(), " has GGUF version ", version,
               "; supported are 2 and 3");
}

}  // namespace

GgufFile GgufFile::open(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse(file, file->bytes(), path.string());
}

GgufFile GgufFile::parse(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                         std::string_view source) {
  Cursor in(bytes, source);
  read_header(in);
  const auto n_tensors = in.take<uint64_t>();
  const auto n_keys = in.take<uint64_t>();
  TEMPER_CHECK(n_tensors <= in.left() / kMinTensorBytes && n_keys <= in.left() / kMinKeyBytes,
               "[gguf] ", source, ": ", n_tensors, " tensors and ", n_keys,
               " keys do not fit into ", bytes.size(), " bytes");
  GgufFile file;
  file.source_ = source;
  file.owner_ = std::move(owner);
  for (uint64_t i = 0; i < n_keys; ++i) {
    const std::string key(in.text(kMaxKeyBytes, "a key"));
    TEMPER_CHECK(file.values_.emplace(key, read_value(in, key)).second, "[gguf] ", source,
                 ": duplicate key \"", key, "\"");
  }
  const auto alignment = static_cast<uint64_t>(
      file.integer("general.alignment", 1, kMaxAlignment).value_or(kDefaultAlignment));
  TEMPER_CHECK(std::has_single_bit(alignment), "[gguf] ", source,
               ": general.alignment must be a "
               "power of two, got ",
               alignment);

  std::vector<Info> infos;
  infos.reserve(n_tensors);
  for (uint64_t i = 0; i < n_tensors; ++i) infos.push_back(read_info(in));
  const uint64_t start = (in.position() + alignment - 1) / alignment * alignment;
  const uint64_t size = start <= bytes.size() ? bytes.size() - start : 0;
  for (Info& info : infos) {
    TEMPER_CHECK(info.offset % alignment == 0, "[gguf] ", source, ": tensor \"", info.name,
                 "\" begins at ", info.offset, ", no multiple of the alignment ", alignment);
    TEMPER_CHECK(start <= bytes.size() && info.offset <= size && info.bytes <= size - info.offset,
                 "[gguf] ", source, ": tensor \"", info.name, "\" (", info.bytes, " bytes at ",
                 info.offset, ") reaches past the ", size, " bytes of data; the file is cut short");
    info.tensor.data = bytes.subspan(start + info.offset, info.bytes);
    TEMPER_CHECK(file.tensors_.emplace(info.name, std::move(info.tensor)).second, "[gguf] ", source,
                 ": duplicate tensor \"", info.name, "\"");
  }
  return file;
}

std::optional<int64_t> GgufFile::integer(std::string_view key, int64_t low, int64_t high) const {
  const auto at = values_.find(key);
  if (at == values_.end()) return std::nullopt;
  const auto* wide = std::get_if<uint64_t>(&at->second);
  const auto* narrow = std::get_if<int64_t>(&at->second);
  if (wide == nullptr && narrow == nullptr) wrong_type(key);
  const bool huge = wide != nullptr && *wide > INT64_MAX;
  const int64_t value = wide != nullptr ? static_cast<int64_t>(*wide) : *narrow;
  TEMPER_CHECK(!huge && value >= low && value <= high, "[gguf] ", source_, ": ", key,
               " must be in [", low, ", ", high, "], got ", value, huge ? " (as signed)" : "");
  return value;
}

void GgufFile::wrong_type(std::string_view key) const {
  fail("[gguf] ", source_, ": key \"", key, "\" holds a value of an unexpected type");
}

}  // namespace temper
