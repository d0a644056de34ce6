#include "temper/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxDims = 32;
constexpr std::string_view kMetadata = "__metadata__";

/// One tensor's header entry as it stands in the file.
struct Entry {
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Takes the header's JSON token by token: its grammar is three levels deep, so anything deeper is
/// refused where it starts and no document tree of a hostile header is ever built.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(std::string_view source) : source_(source) {}

  std::map<std::string, Entry, std::less<>> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    fail("[safetensors] ", source_, ": ", where(), " is negative: ", value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) return unexpected("a number");
    auto& list = field_ == "shape" ? entry_->shape : entry_->offsets;
    TEMPER_CHECK(list.size() < kMaxDims, "[safetensors] ", source_, ": ", where(),
                 " has more than ", kMaxDims, " numbers");
    list.push_back(value);
    return true;
  }
  bool number_float(number_float_t, const string_t& text) override {
    fail("[safetensors] ", source_, ": ", where(), " must hold integers below 2^64, got ", text);
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && name_ == kMetadata) {
      TEMPER_CHECK(metadata.emplace(field_, value).second, "[safetensors] ", source_,
                   ": duplicate key \"", field_, "\" in ", kMetadata);
      return true;
    }
    if (depth_ != 2 || in_array_ || field_ != "dtype") return unexpected("a string");
    entry_->dtype = std::move(value);
    return true;
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool start_object(size_t) override {
    if (depth_ >= 2 || in_array_) return unexpected("an object");
    ++depth_;
    return true;
  }
  bool key(string_t& text) override {
    if (depth_ == 1) {
      start_entry(std::move(text));
    } else {
      field_ = std::move(text);
      if (name_ != kMetadata) mark_field();
    }
    return true;
  }
  bool end_object() override {
    if (depth_ == 2 && name_ != kMetadata) {
      TEMPER_CHECK(entry_->has_dtype && entry_->has_shape && entry_->has_offsets, "[safetensors] ",
                   source_, ": tensor \"", name_, "\" lacks dtype, shape or data_offsets");
    }
    --depth_;
    field_.clear();
    return true;
  }
  bool start_array(size_t) override {
    const bool list = depth_ == 2 && !in_array_ && name_ != kMetadata &&
                      (field_ == "shape" || field_ == "data_offsets");
    if (!list) return unexpected("an array");
    in_array_ = true;
    return true;
  }
  bool end_array() override {
    in_array_ = false;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail("[safetensors] ", source_, ": the header is not valid JSON near its byte ", position);
  }

 private:
  void start_entry(std::string text) {
    name_ = std::move(text);
    if (name_ == kMetadata) {
      TEMPER_CHECK(!std::exchange(saw_metadata_, true), "[safetensors] ", source_, ": duplicate ",
                   kMetadata);
      return;
    }
    const auto [at, fresh] = entries.try_emplace(name_);
    TEMPER_CHECK(fresh, "[safetensors] ", source_, ": duplicate tensor name \"", name_, "\"");
    entry_ = &at->second;
  }
  void mark_field() {
    bool* seen = field_ == "dtype"          ? &entry_->has_dtype
                 : field_ == "shape"        ? &entry_->has_shape
                 : field_ == "data_offsets" ? &entry_->has_offsets
                                            : nullptr;
    TEMPER_CHECK(seen != nullptr, "[safetensors] ", source_, ": tensor \"", name_,
                 "\" has the unknown key \"", field_, "\"");
    TEMPER_CHECK(!std::exchange(*seen, true), "[safetensors] ", source_, ": tensor \"", name_,
                 "\" has two keys \"", field_, "\"");
  }
  std::string where() const {
    if (depth_ == 0) return "the header";
    return field_.empty() ? "\"" + name_ + "\"" : "\"" + name_ + "\"." + field_;
  }
  [[noreturn]] bool unexpected(std::string_view what) const {
    fail("[safetensors] ", source_, ": ", where(), " must not be ", what);
  }

  std::string source_;
  std::string name_, field_;
  Entry* entry_ = nullptr;
  int depth_ = 0;
  bool in_array_ = false, saw_metadata_ = false;
};

/// Product of `shape`, or an error when it or a dimension does not fit in 63 bits.
uint64_t checked_numel(const std::vector<uint64_t>& shape, std::string_view context) {
  uint64_t n = 1;
  for (const uint64_t size : shape) {
    TEMPER_CHECK(size <= INT64_MAX && !__builtin_mul_overflow(n, size, &n) && n <= INT64_MAX,
                 "[safetensors] ", context, ": the shape overflows 63 bits");
  }
  return n;
}

/// The entry as a view of `data`, after its own rules are checked.
TensorView view_of(const Entry& entry, const std::string& context,
                   std::span<const std::byte> data) {
  TEMPER_CHECK(entry.offsets.size() == 2, "[safetensors] ", context,
               ": data_offsets must hold 2 numbers, got ", entry.offsets.size());
  const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  TEMPER_CHECK(begin <= end && end <= data.size(), "[safetensors] ", context, ": data_offsets [",
               begin, ", ", end, "] do not lie inside ", data.size(), " bytes of data");
  TensorView view;
  view.dtype = parse_dtype(entry.dtype);
  const uint64_t numel = checked_numel(entry.shape, context);
  uint64_t bytes = end - begin;  // of an unknown dtype nothing more can be said
  if (view.dtype != DType::kUnknown) {
    TEMPER_CHECK(!__builtin_mul_overflow(numel, uint64_t{dtype_size(view.dtype)}, &bytes),
                 "[safetensors] ", context, ": the size overflows 64 bits");
  }
  TEMPER_CHECK(bytes == end - begin, "[safetensors] ", context, ": the shape asks for ", bytes,
               " bytes of ", entry.dtype, " but data_offsets span ", end - begin);
  view.shape.assign(entry.shape.begin(), entry.shape.end());
  view.data = data.subspan(begin, end - begin);
  return view;
}

/// Tensors must cover the data exactly: each begins where the one before ends.
void check_coverage(const std::map<std::string, Entry, std::less<>>& entries, uint64_t data_size,
                    std::string_view source) {
  std::vector<std::pair<const std::vector<uint64_t>*, const std::string*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&entry.offsets, &name);
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return *a.first < *b.first; });
  uint64_t end = 0;
  for (const auto& [offsets, name] : order) {
    TEMPER_CHECK((*offsets)[0] == end, "[safetensors] ", source, ": tensor \"", *name,
                 "\" begins at ", (*offsets)[0], " where the one before ends at ", end,
                 ": overlap or hole");
    end = (*offsets)[1];
  }
  TEMPER_CHECK(end == data_size, "[safetensors] ", source, ": the tensors end at ", end, " but ",
               data_size, " bytes of data follow the header");
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse(file, file->bytes(), path.string());
}

SafetensorsFile SafetensorsFile::parse(std::shared_ptr<const void> owner,
                                       std::span<const std::byte> bytes, std::string_view source) {
  TEMPER_CHECK(bytes.size() >= 8, "[safetensors] ", source, ": ", bytes.size(),
               " bytes are too few for a safetensors file");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  TEMPER_CHECK(length <= kMaxHeader && length <= bytes.size() - 8, "[safetensors] ", source,
               ": a header of ", length, " bytes does not fit (file: ", bytes.size(),
               " bytes, limit: ", kMaxHeader, "); the file is cut short or is no safetensors file");
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  TEMPER_CHECK(header.starts_with('{'), "[safetensors] ", source,
               ": the header must start with '{'");
  HeaderReader reader(source);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);

  SafetensorsFile file;
  file.source_ = source;
  file.metadata_ = std::move(reader.metadata);
  const auto data = bytes.subspan(8 + length);
  for (const auto& [name, entry] : reader.entries) {
    TensorView view = view_of(entry, concat(source, ": tensor \"", name, "\""), data);
    view.owner = owner;
    file.tensors_.emplace(name, std::move(view));
  }
  check_coverage(reader.entries, data.size(), source);
  return file;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  result.reserve(tensors_.size());
  for (const auto& [name, view] : tensors_) result.push_back(name);
  return result;
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  const std::string near = nearest_name(name, names());
  fail("[safetensors] ", source_, " holds no tensor \"", name, "\"",
       near.empty() ? "" : "; the nearest name is \"" + near + "\"");
}

}  // namespace temper
